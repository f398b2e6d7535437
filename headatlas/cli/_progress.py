"""How far a run has come: a bar with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
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

EVERY = 30.0  # seconds after which a log that was told nothing new is told how far the work is


class Shown:
    """Progress of a run on standard error; use as a context manager.

    A log gets a line when a step is done, and otherwise one every `every` seconds, from a thread of its own: a detector of
    the whole model may work for minutes between two reports.
    """

    def __init__(self, every: float = EVERY) -> None:
        self._console = console(stderr=True)
        self._bar: Progress | None = None
        self._ids: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._since: dict[str, float] = {}  # when the work on a step began: at the report before its first
        self._began = self._told = self._latest = time.monotonic()
        self._every, self._over = every, threading.Event()

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Announce the steps and their sizes."""
        self._latest = time.monotonic()
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
        self._since.setdefault(step, self._latest)
        self._latest = time.monotonic()
        self._done[step] += amount
        if self._bar is not None:
            self._bar.advance(self._ids[step], amount)  # type: ignore[arg-type]
        elif self._done[step] >= self._total[step]:
            self.say(
                f"{step}: {self._done[step]} of {self._total[step]} done, {seconds(time.monotonic() - self._began)} since the start"
            )

    def say(self, line: str) -> None:
        """One line above the bar, or in the log."""
        self._told = time.monotonic()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _watch(self) -> None:
        """Tell a log how far the work is whenever it was told nothing for a while; until the work is over."""
        while not self._over.wait(max(0.05, self._told + self._every - time.monotonic())):
            if time.monotonic() - self._told >= self._every:
                self.say(self._state())

    def _state(self) -> str:
        """Steps and the step under way, done of how many, with the time that is left for it at the pace so far."""
        now = time.monotonic()
        since = f"{seconds(now - self._began)} since the start"
        if not self._total:
            return f"at work, {since}"
        open_steps = [step for step, size in self._total.items() if self._done[step] < size]
        finished = f"step {len(self._total) - len(open_steps)} of {len(self._total)} done"
        begun = [step for step in open_steps if self._done[step]]
        if not begun:
            return f"{finished}; next: {open_steps[0]}, {since}" if open_steps else f"{finished}, {since}"
        step = begun[-1]
        done, size = self._done[step], self._total[step]
        left = (now - self._since[step]) / done * (size - done)
        return f"{step}: {done} of {size}, about {seconds(left)} left for it ({finished}, {since})"

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
        else:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
