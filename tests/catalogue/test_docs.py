"""docs/catalogue.md: every command and every line of Python in it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages

PAGE = "catalogue.md"
COMMANDS = pages.commands(PAGE, "")


def test_the_page_shows_commands():
    assert len(COMMANDS) >= 14


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_in_the_docs_runs(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    code, out, err = pages.run(capsys, *command)
    assert code == 0, err
    assert out.strip()
    named = re.findall(r"\S+\.(?:md|bib|json|csv|atom)\b|\bdataset$", " ".join(command))
    assert [path.name for path in tmp_path.iterdir()] == named


def test_the_python_in_the_docs_runs(capsys: pytest.CaptureFixture[str]):
    pages.run_python(PAGE)
    assert "inhibition-head Latent Reasoning" in capsys.readouterr().out


def test_the_files_that_the_page_names_exist():
    for path in re.findall(r"headatlas/catalogue/[\w./]+\w", pages.text(PAGE)):
        if "*" not in path:
            assert (pages.ROOT / path).exists(), path
