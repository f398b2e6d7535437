"""What the pages on weights, probing and steering say runs, on a small model with the real tokenizer."""

import pytest

from tests import pages

PAGES = ["methods/weights.md", "methods/probing.md", "methods/steering.md", "methods/syntax.md"]
FEWER = {"probe": ["--n", "40", "--heads", "18.6 20.0"], "steer": ["--n", "16", "--draws", "2"], "weights": []}


@pytest.fixture(autouse=True)
def place(load_gives_narrow_smollm2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.jsonl").write_text(pages.blocks("methods/probing.md", "json")[0])


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    pages.run_python(page)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, capsys):
    for command in pages.commands(page):
        chosen = {"--heads", "--layers"} & set(command) or command[0] != "steer"
        more = [] if chosen else ["--heads", "18.6 20.0"]  # picking heads by probes is tested elsewhere
        code, out, err = pages.run(capsys, *command, *FEWER[command[0]], *more)
        assert code == 0, (command, err)
        assert out.strip(), command
