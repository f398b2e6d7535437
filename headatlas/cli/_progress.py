"""How far a run has come: a bar with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from headatlas.render.console import console
from headatlas.render.numbers import seconds


class Shown:
    """Progress of a run on standard error; use as a context manager."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bar: Progress | None = None
        self._ids: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._began = time.monotonic()

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Announce the steps and their sizes."""
        for step, size in steps:
            self._add(step, size)

    def _add(self, step: str, size: int) -> None:
        self._total[step], self._done[step] = size, 0
        if self._bar is not None:
            self._ids[step] = self._bar.add_task(step, total=size)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Move a step on; `of` announces one that was not planned."""
        if step not in self._total:
            self._add(step, of or amount)
        self._done[step] += amount
        if self._bar is not None:
            self._bar.advance(self._ids[step], amount)  # type: ignore[arg-type]
        elif self._done[step] >= self._total[step]:
            self.say(
                f"{step}: {self._done[step]} of {self._total[step]} done, {seconds(time.monotonic() - self._began)} since the start"
            )

    def say(self, line: str) -> None:
        """One line above the bar, or in the log."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Shown:
        if sys.stderr is not None and sys.stderr.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
