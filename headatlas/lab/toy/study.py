"""What a toy is made of: trainings of small models, what is measured in them, and claims with bounds set before the first run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headatlas.lab.construct.transformer import save
from headatlas.lab.training.interventions import Intervention
from headatlas.lab.training.loop import Measure, Objective, Training, train
from headatlas.lab.training.options import TrainOptions
from headatlas.progress import Progress

Runs = Mapping[str, Training]
HELD_OUT = 777  # added to a seed for examples that no training sees


@dataclass(frozen=True)
class Variant:
    """One training of a study. make(seed) -> model; measure(seed) -> what is measured, on held-out examples of that seed."""

    name: str
    make: Callable[[int], Any]
    objective: Objective
    options: TrainOptions
    measure: Callable[[int], Measure]
    interventions: tuple[Intervention, ...] = ()
    save: Callable[[Any, Path], object] = save

    def train(
        self, seed: int, *, steps: int | None = None, folder: Path | None = None, progress: Progress | None = None
    ) -> Training:
        """Train it from `seed`; steps: another number of them. folder: where state and checkpoints are kept (see `train`)."""
        options = self.options if steps is None else replace(self.options, steps=steps)
        return train(
            self.make(seed), self.objective, options, seed=seed, measure=self.measure(seed),
            interventions=self.interventions, folder=folder, save=self.save, name=self.name, progress=progress,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a claim in a run. value: NaN or infinite where the run gives none, which is never within a bound."""

    says: str
    bound: str
    value: float
    passed: bool

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.says}: {self.value:.3g} ({self.bound})"


@dataclass(frozen=True)
class Claim:
    """A paper's qualitative claim as a number of the runs, and the bounds that it must keep.

    Bounds are set when a study is written, from what the paper says, and not moved to what a run gave.
    """

    says: str
    value: Callable[[Runs], float]
    least: float = -math.inf
    most: float = math.inf

    @property
    def bound(self) -> str:
        """The bounds in words."""
        told = [f"at least {self.least:g}"] if self.least > -math.inf else []
        return ", ".join(told + ([f"at most {self.most:g}"] if self.most < math.inf else []))

    def judged(self, runs: Runs) -> Outcome:
        """The claim on finished runs."""
        value = float(self.value(runs))
        return Outcome(self.says, self.bound, value, math.isfinite(value) and self.least <= value <= self.most)


@dataclass(frozen=True)
class Panel:
    """One part of the figure. lines: label -> (name of the variant, measured number). levels: dashed lines by label."""

    title: str
    lines: Mapping[str, tuple[str, str]]
    levels: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Study:
    """A paper's toy. paper: its id in the catalogue. variants: the first is the toy itself, whose checkpoints are kept.

    ablated: the measured number that tells what switching a head off costs; "" where the model has no heads to switch
    off. version: raised when the recipe or what is measured changes.
    """

    name: str
    about: str
    paper: str
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    panels: tuple[Panel, ...]
    ablated: str = ""
    version: int = 1


def order(*steps: float) -> float:
    """How many of these steps come no later than the next one does, as a share of all pairs of neighbours: 1 in order."""
    pairs = list(itertools.pairwise(steps))
    return sum(first <= second < math.inf for first, second in pairs) / len(pairs)


def held_out(seed: int) -> torch.Generator:
    """Where the chance of held-out examples comes from."""
    return torch.Generator().manual_seed(HELD_OUT + seed)
