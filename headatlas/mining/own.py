"""Detectors and tasks of a user's own in `mine`: as objects, from a loose file, and prompts as a task; checked before they run."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from headatlas import catalogue
from headatlas.catalogue.own import own_data
from headatlas.detector import Detector, LayerDetector, Planted, find_detector
from headatlas.errors import BadInput, HeadAtlasError, UnfitTask
from headatlas.methods.prompts import Prompts, own_prompts
from headatlas.model import Model
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.model.text.reading import as_batch
from headatlas.own_prompts.control import disordered
from headatlas.own_prompts.sources import OWN, demand_enough
from headatlas.registry import demand_hooks, plugins_of_file
from headatlas.store import write_text, writing
from headatlas.task import Batch, Metric, Task, Vocabulary, find_task, fitting, logit_difference, next_token_loss
from headatlas.task.answers import (
    demand_measurable,
    find_metric,
    first_alternatives,
    kl,
    log_probability,
    over_alternatives,
)

T = TypeVar("T", Detector, Task)
OwnTasks = Sequence[str | Path | Task | Batch | Prompts] | Task | Batch | Prompts
FOLDER = "own"  # of a run, with the source of what its user defined
_TRIED = 6  # examples on which a detector is tried


def chosen(given: Sequence[str | Path | T], kind: type[T], find: Callable[[str], T]) -> list[T]:
    """Plugins by name, as objects, or all those of a file. Raises UnknownName, HeadAtlasError for a file or an object that breaks the contract."""
    found: list[T] = []
    for one in given:
        if isinstance(one, kind):
            found.append(one)
        elif isinstance(one, Path) or (isinstance(one, str) and one.endswith(".py")):
            found += plugins_of_file(Path(one), kind)
        elif isinstance(one, str):
            found.append(find(one))
        else:
            raise BadInput(
                f"{type(one).__name__} is no {kind.__name__.lower()}.", "Give its name, the object, or a .py file."
            )
    demand_hooks(found)
    return found


def chosen_detectors(given: Sequence[str | Path | Detector]) -> list[Detector]:
    """Detectors by name, as objects or from files; each name once. Raises UnknownName, HeadAtlasError."""
    found = chosen(given, Detector, find_detector)
    for detector in found:
        catalogue.head_type(detector.head_type)
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"Two detectors are called '{twice}'.", "Give each a name of its own.")
    return found


def chosen_tasks(given: OwnTasks, model: Model) -> list[Task]:
    """Tasks by name, as objects, from files, or prompts as a task. Raises UnknownName, BadInput."""
    found: list[Task] = []
    several = [given] if isinstance(given, Task | Batch | Prompts | str | Path) else given
    for number, one in enumerate(several, 1):
        name = f"{OWN}-{number}"
        if isinstance(one, Prompts):
            if one.task is not None:
                raise BadInput("Prompts of a built-in task are no task of your own.", f"Give its name: '{one.task}'.")
            batch = own_prompts(model, one)
            found.append(task_of(as_batch(one.batch, model.tokenizer) if batch is None else batch, name, one.metric))
        elif isinstance(one, Batch):
            found.append(task_of(one, name))
        else:
            found += chosen([one], Task, find_task)
    return found


# ---- prompts as a task ---------------------------------------------------------------------------------------------------
def task_of(batch: Batch, name: str = OWN, metric: Metric | str | None = None) -> Task:
    """Prompts as a task: one half finds heads, the other half tests them.

    The model does it where it prefers the answers beyond doubt (or predicts better than in the control). Its control has each prompt's own tokens in another order. metric: default the logit difference where there are wrong
    answers, the answer's log-probability where there are right ones alone, the loss where batches have positions["predict"]
    alone, and without answers the KL divergence from the clean run, whose floor is that of the prompt in another order.
    Raises BadInput for fewer than 8 prompts, and for a metric that they have nothing for.
    """
    demand_enough(len(first_alternatives(batch)))
    metric = _metric(batch) if metric is None else find_metric(metric)
    demand_measurable(metric, batch)
    metric, batch = over_alternatives(metric, batch)
    if metric.settle is not None:
        raise BadInput(
            f"{metric.name} is settled from several answers, and mining measures prompts one by one.",
            "Give answers of one token each, or one answer to a prompt, or measure kl.",
        )
    order = np.random.default_rng(0).permutation(len(batch))

    def of(half: int) -> Callable[[Vocabulary, int, np.random.Generator], Batch]:
        def build(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
            rows = sorted(order[half::2][:n].tolist())
            if len(rows) < n:
                raise UnfitTask(f"There are {len(rows)} prompts in each half, {n} are asked for.")
            some = batch.rows(rows)
            return some if some.control is not None else replace(some, control=disordered(some, tokenizer))

        return build

    version = int(hashlib.sha256(_bytes(batch) + metric.name.encode()).hexdigest()[:8], 16)
    floor = "even" if metric.compares else "control"
    doc = "Prompts of one's own."
    paired = batch.encoder is not None
    twin = Task(f"{name}-held-out", of(1), metric, version, 0.0, floor, doc, __name__, given=True, paired=paired)
    return Task(name, of(0), metric, version, 0.0, floor, doc, __name__, twin=twin, given=True, paired=paired)


def _metric(batch: Batch) -> Metric:
    if "answer" in batch.labels and "end" in batch.positions:
        return logit_difference if "wrong" in batch.labels else log_probability
    return next_token_loss if "predict" in batch.positions else kl


def _bytes(batch: Batch) -> bytes:
    named = (batch.labels, batch.positions, batch.marks)
    parts = [batch.tokens, batch.mask, *(v for values in named for _, v in sorted(values.items()))]
    others = [other for other in (batch.control, batch.counterfactual, batch.encoder) if other is not None]
    return b"".join([*(part.cpu().numpy().tobytes() for part in parts), *map(_bytes, others)])


# ---- the contract ----------------------------------------------------------------------------------------------------------
def demand_contract(detector: Detector, model: Model) -> None:
    """Raise HeadAtlasError unless a detector of layers finds its planted head, and not its look-alike nor even attention.

    Tried on a few prompts of its task that this model's tokenizer makes, with imagined layers.
    """
    if not isinstance(detector, LayerDetector) or detector.task.given:
        return
    try:
        batch = fitting(detector.task, model.tokenizer, _TRIED, 3)
    except UnfitTask:
        return  # it will be skipped, with the reason
    n, length = batch.tokens.shape
    keys = _keys(detector, batch).shape[1]
    seen = torch.ones(length, keys).tril() if detector.causal else torch.ones(length, keys)
    even = Planted((seen / seen.sum(-1, keepdim=True)).expand(n, length, keys))
    name, limit = detector.name, detector.minimum_effect
    found = _beyond_chance(detector, batch, detector.planted(batch))
    if not found >= limit:
        raise HeadAtlasError(
            f"The detector {name} scores its own planted head {found:.2f} beyond chance, less than its minimum effect {limit}.",
            "Repair `score`, `control` or `planted`.",
        )
    for what, planted in (("its look-alike", detector.look_alike(batch)), ("a head that attends evenly", even)):
        other = _beyond_chance(detector, batch, planted)
        if other >= limit:
            raise HeadAtlasError(
                f"The detector {name} takes {what} for its head type: {other:.2f} beyond chance, minimum effect {limit}.",
                "Make the score ask for more, or compare it with a better control.",
            )


def _beyond_chance(detector: LayerDetector, batch: Batch, planted: Planted) -> float:
    """Mean score minus mean chance level of one imagined head."""

    def layer(of: Batch) -> SyntheticLayer:
        return _imagined(detector, of, planted.pattern, copies=planted.copies is not False)

    score = detector.score(layer(batch), batch)
    if score.shape[:2] != (len(batch), 1):
        raise HeadAtlasError(f"The detector {detector.name} gives {tuple(score.shape)}, expected [example, head].")
    if detector.settle is not None:
        settled = detector.settle(score)
        return float(settled.values.nanmean() - settled.control.nanmean())
    if detector.control is not None:
        chance = detector.control(layer(batch), batch)
    elif batch.control is not None:
        chance = detector.score(layer(batch.control), batch.control)
    else:
        raise HeadAtlasError(
            f"The detector {detector.name} has no chance level: no `control`, and its task has no control batch."
        )
    return float(score.nanmean() - chance.nanmean())


def _keys(detector: Detector, batch: Batch) -> Tensor:
    """[example, key] which keys are real in the attention that the detector is asked of."""
    return batch.encoder.mask if detector.cross and batch.encoder is not None else batch.mask


def _imagined(detector: Detector, of: Batch, pattern: Tensor, *, copies: bool) -> SyntheticLayer:
    """A layer of one head with this pattern [example, query, key]."""
    return SyntheticLayer(
        pattern[:, None], valid=of.mask, causal=detector.causal, tokens=of.tokens, copies=torch.tensor([copies]),
        sources=_keys(detector, of) if detector.cross else None,
    )  # fmt: skip


def lacking(detector: Detector, batch: Batch) -> str:
    """What a detector of layers asks of prompts that they do not have; "" where it can be asked on them."""
    if detector.verdict_positions is not None and detector.verdict_positions not in batch.positions:
        return f"needs positions['{detector.verdict_positions}'], which these prompts lack"
    if not isinstance(detector, LayerDetector):
        return ""
    if detector.cross and batch.encoder is None:
        return "needs what an encoder reads beside what its decoder reads, which these prompts lack"
    one = batch.rows(slice(0, 1))
    pattern = torch.eye(one.tokens.shape[1], _keys(detector, one).shape[1])[None]
    layer = _imagined(detector, one, pattern, copies=True)
    try:
        detector.score(layer, one)
    except KeyError as error:
        return f"needs a span or label named {error.args[0]!r}, which these prompts lack"
    return ""


# ---- what a run keeps of it --------------------------------------------------------------------------------------------------
def sources_of(detectors: Sequence[Detector], tasks: Sequence[Task]) -> dict[str, str]:
    """File name -> source text of what does not come with headatlas or a package. What has no source says so."""
    found = {}
    given: list[Detector | Task] = [*detectors, *tasks]
    for one in given:
        function = getattr(one, "score", None) or getattr(one, "measure", None) or getattr(one, "build", None)
        module = str(one.module)
        if module.partition(".")[0] == "headatlas":
            continue
        try:
            source = inspect.getsource(inspect.getmodule(function) if module != "__main__" else function)  # type: ignore[arg-type]
        except (OSError, TypeError):
            source = f"# The source of {one.name} was not to be had: it was defined where none is kept.\n"
        found[f"{one.name}.py"] = source
    return found


def keep(folder: Path, sources: Mapping[str, str], head_types: Sequence[str]) -> None:
    """Write the sources and the head types of one's own into a run's folder, where there are any. Raises StoreError."""
    kinds = own_data(list(head_types))
    if sources or kinds:
        with writing(folder / FOLDER):
            (folder / FOLDER).mkdir(exist_ok=True)
    for name, text in sources.items():
        write_text(folder / FOLDER / name, text)
    if kinds:
        write_text(folder / FOLDER / "head_types.json", json.dumps(kinds, indent=1, ensure_ascii=False))


def identity(sources: Mapping[str, str]) -> dict[str, Any]:
    """What of it decides the numbers of a run: the hash of each source."""
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in sorted(sources.items())}
