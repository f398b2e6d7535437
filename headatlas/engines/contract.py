"""What a unit of work and an engine are, and the engine that works in this program."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from threadpoolctl import threadpool_limits

from headatlas.model import Model
from headatlas.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True)
class Unit(Generic[T]):
    """A piece of work on one model that hangs on no other piece: a task's scan, a task's verdicts, some layers of a sweep.

    name: tells it from the others of its kind. work(model, progress): what is done; it can be packed (`shipping.packed`) and gives
    the same numbers in every process. cost: how long it takes beside the others, in any unit: long ones begin first.
    """

    name: str
    work: Callable[[Model, Progress], T]
    cost: float = 0.0


class Engine(Protocol):
    """Computes units. workers: how many at once."""

    workers: int

    def demand(self, model: Model) -> None:
        """Raise BadInput for a model whose work cannot be computed here; asked before anything is begun."""
        ...

    def map(self, model: Model, units: deque[Unit[T]], progress: Progress) -> Iterator[tuple[Unit[T], T]]:
        """Each unit with its result, as they come; what the work raises is raised. Units are taken out of `units`, and whoever
        takes a result may add some that hang on it.
        """
        ...

    def together(self, jobs: Sequence[Callable[[], None]], at_once: int | None = None) -> None:
        """Do jobs that each `map` units, at most so many at a time; None: as many as keep the workers busy."""
        ...


class Local:
    """Computes units one after the other in this program; nothing is packed, started or copied."""

    workers = 1

    def demand(self, model: Model) -> None:
        """Any model will do."""

    def map(self, model: Model, units: deque[Unit[T]], progress: Progress) -> Iterator[tuple[Unit[T], T]]:
        """Each unit with its result, in the order given."""
        while units:
            unit = units.popleft()
            yield unit, unit.work(model, progress)

    def together(self, jobs: Sequence[Callable[[], None]], at_once: int | None = None) -> None:
        """One after the other."""
        for job in jobs:
            job()


@contextlib.contextmanager
def threads_of(n: int) -> Iterator[None]:
    """While this is entered, this thread's work has `n` threads, in torch and in NumPy's libraries."""
    before = torch.get_num_threads()
    with threadpool_limits(n):
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(before)
