"""What is wrong with a catalogue file: where, what, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headatlas.errors import HeadAtlasError


@dataclass(frozen=True, order=True)
class Problem:
    """One fault in one line of one file; lines count from 1."""

    file: str
    line: int
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.wrong} {self.right}".rstrip()


class CatalogueError(HeadAtlasError):
    """A catalogue that cannot be used; `problems` holds every fault, the message the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, more = self.problems[0], len(self.problems) - 1
        hint = f"({more} more: see `headatlas papers check`)" if more else ""
        super().__init__(str(first), hint)


def shown(path: Path) -> str:
    """The path as a reader can open it from the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
