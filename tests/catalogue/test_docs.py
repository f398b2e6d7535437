"""docs/catalogue.md: every command and every line of Python in it runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headatlas.cli.papers import app

PAGE = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^headatlas papers (.+)$", PAGE, re.M)


def test_the_page_shows_commands():
    assert len(COMMANDS) >= 14


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_docs_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert result.output.strip()
    named = re.findall(r"\S+\.(?:md|bib|json|csv|atom)\b", command)
    assert [path.name for path in tmp_path.iterdir()] == named


def test_the_python_in_the_docs_runs(capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/catalogue.md", "exec"), {})
    assert "inhibition-head Latent Reasoning" in capsys.readouterr().out


def test_the_files_that_the_page_names_exist():
    root = Path(__file__).parents[2]
    for path in re.findall(r"headatlas/catalogue/[\w./]+\w", PAGE):
        if "*" not in path:
            assert (root / path).exists(), path
