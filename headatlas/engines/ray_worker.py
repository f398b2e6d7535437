"""One process of Ray's that computes units, one after the other, on a model that it loads once."""

from __future__ import annotations

import gc
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headatlas.engines.allocator import freed_memory_kept
from headatlas.engines.contract import threads_of
from headatlas.engines.shipping import Opening, unpacked
from headatlas.model import Model, load

BEGUN = ()  # the first event of a unit: what it told before, on a worker that died, it tells again


@dataclass(frozen=True)
class Outcome:
    """What came of a unit: its result, or what it raised; and what it told last."""

    result: Any = None
    error: Exception | None = None
    events: Sequence[tuple[Any, ...]] = ()


class Told:
    """A Progress that notes what it is told until somebody asks for it."""

    def __init__(self) -> None:
        self.events: deque[tuple[Any, ...]] = deque()

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Do nothing: whoever gave out the work announced its steps."""

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Note it."""
        self.events.append((step, amount, of))

    def say(self, line: str) -> None:
        """Note it."""
        self.events.append((line,))


class Worker:
    """An actor: `run` computes, and `events`, in another thread, tells how far it has come."""

    def __init__(self, threads: int) -> None:
        self.threads, self.told = threads, Told()
        self.opening: Opening | None = None
        self.model: Model | None = None

    def run(self, opening: Opening, parcel: bytes) -> Outcome:
        """Compute a unit on the model that `opening` names, which is loaded unless the unit before was on it too."""
        self.told.events.clear()
        self.told.events.append(BEGUN)
        try:
            # In each call, as OpenMP keeps the number for each thread apart; Ray has set another one for the process.
            with threads_of(self.threads), freed_memory_kept():
                model = self._opened(opening)
                return Outcome(unpacked(parcel, model)(model, self.told), events=self.events())
        except Exception as error:
            error.add_note(f"In a worker: {traceback.format_exc()}")
            return Outcome(error=error, events=self.events())

    def _opened(self, opening: Opening) -> Model:
        if self.model is None or self.opening != opening:
            self.model = self.opening = None
            gc.collect()  # the weights of before go first
            model = load(**opening.arguments)
            opening.demand(model)
            self.model, self.opening = model, opening
        return self.model

    def events(self) -> list[tuple[Any, ...]]:
        """What was told since this was asked last."""
        return [self.told.events.popleft() for _ in range(len(self.told.events))]
