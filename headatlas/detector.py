"""A detector: a pure function of one attention layer that says how much each head behaves like a head type."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headatlas.registry import discover, lookup
from headatlas.task import Batch, Task

if TYPE_CHECKING:
    from headatlas.model.view import LayerView

# Planted kinds that match contents: what they attend to in prose is not theirs to choose, so it does not decide.
MATCHERS = (
    "induction",
    "fake-induction",
    "copy-suppression",
    "repeat-suppression",
    "retrieval",
    "successor",
    "mover",
    "inhibition",
    "duplicate",
)

Score = Callable[["LayerView", Batch], Tensor]


@dataclass(frozen=True)
class Planted:
    """What a perfect head would do on a batch; the contract suite feeds it to the detector and expects about 1.

    pattern: [example, query, key], rows summing to at most 1.
    copies: whether the head's OV circuit raises the attended token's logit; None where the detector does not ask.
    """

    pattern: Tensor
    copies: bool | None = None


@dataclass(frozen=True)
class Detector:
    """One measurement of heads.

    score(at, batch) -> [example, head]; higher means more of the head type; NaN where undefined for an example.
    control: the same on the same pass where the structure does not hold; None: the task's control batch is scored instead.
    minimum_effect: how far score must exceed chance for a head to count as observed.
    causal, encoder: whether it makes sense for models that read one way, or both ways.
    needs: "unembedding" where token logits are asked of the view.
    finds: kinds of planted heads (headatlas.lab.kinds) that it must find, whatever they write if it looks at attention
    alone; all other kinds must be left alone, but for those that are `undecided`. Empty: it is uncalibrated.
    The papers behind it are those of its head type in the catalogue; the docstring names formula and source.
    """

    name: str
    head_type: str
    task: Task
    version: int
    minimum_effect: float
    score: Score
    causal: bool
    encoder: bool
    needs: tuple[str, ...]
    finds: tuple[str, ...]
    undecided: tuple[str, ...]
    doc: str
    module: str

    @property
    def control(self) -> Score | None:
        """The function `control` of the detector's file, if it has one."""
        return getattr(importlib.import_module(self.module), "control", None)

    @property
    def planted(self) -> Callable[[Batch], Planted]:
        """The function `planted` of the detector's file: (batch) -> Planted."""
        planted: Any = importlib.import_module(self.module).planted
        return planted

    @property
    def calibrated(self) -> bool:
        """Whether models with planted heads say how often it is right."""
        return bool(self.finds)

    @property
    def about(self) -> dict[str, str]:
        """Its description for readers, from the docstring: what it is, formula and source, range, chance level."""
        first, _, rest = self.doc.partition("\n\n")
        first, text = " ".join(first.split()), " ".join(rest.split())
        formula, _, chance = text.partition("Formula: ")[2].partition(" Chance: ")
        return {"doc": first, "formula": formula, "range": first.partition(":")[2].strip(" ."), "chance": chance,
                "calibration": "measured on planted models: headatlas calibrate" if self.calibrated else "uncalibrated: no planted model tests it"}  # fmt: skip


def detector(
    *,
    head_type: str,
    task: Task,
    version: int,
    minimum_effect: float,
    causal: bool = True,
    encoder: bool = False,
    needs: tuple[str, ...] = (),
    finds: tuple[str, ...] = (),
    undecided: tuple[str, ...] = (),
) -> Callable[[Score], Detector]:
    """Make a Detector of a function `(at, batch) -> [example, head]`; its name is the function's with dashes."""

    def wrap(score: Score) -> Detector:
        name = score.__name__.strip("_").replace("_", "-")
        doc, module = (score.__doc__ or "").strip(), score.__module__
        return Detector(
            name, head_type, task, version, minimum_effect, score, causal, encoder, needs, finds, undecided, doc, module
        )

    return wrap


def detectors() -> Mapping[str, Detector]:
    """Every detector of the package and of its plugins, by name."""
    return discover("headatlas.detectors", Detector)


def find_detector(name: str) -> Detector:
    """The detector called `name`; raises UnknownName."""
    return lookup(detectors(), name, "detector", "See: headatlas list detectors")
