"""How far long work has come, and who is told: one protocol for scans, sweeps, searches and downloads."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from headatlas.render.escape import rewrite, say, shown
from headatlas.render.numbers import seconds


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


class PrintedProgress:
    """Says on standard error how far each step has come and how long it may take yet: `progress=headatlas.PrintedProgress()`.

    On a terminal and in a notebook it rewrites one line, four times a second at most; in a log it prints a line when a step begins,
    every `every` seconds and when it ends.
    """

    def __init__(self, every: float = 30.0, *, file: TextIO | None = None) -> None:
        self._file, self._every = file, every
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._latest = time.monotonic()  # when it was told of work last
        self._told, self._open = (
            -1e9,
            0,
        )  # when something was said last, and how many characters of an open line stand there

    @property
    def _out(self) -> TextIO:
        return self._file or sys.stderr  # looked up each time: notebooks replace it

    @property
    def _rewrites(self) -> bool:
        return self._out.isatty() or type(self._out).__module__.startswith("ipykernel")

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Note how long the steps are."""
        self._sizes.update(steps)
        self._latest = time.monotonic()

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Tell how far the step has come, if it is time to."""
        now = time.monotonic()
        first = step not in self._done
        self._began.setdefault(step, self._latest)  # its first part took the time since the report before
        self._latest = now
        self._done[step] = self._done.get(step, 0) + amount
        size = self._sizes.setdefault(step, of or 0) or of or 0
        ended = bool(size) and self._done[step] >= size
        if not (first or ended or now - self._told >= (0.25 if self._rewrites else self._every)):
            return
        self._told = now
        self._write(self._line(step, size, now - self._began[step], ended=ended), ended=ended)

    def _line(self, step: str, size: int, spent: float, *, ended: bool) -> str:
        """One step in words; how long it may take yet is known once a part of it has been timed."""
        done = self._done[step]
        line = f"{step}: {done:,}" + (f" of {size:,}" if size else "")
        if ended:
            return f"{line} done in {seconds(spent)}"
        return f"{line}, about {seconds(spent * (size - done) / done)} left" if size and spent > 1 else line

    def _write(self, line: str, *, ended: bool) -> None:
        text = shown(line, lines=False)
        if self._rewrites:
            rewrite(text.ljust(self._open), self._out, ended=ended)
            self._open = 0 if ended else len(text)
        else:
            say(text, file=self._out)

    def say(self, line: str) -> None:
        """Print the line, below what stands there."""
        if self._open:
            say("", file=self._out)
            self._open = 0
        say(line, file=self._out)


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


class AtMost(Silent):
    """Part of one step of larger work that takes so many steps at most; those that it turned out not to need count when it `ends`."""

    def __init__(self, whole: Progress, step: str, size: int) -> None:
        self.whole, self.step, self.size, self.left = whole, step, size, size

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Move the larger work's step on, whatever the part calls it, and never beyond its share."""
        amount = min(amount, self.left)
        self.left -= amount
        if amount:
            self.whole.advance(self.step, amount, self.size)

    def ends(self) -> None:
        """Count what was not needed."""
        self.advance(self.step, self.left)
