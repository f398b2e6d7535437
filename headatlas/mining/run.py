"""Mining a model: plan, group detectors by task, one scan a task, then verdicts, a run folder; resumes where it stopped."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headatlas import report
from headatlas.atlas import Atlas, Run, extras, publish
from headatlas.detector import Detector, detectors, find_detector
from headatlas.errors import BadInput, UnfitTask
from headatlas.heads import HeadId
from headatlas.methods.sweeps.task_gate import gate_of_values
from headatlas.mining import atlas_json, verdicts
from headatlas.mining.scan import scan
from headatlas.model import Model
from headatlas.progress import Progress, Silent
from headatlas.store import claimed, finished, partial_of, read_arrays, read_json, write_arrays, write_json, writing
from headatlas.task import Batch, Metric, Task, find_task, fitting
from headatlas.version import __version__

TOKENS_AT_ONCE = 2048
DIGITS = 6  # of numbers in atlas.json


@dataclass(frozen=True)
class Plan:
    """What will be run on a model: detectors by task, the tasks' examples, and what is skipped and why."""

    by_task: dict[Task, list[Detector]]
    batches: dict[Task, Batch]
    skipped: list[dict[str, str]]


def plan(model: Model, names: Sequence[str] | None, tasks: Sequence[str] | None, n: int, seed: int) -> Plan:
    """Choose the detectors that fit this model; raises UnknownName for a name that no detector or task has."""
    wanted = [find_detector(name) for name in names] if names else list(detectors().values())
    if tasks:
        wanted = _asked_on([find_task(name) for name in dict.fromkeys(tasks)], wanted)
    kinds = {layer.causal for layer in model.layers if layer.stack != "cross"}
    chosen: dict[Task, list[Detector]] = {}
    skipped = []
    batches: dict[Task, Batch] = {}
    unfit: dict[Task, str] = {}
    for detector in wanted:
        reason = ""
        if not ((detector.causal and True in kinds) or (detector.encoder and False in kinds)):
            reason = f"made for models that read {'one way' if detector.causal else 'both ways'}"
        elif "unembedding" in detector.needs and model.unembedding is None:
            reason = "needs token logits, and this model has no linear unembedding"
        elif detector.task not in chosen and detector.task not in unfit:
            try:
                batches[detector.task] = fitting(detector.task, model.tokenizer, n, seed)
            except UnfitTask as error:
                unfit[detector.task] = str(error)
        reason = reason or unfit.get(detector.task, "")
        if reason:
            skipped.append({"detector": detector.name, "reason": reason})
        else:
            chosen.setdefault(detector.task, []).append(detector)
    return Plan(chosen, batches, skipped)


def _asked_on(tasks: Sequence[Task], wanted: Sequence[Detector]) -> list[Detector]:
    """The detectors of these tasks, and those that may be asked on one of them in place of their own."""
    chosen = [replace(d, task=task) for task in tasks for d in wanted if task == d.task or task in d.also]
    names = ", ".join(task.name for task in tasks)
    if not chosen:
        raise BadInput(f"No detector asked for uses the task {names}.", "See: headatlas list detectors")
    twice = sorted(name for name, n in Counter(d.name for d in chosen).items() if n > 1)
    if twice:
        raise BadInput(
            f"{' and '.join(twice)} can be asked on one task at a time, not on {names}.",
            "Mine each into its own folder.",
        )
    return chosen


def mine(
    model: Model,
    detectors: Sequence[str] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    n: int = 32,
    seed: int = 0,
    verdict: bool = True,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Score every head of `model` for every detector (or those named), judge what was observed, and keep it in a folder.

    tasks: only the detectors of these tasks, or those that can be asked on them. n: examples per task. Each finished task is
    kept: the same call after an interruption goes on from there, and a call whose run is complete returns it at once. Raises
    BadInput, UnknownName, StoreError.
    """
    if n < 4:
        raise BadInput(f"{n} examples are too few for a p-value.", "Use --n 4 or more; 32 is the default.")
    progress = progress or Silent()
    chosen = plan(model, detectors, tasks, n, seed)
    run = Run(_facts(model, chosen, n, seed, verdict))
    final = Path(out) if out is not None else Path("atlas") / re.sub(r"[^\w.-]+", "-", model.name).strip("-") / run.id
    identity = {"id": run.id, **run.facts}
    if finished(final, identity, "atlas.json"):
        progress.say(f"{final} holds this run already.")
        return Atlas(final)
    with claimed(final, identity) as dropped:
        if dropped:
            progress.say(f"An unfinished run with other settings in {partial_of(final)} was dropped.")
        _work(model, chosen, run, final, progress)
    return Atlas(final)


def _facts(model: Model, chosen: Plan, n: int, seed: int, verdict: bool) -> dict[str, Any]:
    source = model.source
    return {
        "model": model.name,
        "sha256": source.sha256 if source is not None else model.fingerprint(),
        "revision": source.revision if source is not None else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention_path": model.path,
        "bos": model.tokenizer.bos_policy,
        "n": n,
        "seed": seed,
        "verdict": verdict,
        "detectors": {d.name: [d.version, d.minimum_effect] for group in chosen.by_task.values() for d in group},
        "tasks": {task.name: task.version for task in chosen.by_task},
        "headatlas": __version__,
    }


def _work(model: Model, chosen: Plan, run: Run, final: Path, progress: Progress) -> None:
    """Everything between the plan and the finished folder: all scans, then all verdicts, then the pages."""
    partial = partial_of(final)
    progress.plan([(task.name, len(chosen.batches[task])) for task in chosen.by_task])
    scans = {}
    for task, group in chosen.by_task.items():
        kept, batch = partial / "scans" / f"{task.name}.json", chosen.batches[task]
        if kept.exists():
            progress.advance(task.name, len(batch))
            progress.say(f"{task.name}: kept from before.")
        else:
            _scan(model, task, group, batch, kept, progress)
        scans[task] = read_json(kept)
    seconds = {"load": model.load_seconds, "forward": 0.0, "detect": 0.0, "verdict": 0.0}
    for done in scans.values():
        for name, spent in done["seconds"].items():
            seconds[name] += spent
    wanted: bool = run.facts["verdict"]
    judged = _verdicts(model, chosen, scans, run.facts["seed"], partial, progress) if wanted else {}
    seconds["verdict"] = sum(done["seconds"] for done in judged.values())
    results = [
        atlas_json.judged(entry, judged[task]["detectors"].get(entry["name"]) if task in judged else None, wanted)
        for task, done in scans.items()
        for entry in done["detectors"]
    ]
    results.sort(key=lambda found: found["name"])
    skipped = chosen.skipped + [item for done in scans.values() for item in done["skipped"]]
    examples = [item for done in scans.values() for item in done["examples"]]
    attention = {name: item for done in scans.values() for name, item in done["attention"].items()}
    data = atlas_json.summary(model, run, results, skipped, seconds)
    atlas_json.write_tables(partial, data, examples, model)
    write_json(partial / "atlas.json", data, DIGITS)
    write_json(partial / "attention.json", attention, DIGITS)
    with writing(partial):
        page = report.html(read_json(partial / "atlas.json"), extras(data, attention))
        (partial / "report.html").write_text(page, encoding="utf-8")
    publish(partial, final)


def _scan(model: Model, task: Task, group: list[Detector], batch: Batch, kept: Path, progress: Progress) -> None:
    """One task's scan, kept as JSON; mean z of its layers beside it, written first."""
    metric = _metric(model, task)
    size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
    found = scan(model, group, batch, metric=metric, size=size, tick=lambda done: progress.advance(task.name, done))
    group = [d for d in group if d.name not in found.refused]
    observed = {d.name: [line.head for line in found.scores[d.name].observed(d.minimum_effect)] for d in group}
    able = None if found.metric is None else gate_of_values(task, found.metric, found.floor, model.vocabulary_size)
    with writing(kept):
        kept.parent.mkdir(exist_ok=True)
    mean_z = {f"{stack} {layer}": z.cpu().numpy() for (stack, layer), z in found.mean_z.items()}
    write_arrays(kept.with_suffix(".npz"), mean_z)
    done = {
        "detectors": [atlas_json.result(model, d, found, able) for d in group],
        "examples": [atlas_json.per_example(d, found) for d in group],
        "attention": atlas_json.attention(model, task, group, observed, batch),
        "seconds": found.seconds,
        "skipped": [{"detector": name, "reason": reason} for name, reason in found.refused.items()],
        "smallest": able.smallest if able is not None and able.able else None,
    }
    write_json(kept, done)


def _metric(model: Model, task: Task) -> Metric | None:
    return task.metric if model.kind == "decoder" and model.has_logits else None


def _verdicts(
    model: Model, chosen: Plan, scans: Mapping[Task, dict[str, Any]], seed: int, partial: Path, progress: Progress
) -> dict[Task, dict[str, Any]]:
    """Verdicts on the heads of every task that the model does; each task's are kept once they are there."""
    observed = {task: _observed(chosen.by_task[task], done) for task, done in scans.items()}
    assigned = {head for by_detector in observed.values() for heads in by_detector.values() for head in heads}
    able = [task for task, done in scans.items() if done["smallest"] is not None and any(observed[task].values())]
    progress.plan([(f"{task.name}: verdict", verdicts.steps(observed[task].values())) for task in able])
    found = {}
    for task in able:
        kept, metric = partial / "verdicts" / f"{task.name}.json", _metric(model, task)
        if kept.exists():
            progress.advance(f"{task.name}: verdict", verdicts.steps(observed[task].values()))
        else:
            assert metric is not None
            began = time.perf_counter()
            mean_z = {
                _place(name): torch.from_numpy(z)
                for name, z in read_arrays(partial / "scans" / f"{task.name}.npz").items()
            }
            case = verdicts.Case(
                task, metric, observed[task], mean_z, scans[task]["smallest"], len(chosen.batches[task]), assigned
            )
            by_detector = verdicts.verdicts(model, case, seed, progress)
            with writing(kept.parent):
                kept.parent.mkdir(exist_ok=True)
            spent = time.perf_counter() - began
            write_json(
                kept,
                {"detectors": {name: atlas_json.verdict(one) for name, one in by_detector.items()}, "seconds": spent},
            )
        found[task] = read_json(kept)
    return found


def _observed(group: Sequence[Detector], done: Mapping[str, Any]) -> dict[Detector, list[HeadId]]:
    entries = {entry["name"]: entry for entry in done["detectors"]}
    return {
        d: [HeadId(row["layer"], row["head"], row["stack"]) for row in entries[d.name]["heads"]]
        for d in group
        if d.name in entries
    }


def _place(name: str) -> tuple[str, int]:
    stack, layer = name.split()
    return stack, int(layer)
