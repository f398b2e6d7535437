"""What the pages on attribution, lens and flow say runs: every Python block and every command."""

import shlex

import pytest

from headatlas.cli import main
from tests.methods.test_docs import blocks, place, small  # noqa: F401

PAGES = ["attribution.md", "lens.md", "flow.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    assert blocks(page, "python")
    exec("\n".join(blocks(page, "python")), {})


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, capsys):
    commands = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        force = ["--force"] if "attribute" in command else []
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(command)[1:], *force])
        assert ended.value.code in (0, None), command
        assert "head" in capsys.readouterr().out
