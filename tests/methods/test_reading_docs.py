"""What the pages on weights, probing and steering say runs, on a small model with the real tokenizer."""

import shlex

import pytest

from headatlas.cli import main
from tests.methods.test_docs import blocks, place, small  # noqa: F401  the fixtures of the other pages

FEWER = {"probe": ["--n", "40", "--heads", "18.6 20.0"], "steer": ["--n", "16", "--draws", "2"], "weights": []}


@pytest.mark.parametrize("page", ["weights.md", "probing.md", "steering.md"])
def test_python_blocks_run(page):
    assert blocks(page, "python")
    exec("\n".join(blocks(page, "python")), {})


@pytest.mark.parametrize("page", ["weights.md", "probing.md", "steering.md"])
def test_commands_run(page, tmp_path, capsys):
    (tmp_path / "reviews.jsonl").write_text(blocks("probing.md", "json")[0])
    commands = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        arguments = shlex.split(command)[1:]
        chosen = {"--heads", "--layers"} & set(arguments) or arguments[0] != "steer"
        more = [] if chosen else ["--heads", "18.6 20.0"]  # picking heads by probes is tested elsewhere
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *FEWER[arguments[0]], *more])
        assert ended.value.code in (0, None), command
        assert capsys.readouterr().out.strip(), command
