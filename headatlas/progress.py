"""How far long work has come, and who is told: one protocol for scans, sweeps, searches and downloads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headatlas.render.escape import say


class Progress(Protocol):
    """Who is told how far the work has come.

    `plan` announces steps and their sizes; `advance` moves a step on, where `of` gives the size of one that was not
    announced; `say` passes on a line of text. What a caller of the library gives as `progress=`.
    """

    def plan(self, steps: Sequence[tuple[str, int]]) -> None: ...  # noqa: D102
    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None: ...  # noqa: D102
    def say(self, line: str) -> None: ...  # noqa: D102


class Silent:
    """Tells nobody."""

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Do nothing."""

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


class Stderr(Silent):
    """Says lines on standard error, where they do not mix with a command's output, and counts nothing."""

    def say(self, line: str) -> None:
        """Print the line."""
        say(line, file=sys.stderr)


@dataclass(frozen=True)
class Part:
    """Work that is part of one step of larger work: what it advances counts for that step, under its name and size.

    size: of the whole step; None where the part itself knows it.
    """

    whole: Progress
    step: str
    size: int | None = None

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Do nothing: the step was announced, or will be, by the larger work."""

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Move the larger work's step on, whatever the part calls it."""
        self.whole.advance(self.step, amount, of if self.size is None else self.size)

    def say(self, line: str) -> None:
        """Pass the line on."""
        self.whole.say(line)
