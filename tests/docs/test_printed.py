"""README.md and docs/ print what the commands print: each block of a terminal (console) and of Python's prompt (pycon) is run.

`...` in a page stands for what is left out. Minutes, on the real model: make test-slow. HEADATLAS_PRINTED names a folder in which
the run that the pages show is kept, so that a second try need not mine again; a page that differs is shown with what is printed.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages

FLAGS = doctest.ELLIPSIS | doctest.REPORT_NDIFF
README = "../README.md"


def shown(language: str) -> list[str]:
    """The pages that have a block in a language, the README first."""
    every = [
        README,
        *sorted(str(path.relative_to(pages.ROOT / "docs")) for path in (pages.ROOT / "docs").rglob("*.md")),
    ]
    return [page for page in every if pages.blocks(page, language)]


def steps(block: str) -> Iterator[tuple[list[str], str]]:
    """The commands of a block, as their arguments, each with what is printed below it."""
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, out = part.replace("\\\n", " ").partition("\n")
        yield shlex.split(command), out


def differs(want: str, got: str) -> str:
    """What of a printed text is not what a page says; trailing spaces do not count. Empty where all is."""
    lines = ["\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n" for text in (want, got)]
    checker = doctest.OutputChecker()
    if not want.strip("\n") or checker.check_output(*lines, FLAGS):
        return ""
    return f"The page says:\n{lines[0]}\nThe command prints:\n{lines[1]}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all pages run, one after the other: what one writes is there for the next."""
    kept = os.environ.get("HEADATLAS_PRINTED")
    return Path(kept) if kept else tmp_path_factory.mktemp("printed")


@pytest.fixture
def real(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    for page in shown("console"):
        for name, code in pages.files(page):
            Path(name).write_text(code)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", shown("console"))
def test_the_terminal_prints_what_the_page_says(page: str, real: None, capsys: pytest.CaptureFixture[str]):
    wrong = []
    for block in pages.blocks(page, "console"):
        for (program, *arguments), want in steps(block):
            if program != "headatlas":  # npm and the like are not ours
                continue
            code, out, err = pages.run(capsys, *arguments)
            assert code == 0, (arguments, err)
            wrong += [difference] if (difference := differs(want, out)) else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", shown("pycon"))
def test_python_prints_what_the_page_says(page: str, real: None):
    names: dict[str, object] = {}
    wrong = []
    for block in pages.blocks(page, "pycon"):
        for example in doctest.DocTestParser().get_examples(block):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(example.source, f"docs/{page}", "single"), names)
            wrong += [difference] if (difference := differs(example.want, out.getvalue())) else []
    assert not wrong, "\n".join(wrong)


def test_a_line_that_has_changed_is_seen():
    said = "head  score\n...\n18.6  0.89\n"
    assert differs(said, "head  score  \n17.1  0.11\n18.6  0.89\n") == ""
    assert "0.88" in differs(said, "head  score\n17.1  0.11\n18.6  0.88\n")
    assert differs(said, "head  score\n17.1  0.11\n")
    ((command, out), (other, _)) = steps("$ headatlas show atlas --top 3\n12 heads\n$ headatlas list tasks\n")
    assert (command, out) == (["headatlas", "show", "atlas", "--top", "3"], "12 heads\n")
    assert other == ["headatlas", "list", "tasks"]
    assert README in shown("console")
