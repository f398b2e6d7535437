"""Who is told how far long work has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """Who is told how far the work has come."""

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
