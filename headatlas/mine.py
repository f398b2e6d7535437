"""Mining a model: plan, group detectors by task, one pass a task, verdicts, a run folder; resumes where it stopped."""

from __future__ import annotations

import datetime
import math
import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from importlib.metadata import version
from filelock import FileLock, Timeout

import headatlas
from headatlas import catalogue, report
from headatlas.atlas import Atlas, Run, extras, publish, read_json, write_json, write_table, writing
from headatlas.detector import Detector, detectors, find_detector
from headatlas.errors import BadInput, StoreError, UnfitTask
from headatlas.heads import HeadId
from headatlas.methods.scan import Scan, scan
from headatlas.methods.verdict import DRAWS, Ablation, Effect, Verdict, judge
from headatlas.model import Model
from headatlas.scores import grid
from headatlas.task import Batch, Task

VERDICT_EXAMPLES = 8  # held-out examples on which heads are ablated
VERDICT_CONTEXT = 64  # their longest length in tokens: a sweep costs hundreds of runs
TOKENS_AT_ONCE = 2048


class Progress(Protocol):
    """Who is told how far the work has come."""

    def plan(self, steps: Sequence[tuple[str, int]]) -> None: ...  # noqa: D102
    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None: ...  # noqa: D102
    def say(self, line: str) -> None: ...  # noqa: D102


class Silent:
    """Tells nobody."""

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Do nothing."""

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Plan:
    """What will be run on a model: detectors by task with their batches, and what is skipped and why."""

    by_task: dict[Task, list[Detector]]
    skipped: list[dict[str, str]]


def plan(model: Model, names: Sequence[str] | None, n: int, seed: int) -> Plan:
    """Choose the detectors that fit this model; raises UnknownName for a name that no detector has."""
    wanted = [find_detector(name) for name in names] if names else list(detectors().values())
    kinds = {site.causal for site in model.sites if site.stack != "cross"}
    chosen: dict[Task, list[Detector]] = {}
    skipped = []
    unfit: dict[Task, str] = {}
    for detector in wanted:
        reason = ""
        if not ((detector.causal and True in kinds) or (detector.encoder and False in kinds)):
            reason = f"made for models that read {'one way' if detector.causal else 'both ways'}"
        elif "unembedding" in detector.needs and model.unembedding is None:
            reason = "needs token logits, and this model has no linear unembedding"
        elif detector.task not in chosen and detector.task not in unfit:
            try:
                detector.task(model.tokenizer, 1, seed)
            except UnfitTask as error:
                unfit[detector.task] = str(error)
        reason = reason or unfit.get(detector.task, "")
        if reason:
            skipped.append({"detector": detector.name, "reason": reason})
        else:
            chosen.setdefault(detector.task, []).append(detector)
    return Plan(chosen, skipped)


def mine(
    model: Model,
    detectors: Sequence[str] | None = None,
    *,
    n: int = 32,
    seed: int = 0,
    verdict: bool = True,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Score every head of `model` for every detector (or those named), judge what was observed, and keep it in a folder.

    n: examples per task. Each finished task is kept: the same call after an interruption goes on from there, and a call
    whose run is complete returns it at once. Raises BadInput, UnknownName, StoreError.
    """
    if n < 4:
        raise BadInput(f"{n} examples are too few for a p-value.", "Use --n 4 or more; 32 is the default.")
    progress = progress or Silent()
    chosen = plan(model, detectors, n, seed)
    run = Run(_facts(model, chosen, n, seed, verdict))
    final = Path(out) if out is not None else Path("atlas") / re.sub(r"[^\w.-]+", "-", model.name).strip("-") / run.id
    if _finished(final, run):
        progress.say(f"{final} holds this run already.")
        return Atlas(final)
    partial = final.with_name(f"{final.name}.partial")
    with writing(partial):
        (partial / "tasks").mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(partial) + ".lock")
    try:
        with lock.acquire(timeout=0):
            _work(model, chosen, run, partial, final, progress)
    except Timeout as error:
        raise StoreError(
            f"Another program is mining into {final} right now.", "Wait for it, or choose another folder with --out."
        ) from error
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
    return Atlas(final)


def _finished(final: Path, run: Run) -> bool:
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return False
    if not (final / "run.json").is_file():
        raise StoreError(f"{final} exists and is not a run folder.", "Choose another folder with --out.")
    known = read_json(final / "run.json")
    read_json(final / "atlas.json")
    if not isinstance(known, dict) or known.get("id") != run.id:
        raise StoreError(
            f"{final} holds another run ({known.get('id') if isinstance(known, dict) else 'unreadable'}).",
            "Choose another folder with --out, or remove it.",
        )
    return True


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
        "detectors": {d.name: d.version for group in chosen.by_task.values() for d in group},
        "tasks": {task.name: task.version for task in chosen.by_task},
        "headatlas": headatlas.__version__,
    }


def _work(model: Model, chosen: Plan, run: Run, partial: Path, final: Path, progress: Progress) -> None:
    """Everything between the plan and the finished folder."""
    identity = {"id": run.id, **run.facts}
    known = partial / "run.json"
    if known.exists() and read_json(known).get("id") != run.id:
        shutil.rmtree(partial)
        (partial / "tasks").mkdir(parents=True)
        progress.say(f"An unfinished run with other settings in {partial} was dropped.")
    write_json(known, identity)
    n, seed = run.facts["n"], run.facts["seed"]
    progress.plan([(task.name, n) for task in chosen.by_task])
    results, examples, attention = [], [], {}
    seconds = {"load": model.load_seconds, "forward": 0.0, "detect": 0.0, "verdict": 0.0}
    for task, group in chosen.by_task.items():
        kept = partial / "tasks" / f"{task.name}.json"
        if kept.exists():
            done = read_json(kept)
            progress.advance(task.name, n)
            progress.say(f"{task.name}: kept from before.")
        else:
            done = _one_task(model, task, group, n, seed, run.facts["verdict"], progress)
            write_json(kept, done)
        results += done["detectors"]
        examples += done["examples"]
        attention |= done["attention"]
        for name, spent in done["seconds"].items():
            seconds[name] += spent
    order = {name: i for i, name in enumerate(run.facts["detectors"])}
    results.sort(key=lambda found: order[found["name"]])
    data = clean_atlas(model, run, results, chosen.skipped, seconds)
    _tables(partial, data, examples, model)
    write_json(partial / "atlas.json", data)
    write_json(partial / "attention.json", attention)
    with writing(partial):
        page = report.html(read_json(partial / "atlas.json"), extras(data, attention))
        (partial / "report.html").write_text(page, encoding="utf-8")
    publish(partial, final)


def _one_task(
    model: Model, task: Task, group: list[Detector], n: int, seed: int, verdict: bool, progress: Progress
) -> dict[str, Any]:
    batch = task(model.tokenizer, n, seed)
    metric = task.metric if model.kind == "decoder" and model.has_logits else None
    size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
    found = scan(model, group, batch, metric=metric, size=size, tick=lambda done: progress.advance(task.name, done))
    observed = {d.name: [line.head for line in found.scores[d.name].observed(d.minimum_effect)] for d in group}
    able = _gate(task, found, model.vocabulary_size)
    verdicts: dict[str, Verdict] = {}
    began = time.perf_counter()
    if verdict and metric is not None and able["able"] and any(observed.values()):
        held_out = task(model.tokenizer.within(VERDICT_CONTEXT), min(n, VERDICT_EXAMPLES), seed + 1_000_003)
        ablation = Ablation(model, held_out, metric, found.mean_z)
        rivals = Ablation(model, held_out.rows(slice(0, len(held_out) // 2)), metric, found.mean_z)
        taken = {head for heads in observed.values() for head in heads}
        for detector in group:
            heads = observed[detector.name]
            if heads:
                progress.say(f"{task.name}: verdict on {len(heads)} heads observed by {detector.name}.")
                verdicts[detector.name] = judge(ablation, rivals, heads, taken, seed=seed)
    spent = time.perf_counter() - began
    return {
        "detectors": [_result(model, d, found, able, verdicts.get(d.name), verdict) for d in group],
        "examples": [_per_example(d, found) for d in group],
        "attention": _attention(model, task, group, observed, batch),
        "seconds": {**found.seconds, "verdict": spent},
    }


def _gate(task: Task, found: Scan, vocabulary: int) -> dict[str, Any]:
    """Whether the model can do the task: its metric must lie better than the floor by the task's margin."""
    if task.metric is None or found.metric is None:
        return {"able": False, "baseline": None}
    value, floor = float(found.metric.mean()), _floor(task, found, vocabulary)
    better = value - floor if task.metric.higher_is_better else floor - value
    return {
        "able": better >= task.margin,
        "baseline": {
            "metric": task.metric.name,
            "value": value,
            "floor": floor,
            "margin": task.margin,
            "unit": task.metric.unit,
        },
    }


def _floor(task: Task, found: Scan, vocabulary: int) -> float:
    if task.floor == "uniform":
        return math.log(vocabulary)
    if found.floor is None:
        raise BadInput(
            f"Task {task.name} has no control batch to take its floor from.",
            "Give the task a control, or floor='uniform'.",
        )
    return float(found.floor.mean())


def _result(
    model: Model, detector: Detector, found: Scan, able: dict[str, Any], verdict: Verdict | None, wanted: bool
) -> dict[str, Any]:
    scores = found.scores[detector.name]
    lines = {line.head: line for line in scores.summary()}
    if verdict is None and not able["able"]:
        reason = (
            "the model has no metric on this task" if able["baseline"] is None else "the model does not do the task"
        )
    else:
        reason = "" if verdict is not None or wanted else "verdicts were switched off"
    heads = []
    for line in scores.observed(detector.minimum_effect):
        effect = verdict.effects[line.head] if verdict is not None else None
        heads.append({**_line(line.head), "score": line.score, "low": line.low, "high": line.high, "chance": line.chance, "p": line.p, "q": line.q,
                      "verdict": verdict.verdicts[line.head] if verdict is not None else "untested", **_effect(effect)})  # fmt: skip
    score, chance = (np.array([getattr(lines[head], name) for head in model.heads]) for name in ("score", "chance"))
    main = model.stacks[0]
    return {
        "name": detector.name,
        "head_type": detector.head_type,
        "stage": catalogue.head_type(detector.head_type).stage,
        "task": detector.task.name,
        "version": detector.version,
        "n_examples": len(scores.values),
        "minimum_effect": detector.minimum_effect,
        "baseline": able["baseline"],
        "untested": reason,
        "scores": grid(model.heads, score, main).tolist(),
        "chance": grid(model.heads, chance, main).tolist(),
        "all": [
            {
                **_line(head),
                "score": lines[head].score,
                "low": lines[head].low,
                "high": lines[head].high,
                "chance": lines[head].chance,
                "p": lines[head].p,
                "q": lines[head].q,
            }
            for head in model.heads
        ],
        "heads": heads,
        "group": {**_effect(verdict.group), "p": verdict.group.p, "draws": DRAWS} if verdict is not None else None,
        "about": detector.about,
    }


def _line(head: HeadId) -> dict[str, Any]:
    return {"layer": head.layer, "head": head.head, "stack": head.stack}


def _effect(effect: Effect | None) -> dict[str, float | None]:
    names = {
        "effect": "effect",
        "effect_low": "low",
        "effect_high": "high",
        "random_effect": "random_effect",
        "random_median": "random_median",
    }
    return {name: getattr(effect, field) if effect is not None else None for name, field in names.items()}


def _per_example(detector: Detector, found: Scan) -> dict[str, Any]:
    scores = found.scores[detector.name]
    return {"detector": detector.name, "values": scores.values.tolist(), "control": scores.control.tolist()}


def _attention(
    model: Model, task: Task, group: list[Detector], observed: Mapping[str, list[HeadId]], batch: Batch
) -> dict[str, Any]:
    """For each detector an example text and where its observed heads look in it: the three strongest keys."""
    wanted = {(head.stack, head.layer) for heads in observed.values() for head in heads}
    if not wanted:
        return {}
    one = batch.rows(slice(0, 1))
    rows: dict[HeadId, list[list[float]]] = {}

    def watch(at: Any) -> None:
        if (at.stack, at.layer) not in wanted:
            return
        top = at.pattern[0].topk(min(3, at.n_keys), dim=-1)
        for head in {
            head for heads in observed.values() for head in heads if (head.stack, head.layer) == (at.stack, at.layer)
        }:
            weights, keys = top.values[head.head], top.indices[head.head]
            rows[head] = [
                [q, int(k), round(float(w), 3)]
                for q in range(at.n_queries)
                for w, k in zip(weights[q], keys[q], strict=True)
                if w >= 0.05
            ]

    model.forward(one, watch=watch, logits_at=torch.zeros(1, dtype=torch.long))
    pieces = model.tokenizer.pieces(one.tokens[0].tolist())
    return {
        d.name: {"tokens": pieces, "task": task.name, "heads": {str(head): rows[head] for head in observed[d.name]}}
        for d in group
        if observed[d.name]
    }


def clean_atlas(
    model: Model, run: Run, results: list[dict[str, Any]], skipped: list[dict[str, str]], seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of atlas.json."""
    source, first = model.source, model.sites[0]
    return {
        "schema": "headatlas/atlas/1",
        "model": {
            "name": model.name,
            "source": source.origin if source is not None else "in memory",
            "revision": run.facts["revision"],
            "sha256": run.facts["sha256"],
            "architecture": model.architecture,
            "n_layers": model.n_layers,
            "n_heads": max(site.n_heads for site in model.sites),
            "n_kv_heads": first.n_groups,
            "d_model": model.d_model,
            "d_head": first.d_head,
            "dtype": run.facts["dtype"],
            "attention_path": model.path,
            "stacks": list(model.stacks),
        },
        "run": {
            "id": run.id,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seed": run.facts["seed"],
            "n": run.facts["n"],
            "device": str(model.device),
            "bos": run.facts["bos"],
            "verdict_examples": min(run.facts["n"], VERDICT_EXAMPLES) if run.facts["verdict"] else 0,
            "versions": {
                "headatlas": headatlas.__version__,
                "torch": torch.__version__,
                "transformers": version("transformers"),
                "python": platform.python_version(),
            },
            "seconds": seconds,
        },
        "detectors": results,
        "skipped": skipped,
    }


def _tables(folder: Path, data: dict[str, Any], examples: list[dict[str, Any]], model: Model) -> None:
    names = ("score", "low", "high", "chance", "p", "q")
    extra = ("verdict", "effect", "effect_low", "effect_high", "random_effect")
    columns: dict[str, list[Any]] = {name: [] for name in ("detector", "stack", "layer", "head", *names, *extra)}
    for found in data["detectors"]:
        judged = {(row["stack"], row["layer"], row["head"]): row for row in found["heads"]}
        for row in found.pop("all"):
            known = judged.get((row["stack"], row["layer"], row["head"]), {})
            columns["detector"].append(found["name"])
            for name in ("stack", "layer", "head", *names):
                columns[name].append(row[name])
            for name in extra:
                columns[name].append(known.get(name))
    write_table(folder / "scores.parquet", columns)
    heads = model.heads
    long: dict[str, list[Any]] = {
        name: [] for name in ("detector", "example", "stack", "layer", "head", "score", "control")
    }
    for found in examples:
        for e, (values, control) in enumerate(zip(found["values"], found["control"], strict=True)):
            for head, value, chance in zip(heads, values, control, strict=True):
                for name, item in zip(
                    long, (found["detector"], e, head.stack, head.layer, head.head, value, chance), strict=True
                ):
                    long[name].append(item)
    write_table(folder / "examples.parquet", long)
