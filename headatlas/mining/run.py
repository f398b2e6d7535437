"""Mining a model: plan, scan each task, judge each task, publish the atlas; what is done is kept, so that a run can go on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headatlas import report
from headatlas.atlas import Atlas, Run, extras, publish
from headatlas.errors import BadInput
from headatlas.mining.atlas_json import ModelFacts, RunFacts, atlas_json
from headatlas.mining.checks.judging import MOST
from headatlas.mining.planning import Plan, plan
from headatlas.mining.scan import scan_task
from headatlas.mining.tables import example_table, score_table
from headatlas.mining.task_scan import TaskScan, attention_json
from headatlas.mining.task_verdict import TaskVerdict
from headatlas.mining.verdicts import can_be_judged, judge_task, observed_in, settle, step_of, steps
from headatlas.model import Model
from headatlas.progress import Progress, Silent
from headatlas.store import claimed, finished, partial_of, read_json, write_json, write_table, writing
from headatlas.task import Task
from headatlas.version import __version__

DIGITS = 6  # of numbers in atlas.json
VERSION = 2  # of what verdicts mean; raised when they are judged otherwise


def mine(
    model: Model,
    detectors: Sequence[str] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    n: int = 32,
    seed: int = 0,
    verdict: bool = True,
    verdict_n: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Score every head of `model` for every detector (or those named), judge what was observed, and keep it in a folder.

    tasks: only the detectors of these tasks, or those that can be asked on them. n: examples per task. verdict_n: held-out
    examples that verdicts rest on, default 8, more where texts are short and where an effect is not clear. Each finished task is
    kept: the same call after an interruption goes on from there, and a call whose run is complete returns it at once. Raises
    BadInput, UnknownName, StoreError.
    """
    if n < 4:
        raise BadInput(f"{n} examples are too few for a p-value.", "Use --n 4 or more; 32 is the default.")
    if verdict_n is not None and not 4 <= verdict_n <= MOST:
        raise BadInput(f"Verdicts cannot rest on {verdict_n} examples.", f"Use --verdict-n 4 to {MOST}.")
    progress = progress or Silent()
    chosen, facts = plan(model, detectors, tasks, n, seed), ModelFacts.of(model)
    run = Run(
        _identity(facts, model.tokenizer.bos_policy, chosen, n=n, seed=seed, verdict=verdict, verdict_n=verdict_n)
    )
    final = Path(out) if out is not None else Path("atlas") / re.sub(r"[^\w.-]+", "-", model.name).strip("-") / run.id
    identity = {"id": run.id, **run.facts}
    if finished(final, identity, "atlas.json"):
        progress.say(f"{final} holds this run already.")
        return Atlas(final)
    with claimed(final, identity) as dropped:
        partial = partial_of(final)
        if dropped:
            progress.say(f"An unfinished run with other settings in {partial} was dropped.")
        scans = _scans(model, chosen, partial / "scans", progress)
        verdicts = _verdicts(model, chosen, scans, partial / "verdicts", seed, verdict_n, progress) if verdict else None
        records = list(scans.values())
        data = atlas_json(facts, RunFacts.now(model, run.id, n=n, seed=seed), chosen.skipped, records, verdicts)
        _write(partial, data, records, verdicts)
        publish(partial, final)
    return Atlas(final)


def _identity(
    model: ModelFacts, bos: str, chosen: Plan, *, n: int, seed: int, verdict: bool, verdict_n: int | None
) -> dict[str, Any]:
    """Everything that decides the numbers of a run, as run.json has it."""
    return {
        "model": model.name,
        "sha256": model.sha256,
        "revision": model.revision,
        "dtype": model.dtype,
        "attention_path": model.attention_path,
        "bos": bos,
        "n": n,
        "seed": seed,
        "verdict": verdict,
        "verdict_n": verdict_n,
        "verdict_version": VERSION if verdict else None,
        "detectors": {d.name: [d.version, d.minimum_effect] for group in chosen.by_task.values() for d in group},
        "tasks": {task.name: task.version for task in chosen.by_task},
        "headatlas": __version__,
    }


def _scans(model: Model, chosen: Plan, folder: Path, progress: Progress) -> dict[Task, TaskScan]:
    """The scan of every task: the one that was kept, or a new one, which is kept."""
    progress.plan([(task.name, len(chosen.batches[task])) for task in chosen.by_task])
    scans = {}
    for task, group in chosen.by_task.items():
        batch = chosen.batches[task]
        found = TaskScan.load(folder, task.name)
        if found is not None:
            progress.advance(task.name, len(batch))
            progress.say(f"{task.name}: kept from before.")
        else:
            found = scan_task(model, task, group, batch, progress=progress)
            found.save(folder)
        scans[task] = found
    return scans


def _verdicts(
    model: Model,
    chosen: Plan,
    scans: Mapping[Task, TaskScan],
    folder: Path,
    seed: int,
    examples: int | None,
    progress: Progress,
) -> dict[str, TaskVerdict]:
    """The verdicts of every task that can be judged, by its name: those that were kept, or new ones, which are kept.

    All scans come before the first verdict: heads in which any task's detectors observed something are poor controls.
    """
    assigned = observed_in(scans.values())
    able = {task: scan for task, scan in scans.items() if can_be_judged(scan)}
    progress.plan([(step_of(task), steps(scan)) for task, scan in able.items()])
    verdicts = {}
    for task, scan in able.items():
        found = TaskVerdict.load(folder, task.name)
        if found is not None:
            progress.advance(step_of(task), steps(scan))
        else:
            group, n = chosen.by_task[task], len(chosen.batches[task])
            found = judge_task(
                model, task, group, scan, assigned=assigned, n=n, seed=seed, progress=progress, examples=examples
            )
            found.save(folder)
        verdicts[task.name] = found
    return settle(verdicts)


def _write(
    folder: Path, data: dict[str, Any], scans: Sequence[TaskScan], verdicts: Mapping[str, TaskVerdict] | None
) -> None:
    """The tables, atlas.json, attention.json and the report."""
    write_table(folder / "scores.parquet", score_table(scans, verdicts))
    write_table(folder / "examples.parquet", example_table(scans))
    attention = attention_json(scans)
    write_json(folder / "atlas.json", data, DIGITS)
    write_json(folder / "attention.json", attention, DIGITS)
    with writing(folder):
        page = report.html(read_json(folder / "atlas.json"), extras(data, attention))
        (folder / "report.html").write_text(page, encoding="utf-8")
