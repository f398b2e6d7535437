"""A detector: a function of one attention layer, or of the model, that says how much each head is of a head type."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, ParamSpec, TypeVar, get_args

from torch import Tensor

from headatlas.errors import BadInput
from headatlas.registry import Hook, Hooked, demand_parameters, discover, lookup
from headatlas.renamed import current_detector, renamed_arguments, renamed_fields
from headatlas.task import Batch, Metric, Task

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView

# Planted kinds that match contents: what they attend to in prose is not theirs to choose, so it does not decide.
MATCHERS = (
    "induction", "fake-induction", "copy-suppression", "repeat-suppression", "retrieval", "successor", "mover", "inhibition",
    "duplicate",
)  # fmt: skip

Attention = Literal["causal", "bidirectional", "both", "cross"]
Score = Callable[["LayerView", Batch], Tensor]
Measure = Callable[["Model", Batch], "Measured"]
# Gives an object with `model`, `metric` and `metric_drop(heads) -> [example]`: headatlas.methods has the protocol Removal.
Removing = Callable[["Model", Batch, Metric | None], Any]


@dataclass(frozen=True)
class Planted:
    """What a perfect head would do on a batch; the contract suite feeds it to the detector and expects about 1.

    pattern: [example, query, key], rows summing to at most 1.
    copies: whether the head's OV circuit raises the attended token's logit; None where the detector does not ask.
    """

    pattern: Tensor
    copies: bool | None = None


@renamed_fields(acts_at="verdict_positions")
@dataclass(frozen=True)
class Detector(Hooked):
    """One measurement of heads: what all kinds of it have in common.

    name: what users type. head_type: id of the head type in the catalogue, which has the papers behind it.
    task: whose batches it scores, and whose metric gives the verdict. also: tasks of the same form (other lengths, other
    numbers of options) that it may be asked on instead, by name.
    version: raised when its numbers change. minimum_effect: how far the score must exceed chance, in units of the score,
    for a head to count as observed.
    attention: of which it makes sense: "causal" (decoders), "bidirectional" (encoders), "both", "cross" (decoder to encoder).
    needs: "unembedding" where token logits are asked of the view.
    verdict_positions: name of the positions (`batch.positions`) at which the verdict removes its heads; None: everywhere.
    finds: kinds of planted heads (headatlas.lab.kinds) that it must find, whatever they write if it scores attention
    alone; all other kinds must score at chance, but for those that are `undecided`. Empty: it is uncalibrated.
    doc: the docstring, which names formula and source. module: the file with its hooks (`removal`).
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = (Hook("removal", "model, batch, metric"),)

    name: str
    head_type: str
    task: Task
    also: tuple[Task, ...]
    version: int
    minimum_effect: float
    attention: Attention
    needs: tuple[str, ...]
    verdict_positions: str | None
    finds: tuple[str, ...]
    undecided: tuple[str, ...]
    doc: str
    module: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name} v{self.version} for {self.head_type} on {self.task.name})"

    def __post_init__(self) -> None:
        if self.attention not in get_args(Attention):
            told = f"The detector {self.name} has attention='{self.attention}'."
            raise BadInput(told, "Write causal, bidirectional, both or cross.")
        if unknown := set(self.needs) - {"unembedding"}:
            raise BadInput(f"The detector {self.name} needs '{min(unknown)}'.", "It may need: unembedding.")

    @property
    def causal(self) -> bool:
        """Whether it makes sense for models with causal attention."""
        return self.attention in ("causal", "both")

    @property
    def encoder(self) -> bool:
        """Whether it makes sense for models with bidirectional attention."""
        return self.attention in ("bidirectional", "both")

    @property
    def cross(self) -> bool:
        """Whether it makes sense for attention from a decoder to an encoder."""
        return self.attention == "cross"

    @property
    def removal(self) -> Removing | None:
        """The hook `removal(model, batch, metric)`, if its heads are not judged by ablation.

        It gives an object with `model` and `metric_drop(heads) -> [example]`: how much worse the task's metric is without
        these heads, such as their direct effect alone for heads that others stand in for.
        """
        found: Removing | None = self.hook("removal")
        return found

    @property
    def calibrated(self) -> bool:
        """Whether models with planted heads say how often it is right."""
        return bool(self.finds) or self.has_planting

    @property
    def has_planting(self) -> bool:
        """Whether a file of `headatlas.lab.plantings` under its name holds models made for it."""
        return find_spec(f"headatlas.lab.plantings.{self.name.replace('-', '_')}") is not None

    @property
    def about(self) -> dict[str, str]:
        """Its description for readers, from the docstring: what it is, formula and source, range, chance level.

        Where the docstring says so, also `examples`: how many it needs, and what it misses on fewer.
        """
        first, _, rest = self.doc.partition("\n\n")
        first, text = " ".join(first.split()), " ".join(rest.split())
        formula, _, chance = text.partition("Formula: ")[2].partition(" Chance: ")
        chance, _, examples = chance.partition(" Examples: ")
        return {"doc": first, "formula": formula, "range": first.partition(":")[2].strip(" ."), "chance": chance.partition(" Differs: ")[0],
                **({"examples": examples.partition(" Differs: ")[0]} if examples else {}),
                "calibration": "measured on planted models: headatlas calibrate" if self.calibrated else "uncalibrated: no planted model tests it"}  # fmt: skip


@dataclass(frozen=True, repr=False)
class LayerDetector(Detector):
    """A detector that scores one attention layer at a time; a single pass feeds all of one task.

    score(layer, batch) -> [example, head]; higher means more of the head type; NaN where undefined for an example.
    Hooks beside `removal`: `control`, `settle`, `told`, `works_at`, `planted`, `look_alike`.
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = (
        *Detector.HOOKS,
        Hook("control", "layer, batch"),
        Hook("settle", "found"),
        Hook("told", "found"),
        Hook("works_at", "batch, words"),
        Hook("planted", "batch", required=True),
        Hook("look_alike", "batch", required=True),
    )

    score: Score

    @property
    def control(self) -> Score | None:
        """The hook `control(layer, batch)`: the same score on the same pass where the structure does not hold.

        None: the task's control batch is scored instead.
        """
        found: Score | None = self.hook("control")
        return found

    @property
    def settle(self) -> Callable[[Tensor], Measured] | None:
        """The hook `settle(found)`, for scores that depend on a choice, such as the head's own best offset.

        `score` then gives [example, head, choice], and `settle` makes scores and chance levels of it once all examples are
        in: the choice is made on other examples than are scored, or the largest of many numbers would beat any chance.
        """
        found: Callable[[Tensor], Measured] | None = self.hook("settle")
        return found

    @property
    def told(self) -> Callable[[Tensor], list[str]] | None:
        """The hook `told(found)`: in words what each head does in which of the choices that `settle` chooses from, "" for nothing.

        found: [example, head, choice] as `settle` gets it. The words stand in the head's line.
        """
        found: Callable[[Tensor], list[str]] | None = self.hook("told")
        return found

    @property
    def works_at(self) -> Callable[[Batch, str], Tensor | None] | None:
        """The hook `works_at(batch, words)`: [example, pos] bool, the tokens that a head of which `words` were told should serve.

        words: of `told`. None where they name nothing that could be pointed at.
        """
        found: Callable[[Batch, str], Tensor | None] | None = self.hook("works_at")
        return found

    @property
    def needs_control_batch(self) -> bool:
        """Whether its chance level is its score on the task's control batch."""
        return self.control is None and self.settle is None

    @property
    def planted(self) -> Callable[[Batch], Planted]:
        """The hook `planted(batch)`: what a perfect head would do."""
        found: Callable[[Batch], Planted] = self.hook("planted")
        return found

    @property
    def look_alike(self) -> Callable[[Batch], Planted]:
        """The hook `look_alike(batch)`: a head of another type that must not count as one of this type."""
        found: Callable[[Batch], Planted] = self.hook("look_alike")
        return found


class Measured(NamedTuple):
    """Scores and chance levels, [example, head] each in the order of `model.heads`; NaN where undefined.

    An example may be anything that is drawn independently: a prompt, or a word whose weights are read.
    """

    values: Tensor
    control: Tensor


@dataclass(frozen=True, repr=False)
class ModelDetector(Detector):
    """A detector that needs the whole model: causal scores, weights, probes.

    measure(model, batch) -> Measured; higher means more of the head type. Hooks: `removal`, `alongside`. paired: whether a row
    is the same example for every model; False where what the model can do decides which examples are drawn.
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = (*Detector.HOOKS, Hook("alongside", "model, batch"))

    measure: Measure
    paired: bool = True

    @property
    def alongside(self) -> Callable[[Model, Batch], Any] | None:
        """The hook `alongside(model, batch)`: an `Alongside` (model.runs.shared_pass) that measures the same in others' passes."""
        found: Callable[[Model, Batch], Any] | None = self.hook("alongside")
        return found


P = ParamSpec("P")
R = TypeVar("R")


def _with_old_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Keywords of before, for one version: each with a DeprecationWarning that names today's."""

    @functools.wraps(function)
    def accepting(*args: P.args, **keywords: P.kwargs) -> R:
        if "causal" in keywords or "encoder" in keywords:
            fits = bool(keywords.pop("causal", True)), bool(keywords.pop("encoder", False))
            today = {(True, False): "causal", (False, True): "bidirectional", (True, True): "both"}.get(fits)
            if today is None:
                told = "A detector with causal=False and encoder=False suits no model."
                raise BadInput(told, "Write attention='both'.")
            told = f"Write attention='{today}' in place of causal and encoder."
            warnings.warn(told, DeprecationWarning, stacklevel=2)
            keywords["attention"] = today
        return function(*args, **keywords)

    return accepting


@renamed_arguments(acts_at="verdict_positions")
@_with_old_keywords
def detector(
    *,
    head_type: str,
    task: Task,
    also: tuple[Task, ...] = (),
    version: int,
    minimum_effect: float,
    attention: Attention = "causal",
    needs: tuple[str, ...] = (),
    verdict_positions: str | None = None,
    finds: tuple[str, ...] = (),
    undecided: tuple[str, ...] = (),
) -> Callable[[Score], LayerDetector]:
    """Make a LayerDetector of a function `(layer, batch) -> [example, head]`; its name is the function's with dashes.

    The arguments are the fields of Detector. Raises HeadAtlasError for a function that takes something else.
    """

    def wrap(score: Score) -> LayerDetector:
        name, doc, module = _described(score, "layer, batch")
        return LayerDetector(
            name, head_type, task, also, version, minimum_effect, attention, needs, verdict_positions, finds, undecided, doc,
            module, score,
        )  # fmt: skip

    return wrap


@renamed_arguments(acts_at="verdict_positions")
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
    paired: bool = True,
) -> Callable[[Measure], ModelDetector]:
    """Make a ModelDetector of a function `(model, batch) -> Measured`, for models with causal attention.

    Its name is the function's with dashes, the arguments are the fields of ModelDetector. Raises HeadAtlasError for a
    function that takes something else.
    """

    def wrap(measure: Measure) -> ModelDetector:
        name, doc, module = _described(measure, "model, batch")
        return ModelDetector(
            name, head_type, task, also, version, minimum_effect, "causal", needs, verdict_positions, finds, undecided, doc,
            module, measure, paired,
        )  # fmt: skip

    return wrap


def _described(function: Callable[..., Any], parameters: str) -> tuple[str, str, str]:
    """(name, docstring, module) of a detector's function."""
    demand_parameters(function, parameters, f"{function.__module__}: the detector '{function.__name__}'")
    name = function.__name__.strip("_").replace("_", "-")
    return name, (function.__doc__ or "").strip(), function.__module__


def detectors() -> Mapping[str, Detector]:
    """Every detector of the package and of its plugins, by name."""
    return discover("headatlas.detectors", Detector)


def find_detector(name: str) -> Detector:
    """The detector called `name`; raises UnknownName."""
    return lookup(detectors(), current_detector(name), "detector", "See: headatlas list detectors")
