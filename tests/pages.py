"""Commands as a user types them, and the pages of the documentation that show them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from headatlas.cli import main

ROOT = Path(__file__).parents[1]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    found = capsys.readouterr()
    return code, found.out, found.err


def text(page: str) -> str:
    """A page of docs/ by its path, such as "methods/lens.md"."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


_FENCED = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language (in "" where none is named), without those that say more, such as no-run."""
    return [code for named, more, code in _FENCED.findall(text(page)) if (named, more) == (language, "")]


def files(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that are a file, as (name, content): those with title="NAME"."""
    return [(more.split('"')[1], code) for _, more, code in _FENCED.findall(text(page)) if "title=" in more]


def commands(page: str, language: str = "sh") -> list[list[str]]:
    """The arguments of every command in the blocks of a page. A page that shows none is no page to test."""
    lines = [line for code in blocks(page, language) for line in code.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("headatlas ")]
    assert found, f"docs/{page} shows no command"
    return found


def run_python(page: str) -> None:
    """Run the Python blocks of a page one after the other, as one program."""
    code = blocks(page, "python")
    assert code, f"docs/{page} shows no Python"
    exec(compile("\n".join(code), f"docs/{page}", "exec"), {})
