"""What docs/methods says runs: every Python block and every command, on a small model with the real tokenizer."""

import pytest

from tests import pages

PAGES = ["methods/edits.md", "methods/ablation.md", "methods/patching.md", "methods/prompts.md"]


@pytest.fixture(autouse=True)
def place(load_gives_narrow_smollm2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text(pages.blocks("methods/prompts.md", "json")[0])


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    pages.run_python(page)


@pytest.mark.parametrize("page", PAGES[1:])
def test_commands_run(page, capsys):
    for command in pages.commands(page):
        code, out, err = pages.run(capsys, *command, *([] if "--force" in command else ["--force"]))
        assert code == 0, (command, err)
        assert "effect" in out, command
