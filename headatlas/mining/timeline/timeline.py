"""`headatlas.timeline`: any detectors over the checkpoints of a training, on shared batches; what is done is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headatlas.atlas import Atlas
from headatlas.detector import Detector, LayerDetector
from headatlas.detector import detectors as installed
from headatlas.engines.allocator import freed_memory_kept
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import metric_on
from headatlas.methods.sweeps.checkpoint import digest
from headatlas.mining.comparison.runs import FinishedRun, demand_comparable
from headatlas.mining.own import OwnTasks
from headatlas.mining.planning import Plan, plan
from headatlas.mining.timeline.lives import Series
from headatlas.mining.timeline.matching import aligned
from headatlas.mining.timeline.measure import Measured, kept, measured, missing
from headatlas.mining.timeline.page import write_timeline
from headatlas.mining.timeline.result import MetricSeries, Timeline
from headatlas.mining.timeline.sources import Reference, checkpoints_of
from headatlas.model import Model
from headatlas.model.checkpoints import Checkpoints
from headatlas.progress import Progress, Silent
from headatlas.render import plots
from headatlas.store import differing, read_json, write_json, writing
from headatlas.version import __version__

Source = str | os.PathLike[str]


def timeline(
    source: Source | Sequence[Source],
    detectors: Sequence[str | Path | Detector] | None = None,
    *,
    tasks: OwnTasks | None = None,
    n: int = 32,
    seed: int = 0,
    out: Source | None = None,
    dtype: str = "auto",
    device: str | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
) -> Timeline:
    """When did each head come to be what it is? Detectors over checkpoints of one training, in the order of their steps.

    source: a folder of checkpoints (a toy's, a Trainer's), "org/name@step1000,step2000" for revisions on the Hub or folders
    laid out like them, several models, or finished runs that were mined alike. detectors: as `mine` takes them; default all
    that look at layers; those of the whole model are asked where they are named, and take far longer. tasks, n, seed: as in
    `mine`; every checkpoint reads the same texts. The first checkpoint is opened and checked; of the others only the weights
    are read, into the same model. out: a folder that keeps what was measured, by the hash of the weights: the same call with
    more checkpoints or detectors computes only those. It gets timeline.parquet, timeline.json, timeline.svg and
    timeline.html. Heads are matched by their weights where a layer's heads changed places. Raises BadInput, UnknownName,
    StoreError, and as `load` does.
    """
    if n < 4:
        raise BadInput(f"{n} examples are too few for a p-value.", "Use --n 4 or more; 32 is the default.")
    progress = progress or Silent()
    references = checkpoints_of(source)
    folder = None if out is None else Path(out)
    if folder is not None:
        plots.require()
    if references[0].run:
        found = _of_runs(references, detectors)
    else:
        wanted = detectors or [name for name, one in installed().items() if isinstance(one, LayerDetector)]
        with Checkpoints(dtype=dtype, device=device, allow_pickle=allow_pickle) as opener, freed_memory_kept():
            found = _of_models(opener, references, wanted, tasks, n, seed, folder, progress)
    if references[0].numbered:
        found = replace(found, facts={**found.facts, "numbered": True})
    if folder is not None:
        write_timeline(found, folder)
    return found


def _of_models(
    opener: Checkpoints,
    references: Sequence[Reference],
    wanted: Sequence[str | Path | Detector],
    tasks: OwnTasks | None,
    n: int,
    seed: int,
    folder: Path | None,
    progress: Progress,
) -> Timeline:
    hashes = [opener.source(one.name, one.revision).sha256 for one in references]
    model = opener.open(references[0].name, references[0].revision)
    chosen = plan(model, wanted, tasks, n, seed)
    heads, width, facts = model.heads, model.d_model, _facts(model, chosen, n, seed)
    if folder is not None:
        _demand_same(folder, facts)
    progress.plan([("checkpoints", len(references))])
    found: list[Measured] = []
    for number, (one, sha256) in enumerate(zip(references, hashes, strict=True)):
        had = kept(folder, sha256, chosen, heads)
        if missing(had, chosen):
            if number:
                model = opener.open(one.name, one.revision)
            if (model.heads, model.d_model) != (heads, width):
                what = "other heads" if model.heads != heads else f"another width ({model.d_model}, not {width})"
                raise BadInput(
                    f"{one.label} has {what} than {references[0].label}.", "Take checkpoints of one training."
                )
            had = measured(model, chosen, had, folder, sha256)
        found.append(had)
        progress.advance("checkpoints")
    metrics = {task.name: metric_on(model, task) for task in chosen.by_task}
    order = aligned(heads, [one.sketch for one in found])
    labels, steps = tuple(one.label for one in references), tuple(one.step for one in references)
    moved = tuple(
        (label, heads[place], head)
        for label, places in zip(labels, order, strict=True)
        for head, place in zip(heads, places, strict=True)
        if heads[place] != head
    )
    series = tuple(
        Series(
            one.name, one.head_type, task.name, one.minimum_effect,
            *(np.stack([_scores(had, one)[part][:, places] for had, places in zip(found, order, strict=True)])
              for part in range(2)),
        )
        for task, group in chosen.by_task.items()
        for one in group
    )  # fmt: skip
    measurements = {}
    for task in chosen.by_task:
        metric, values = metrics[task.name], [had.metric(task) for had in found]
        told = [value for value in values if value is not None]
        if metric is not None and len(told) == len(values):
            measurements[task.name] = MetricSeries(
                task.name, metric.name, metric.unit, metric.higher_is_better, np.stack(told)
            )
    skipped = {one.detector: one.reason for one in chosen.skipped}
    return Timeline(labels, steps, heads, series, measurements, facts, skipped, moved)


def _scores(had: Measured, detector: Detector) -> tuple[Any, Any]:
    scores = had.scores(detector)
    assert scores is not None  # what was missing was measured
    return scores


def _facts(model: Model, chosen: Plan, n: int, seed: int) -> dict[str, Any]:
    """What decides the numbers beside the weights and the detectors, which the kept arrays name."""
    texts = {task.name: " ".join(filter(None, map(digest, (batch, batch.control))))
             for task, batch in chosen.batches.items()}  # fmt: skip
    return {"architecture": model.architecture, "dtype": str(model.dtype), "n": n, "seed": seed,
            "bos": model.tokenizer.bos_policy, "headatlas": __version__, "texts": texts}  # fmt: skip


def _demand_same(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note in a folder whose timeline it holds. Raises StoreError where it is another's, or something else lies there."""
    path = folder / "run.json"
    texts = dict(facts["texts"])
    if path.exists():
        known = read_json(path)
        theirs = dict(known.get("texts", {}))
        other = [name for name in texts.keys() & theirs.keys() if texts[name] != theirs[name]]
        differs = [one for one in differing({**known, "id": ""}, {**facts, "id": ""}) if one != "id"]
        if other or differs:
            told = "; ".join([*differs, *(f"the texts of {name}" for name in sorted(other))])
            raise StoreError(f"{folder} holds another timeline, which differs in {told}.", "Choose another folder.")
        texts = {**theirs, **texts}
    elif folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} exists and holds no timeline.", "Choose another folder with --out.")
    with writing(folder):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_json(path, {**facts, "texts": texts})


def _of_runs(references: Sequence[Reference], detectors: Sequence[str | Path | Detector] | None) -> Timeline:
    """A timeline of finished runs, which keep no metric by example, so that no drop can be told."""
    names = [one for one in detectors or () if isinstance(one, str)]
    if len(names) < len(detectors or ()):
        raise BadInput("Of finished runs detectors are named.", "Give their names.")
    runs = [FinishedRun.of(Atlas(one.name)) for one in references]
    chosen, left = demand_comparable(runs[0], runs[1], names)
    for other in runs[2:]:
        again, more = demand_comparable(runs[0], other, names)
        chosen, left = [name for name in chosen if name in again], {**left, **more}
    first = runs[0].measured
    heads: tuple[HeadId, ...] = first[chosen[0]].heads
    series = tuple(
        Series(name, first[name].head_type, first[name].task, first[name].minimum_effect,
               np.stack([run.measured[name].values for run in runs]), np.stack([run.measured[name].control for run in runs]))
        for name in chosen
    )  # fmt: skip
    facts = {name: runs[0].facts.get(name) for name in ("n", "seed", "headatlas")}
    labels, steps = tuple(one.label for one in references), tuple(one.step for one in references)
    return Timeline(labels, steps, heads, series, {}, facts, left)
