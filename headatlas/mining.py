"""Mining a model: plan, group detectors by task, one pass a task, verdicts, a run folder; resumes where it stopped."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

import headatlas
from headatlas import record, report
from headatlas.atlas import Atlas, Run, extras, publish
from headatlas.detector import Detector, detectors, find_detector
from headatlas.errors import BadInput, UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.gate import gate_of_values
from headatlas.methods.replayed import ablated
from headatlas.methods.scan import Scan, scan
from headatlas.methods.verdict import Removal, Verdict, judge
from headatlas.model import Model
from headatlas.store import claimed, finished, partial_of, read_json, write_json, writing
from headatlas.task import Batch, Metric, Task, Vocabulary, find_task, held_out

VERDICT_EXAMPLES = 8  # held-out examples on which heads are ablated, more where they are shorter than
VERDICT_LOSSES = 16  # places per example at which a loss is read
VERDICT_CONTEXT = 48  # tokens, their longest length where the task allows it: a verdict costs hundreds of runs
VERDICT_TOKENS = 32_768  # of all of them together, at least four: their keys and values are kept in memory
VERDICT_SEED = 1_000_003
TOKENS_AT_ONCE = 2048
DIGITS = 6  # of numbers in atlas.json


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
    """What will be run on a model: detectors by task, the tasks' examples, and what is skipped and why."""

    by_task: dict[Task, list[Detector]]
    batches: dict[Task, Batch]
    skipped: list[dict[str, str]]


def plan(model: Model, names: Sequence[str] | None, tasks: Sequence[str] | None, n: int, seed: int) -> Plan:
    """Choose the detectors that fit this model; raises UnknownName for a name that no detector or task has."""
    wanted = [find_detector(name) for name in names] if names else list(detectors().values())
    if tasks:
        wanted = _asked_on([find_task(name) for name in dict.fromkeys(tasks)], wanted)
    kinds = {site.causal for site in model.sites if site.stack != "cross"}
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


def fitting(task: Task, tokenizer: Vocabulary, n: int, seed: int) -> Batch:
    """`n` examples, or as many as a task with few items has: a half, a quarter ... of `n`. Raises UnfitTask below 4."""
    while True:
        try:
            return task(tokenizer, n, seed)
        except UnfitTask:
            if n < 8:
                raise
            n //= 2


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

    tasks: only the detectors of these tasks. n: examples per task. Each finished task is kept: the same call after an interruption goes on from there, and a call
    whose run is complete returns it at once. Raises BadInput, UnknownName, StoreError.
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
        "headatlas": headatlas.__version__,
    }


def _work(model: Model, chosen: Plan, run: Run, final: Path, progress: Progress) -> None:
    """Everything between the plan and the finished folder."""
    partial = partial_of(final)
    with writing(partial):
        (partial / "tasks").mkdir(exist_ok=True)
    seed = run.facts["seed"]
    progress.plan([(task.name, len(chosen.batches[task])) for task in chosen.by_task])
    results: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    attention: dict[str, Any] = {}
    skipped = list(chosen.skipped)
    seconds = {"load": model.load_seconds, "forward": 0.0, "detect": 0.0, "verdict": 0.0}
    for task, group in chosen.by_task.items():
        kept, batch = partial / "tasks" / f"{task.name}.json", chosen.batches[task]
        if kept.exists():
            done = read_json(kept)
            progress.advance(task.name, len(batch))
            progress.say(f"{task.name}: kept from before.")
        else:
            done = _one_task(model, task, group, batch, seed, run.facts["verdict"], progress)
            write_json(kept, done)
        results += done["detectors"]
        examples += done["examples"]
        attention |= done["attention"]
        skipped += done["skipped"]
        for name, spent in done["seconds"].items():
            seconds[name] += spent
    results.sort(key=lambda found: found["name"])
    data = record.summary(model, run, results, skipped, seconds)
    record.write_tables(partial, data, examples, model)
    write_json(partial / "atlas.json", data, DIGITS)
    write_json(partial / "attention.json", attention, DIGITS)
    with writing(partial):
        page = report.html(read_json(partial / "atlas.json"), extras(data, attention))
        (partial / "report.html").write_text(page, encoding="utf-8")
    publish(partial, final)


def _thinned(batch: Batch) -> Batch:
    """The batch with the loss asked for at no more than about VERDICT_LOSSES places per example: logits are dear."""
    places = batch.at.get("predict")
    if places is None or places.shape[1] <= VERDICT_LOSSES:
        return batch
    return replace(batch, at={**batch.at, "predict": places[:, :: places.shape[1] // VERDICT_LOSSES]})


def _one_task(
    model: Model, task: Task, group: list[Detector], batch: Batch, seed: int, verdict: bool, progress: Progress
) -> dict[str, Any]:
    metric = task.metric if model.kind == "decoder" and model.has_logits else None
    size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
    found = scan(model, group, batch, metric=metric, size=size, tick=lambda done: progress.advance(task.name, done))
    group = [d for d in group if d.name not in found.refused]
    observed = {d.name: [line.head for line in found.scores[d.name].observed(d.minimum_effect)] for d in group}
    able = None if found.metric is None else gate_of_values(task, found.metric, found.floor, model.vocabulary_size)
    verdicts: dict[str, Verdict] = {}
    began = time.perf_counter()
    if verdict and metric is not None and able is not None and able.able and any(observed.values()):
        verdicts = _verdicts(model, task, metric, group, found, observed, able.smallest, len(batch), seed, progress)
    spent = time.perf_counter() - began
    return {
        "detectors": [record.result(model, d, found, able, verdicts.get(d.name), verdict) for d in group],
        "examples": [record.per_example(d, found) for d in group],
        "attention": record.attention(model, task, group, observed, batch),
        "seconds": {**found.seconds, "verdict": spent},
        "skipped": [{"detector": name, "reason": reason} for name, reason in found.refused.items()],
    }


def _verdicts(
    model: Model,
    task: Task,
    metric: Metric,
    group: list[Detector],
    found: Scan,
    observed: dict[str, list[HeadId]],
    smallest: float,
    n: int,
    seed: int,
    progress: Progress,
) -> dict[str, Verdict]:
    """Verdicts on what was observed, on examples that were not used to find it."""
    batch = _fresh(model, task, n, seed)
    half = batch.rows(slice(0, max(1, len(batch) // 2)))
    removals: dict[str | None, tuple[Removal, Removal]] = {}
    taken = {head for heads in observed.values() for head in heads}
    step = f"{task.name}: verdict"
    progress.plan([(step, sum(len(heads) + 1 for heads in observed.values() if heads))])
    verdicts = {}
    for detector in group:
        heads = observed[detector.name]
        if not heads:
            continue
        progress.say(f"{task.name}: verdict on {len(heads)} heads observed by {detector.name}.")
        try:
            own = detector.removal
            if own is not None:
                pair = (own(model, batch, metric), own(model, half, metric))
            else:
                acts_at = detector.acts_at
                if acts_at not in removals:
                    whole, part = (
                        ablated(model, one, metric, found.mean_z, _positions(one, acts_at)) for one in (batch, half)
                    )
                    removals[acts_at] = whole, part
                pair = removals[acts_at]
            verdicts[detector.name] = judge(
                *pair, heads, taken, smallest=smallest, seed=seed, tick=lambda: progress.advance(step)
            )
        except UnsupportedModel as error:
            progress.say(f"{task.name}: no verdict on {detector.name}: {error}")
    return verdicts


def _fresh(model: Model, task: Task, n: int, seed: int) -> Batch:
    """Examples for verdicts: of the task's other half where it has one, short where it can be; about as many tokens always."""
    other, seed = held_out(task) or task, seed + VERDICT_SEED
    for words in (model.tokenizer.within(VERDICT_CONTEXT), model.tokenizer):
        try:
            few = other(words, min(n, VERDICT_EXAMPLES), seed)
        except UnfitTask:
            continue
        count = VERDICT_EXAMPLES * VERDICT_CONTEXT // few.tokens.shape[1]
        if count <= len(few):
            return _thinned(few.rows(slice(0, max(4, VERDICT_TOKENS // few.tokens.shape[1]))))
        return _thinned(fitting(other, words, min(n, count), seed))
    return _thinned(fitting(other, model.tokenizer, min(n, VERDICT_EXAMPLES), seed))


def _positions(batch: Batch, acts_at: str | None) -> Tensor | None:
    return None if acts_at is None else batch.at[acts_at].reshape(len(batch), -1)
