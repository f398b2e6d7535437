"""A detector: a function of one attention layer, or of the model, that says how much each head is of a head type."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from headatlas.registry import discover, lookup
from headatlas.task import Batch, Task

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView

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
Measure = Callable[["Model", Batch], "Measured"]


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
    """One measurement of heads: what all kinds of it have in common.

    also: tasks of the same form (other lengths, other numbers of options) that it may be asked on instead, by name.
    minimum_effect: how far score must exceed chance for a head to count as observed.
    causal, encoder: whether it makes sense for models that read one way, or both ways.
    needs: "unembedding" where token logits are asked of the view.
    verdict_positions: name of the positions (`batch.positions`) at which the verdict removes its heads; None: everywhere.
    finds: kinds of planted heads (headatlas.lab.kinds) that it must find, whatever they write if it looks at attention
    alone; all other kinds must be left alone, but for those that are `undecided`. Empty: it is uncalibrated.
    The papers behind it are those of its head type in the catalogue; the docstring names formula and source.
    """

    name: str
    head_type: str
    task: Task
    also: tuple[Task, ...]
    version: int
    minimum_effect: float
    causal: bool
    encoder: bool
    needs: tuple[str, ...]
    verdict_positions: str | None
    finds: tuple[str, ...]
    undecided: tuple[str, ...]
    doc: str
    module: str

    @property
    def removal(self) -> Callable[..., Any] | None:
        """The function `removal(model, batch, metric)` of the detector's file, if its heads are not judged by ablation.

        It gives an object with `model` and `metric_drop(heads) -> [example]`: how much worse the task's metric is without
        these heads, such as their direct effect alone for heads that others stand in for.
        """
        return getattr(importlib.import_module(self.module), "removal", None)

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


@dataclass(frozen=True)
class LayerDetector(Detector):
    """A detector that looks at one attention layer at a time; a single pass feeds all of one task.

    score(at, batch) -> [example, head]; higher means more of the head type; NaN where undefined for an example.
    """

    score: Score

    @property
    def control(self) -> Score | None:
        """The function `control` of the detector's file: the same score on the same pass where the structure does not hold.

        None: the task's control batch is scored instead.
        """
        return getattr(importlib.import_module(self.module), "control", None)

    @property
    def planted(self) -> Callable[[Batch], Planted]:
        """The function `planted` of the detector's file: (batch) -> Planted."""
        planted: Any = importlib.import_module(self.module).planted
        return planted


class Measured(NamedTuple):
    """Scores and chance levels, [example, head] each in the order of `model.heads`; NaN where undefined.

    An example may be anything that is drawn independently: a prompt, or a word whose weights are read.
    """

    values: Tensor
    control: Tensor


@dataclass(frozen=True)
class ModelDetector(Detector):
    """A detector that needs the whole model: causal scores, weights, probes.

    measure(model, batch) -> Measured; higher means more of the head type.
    """

    measure: Measure


def detector(
    *,
    head_type: str,
    task: Task,
    also: tuple[Task, ...] = (),
    version: int,
    minimum_effect: float,
    causal: bool = True,
    encoder: bool = False,
    needs: tuple[str, ...] = (),
    verdict_positions: str | None = None,
    finds: tuple[str, ...] = (),
    undecided: tuple[str, ...] = (),
) -> Callable[[Score], LayerDetector]:
    """Make a LayerDetector of a function `(at, batch) -> [example, head]`; its name is the function's with dashes."""

    def wrap(score: Score) -> LayerDetector:
        return LayerDetector(
            _name(score), head_type, task, also, version, minimum_effect, causal, encoder, needs, verdict_positions, finds,
            undecided, (score.__doc__ or "").strip(), score.__module__, score,
        )  # fmt: skip

    return wrap


def model_detector(
    *,
    head_type: str,
    task: Task,
    also: tuple[Task, ...] = (),
    version: int,
    minimum_effect: float,
    needs: tuple[str, ...] = (),
    verdict_positions: str | None = None,
    finds: tuple[str, ...] = (),
    undecided: tuple[str, ...] = (),
) -> Callable[[Measure], ModelDetector]:
    """Make a ModelDetector of a function `(model, batch) -> Measured`, for decoders; its name is the function's with dashes."""

    def wrap(measure: Measure) -> ModelDetector:
        return ModelDetector(
            _name(measure), head_type, task, also, version, minimum_effect, True, False, needs, verdict_positions, finds,
            undecided, (measure.__doc__ or "").strip(), measure.__module__, measure,
        )  # fmt: skip

    return wrap


def _name(function: Callable[..., Any]) -> str:
    return function.__name__.strip("_").replace("_", "-")


def detectors() -> Mapping[str, Detector]:
    """Every detector of the package and of its plugins, by name."""
    return discover("headatlas.detectors", Detector)


def find_detector(name: str) -> Detector:
    """The detector called `name`; raises UnknownName."""
    return lookup(detectors(), name, "detector", "See: headatlas list detectors")
