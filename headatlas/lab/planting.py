"""Plantings: for one detector each, small models in which it is known what must be found, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.registry import discover, lookup


@dataclass(frozen=True)
class Sown:
    """A model of a planting. model: with its tokenizer, on weights that `headatlas.lab.measure.without` can switch heads off in.

    positives: heads that the detector must find. look_alikes: heads that share some of the behaviour and must not be found.
    undecided: heads that do part of what is asked for. All other heads must not be found either. gone: heads that are switched
    off before it is asked whether another matters, for heads that stand in for them.
    """

    model: Model
    positives: frozenset[HeadId]
    look_alikes: frozenset[HeadId] = frozenset()
    undecided: frozenset[HeadId] = frozenset()
    gone: frozenset[HeadId] = frozenset()

    def label(self, head: HeadId) -> bool | None:
        """Whether the detector should find this head: True, False, or None where it does not decide."""
        return None if head in self.undecided else head in self.positives


@dataclass(frozen=True)
class Planting:
    """Models with heads of one detector's type, written or trained, another one for each seed.

    detector: its name. examples: how many of the detector's task it is scored on. make(seed) -> Sown. doc: what the positives do, and what the look-alikes do instead. module: its file.
    """

    name: str
    detector: str
    examples: int
    make: Callable[[int], Sown]
    doc: str
    module: str


def planting(detector: str, *, examples: int = 16) -> Callable[[Callable[[int], Sown]], Planting]:
    """Make a Planting for the detector of this name of a function `seed -> Sown`; its name is the function's with dashes.

    The file of a detector's (first) planting is called like the detector's: that is how a detector knows that it has one.
    """

    def wrap(make: Callable[[int], Sown]) -> Planting:
        name = make.__name__.strip("_").replace("_", "-")
        return Planting(name, detector, examples, make, (make.__doc__ or "").strip(), make.__module__)

    return wrap


def plantings() -> Mapping[str, Planting]:
    """Every planting, by name."""
    return discover("headatlas.lab.plantings", Planting)


def find_planting(name: str) -> Planting:
    """The planting called `name`; raises UnknownName."""
    return lookup(plantings(), name, "planting", f"Known: {', '.join(plantings())}.")
