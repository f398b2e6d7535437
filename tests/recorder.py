"""A Progress that tests can look into."""

from __future__ import annotations

from collections.abc import Callable

from headatlas.progress import Silent


class Recorder(Silent):
    """Keeps what it is told: lines, and the amounts and sizes of steps. `then` is called with what is done after each step."""

    def __init__(self, then: Callable[[int], None] = lambda done: None) -> None:
        self.lines: list[str] = []
        self.amounts: list[int] = []
        self.sizes: list[int | None] = []
        self.steps: list[str] = []
        self.then = then

    @property
    def done(self) -> int:
        """How much was done in all."""
        return sum(self.amounts)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Keep a step."""
        self.steps.append(step)
        self.amounts.append(amount)
        self.sizes.append(of)
        self.then(self.done)

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)
