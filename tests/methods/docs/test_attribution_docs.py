"""What the pages on attribution, lens and flow say runs: every Python block and every command."""

import pytest

from tests import pages

PAGES = ["methods/attribution.md", "methods/lens.md", "methods/flow.md"]


@pytest.fixture(autouse=True)
def place(load_gives_narrow_smollm2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    pages.run_python(page)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, capsys):
    for command in pages.commands(page):
        code, out, err = pages.run(capsys, *command, *(["--force"] if command[0] == "attribute" else []))
        assert code == 0, (command, err)
        assert "head" in out, command
