"""Mining a model: plan, scan each task, judge each task, publish the atlas; what is done is kept, so that a run can go on."""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headatlas import engines, report
from headatlas.atlas import Atlas, Run, extras, publish, tidy
from headatlas.detector import Detector, ModelDetector
from headatlas.engines import Unit
from headatlas.engines.allocator import freed_memory_kept
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import metric_on
from headatlas.methods.sweeps.checkpoint import digest
from headatlas.mining import twins
from headatlas.mining.atlas_json import ModelFacts, RunFacts, atlas_json
from headatlas.mining.checks import critics
from headatlas.mining.checks.critics import CheckName
from headatlas.mining.checks.fresh import CONTEXT, EXAMPLES
from headatlas.mining.checks.judging import STEPS
from headatlas.mining.own import OwnTasks, keep, sources_of
from headatlas.mining.own import identity as own_identity
from headatlas.mining.planning import Plan, further, plan
from headatlas.mining.scan import scan_task
from headatlas.mining.tables import example_table, score_table
from headatlas.mining.task_scan import TaskScan, attention_json
from headatlas.mining.task_verdict import TaskVerdict
from headatlas.mining.told import Tell, parts, verdict_line
from headatlas.mining.verdicts import can_be_judged, judged_one_by_one, observed_in, settle, step_of, steps
from headatlas.model import Model
from headatlas.model.identity import identity_of
from headatlas.ops.memo import asked_together
from headatlas.progress import Progress, Silent
from headatlas.store import (
    claimed,
    differing,
    finished,
    partial_of,
    read_json,
    write_json,
    write_table,
    write_text,
)
from headatlas.task import Batch, Task
from headatlas.version import __version__

DIGITS = 6  # of numbers in atlas.json
VERSION = 6  # of what verdicts mean; raised when they are judged otherwise
_CLOSE = 3  # facts in which a run may differ from one that its user may have meant to go on with


def mine(
    model: Model,
    detectors: Sequence[str | Path | Detector] | None = None,
    *,
    tasks: OwnTasks | None = None,
    n: int = 32,
    seed: int = 0,
    verdict: bool = True,
    verdict_n: int | None = None,
    checks: CheckName | Sequence[str] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Score every head of `model` for every detector (or those named), judge what was observed, and keep it in a folder.

    detectors: names, detectors of your own as objects, or paths of Python files with some; those of your own must keep the contract
    (`own.demand_contract`). tasks: only the detectors of these tasks, or those that can be asked on them; prompts of your own
    (`headatlas.prompts`, or `Prompts` that name a file, texts, chats and a metric; 8 or more) are a task on which all detectors
    of layers that find what they need are asked, judged by the answers or else by KL to the clean run. The run's folder keeps the source of what is yours. n: examples per task, as many again
    for detectors by which a head is close to being observed. verdict_n: held-out
    examples that verdicts rest on, default 8, more where texts are short and where an effect is not clear. checks: what else
    is asked of each verdict, by name ("removals", "same-answer", "transfer", "relation", "prompts"; "twin" and "shuffled": the same
    detectors on models that have learned nothing), "all" or "none"; default the first four. Each finished task is
    kept: the same call after an interruption goes on from there, and a call whose run is complete returns it at once. What
    was measured on a model that computes something else (see `identity_of`) is not taken up. Raises BadInput, UnknownName,
    StoreError.
    """
    if n < 4:
        raise BadInput(f"{n} examples are too few for a p-value.", "Use --n 4 or more; 32 is the default.")
    if verdict_n is not None and not 4 <= verdict_n <= STEPS[-1]:
        raise BadInput(f"Verdicts cannot rest on {verdict_n} examples.", f"Use --verdict-n 4 to {STEPS[-1]}.")
    progress, asked = progress or Silent(), critics.chosen(checks)
    engines.current().demand(model)
    chosen, facts = plan(model, detectors, tasks, n, seed), ModelFacts.of(model)
    if not verdict:
        chosen = replace(chosen, labelling={})
    settings = _settings(chosen, n=n, seed=seed, verdict=verdict, verdict_n=verdict_n, checks=asked)
    own = sources_of([d for group in chosen.by_task.values() for d in group], list(chosen.by_task))
    if own:
        settings["own"] = own_identity(own)
    run = Run({**_model_identity(model, facts), **settings})
    final = Path(out) if out is not None else Path("atlas") / re.sub(r"[^\w.-]+", "-", model.name).strip("-") / run.id
    identity = {"id": run.id, **run.facts}
    if finished(final, identity, "atlas.json"):
        tidy(final)
        progress.say(f"{final} holds this run already.")
        return Atlas(final)
    if out is None:
        _tell_of_others(final, identity, progress)
    with claimed(final, identity) as dropped, freed_memory_kept():
        partial = partial_of(final)
        if dropped:
            progress.say(f"An unfinished run in {partial} was dropped; it differs in {'; '.join(dropped)}.")
        versions = {task.name: task.version for task in chosen.by_task}
        now = RunFacts.now(model, run.id, n=n, seed=seed, checks=asked, tasks=versions)
        tell = Tell(facts, now, progress)
        judging = {"seed": seed, "examples": verdict_n, "checks": asked} if verdict else None
        scans, verdicts = _measured(model, chosen, partial, seed, judging, tell)
        kinds = [kind for kind in twins.KINDS if kind in asked]
        counts = twins.scanned(model, chosen, kinds, partial / "twins", seed, progress)
        records = [_of(scan, chosen.by_task[task]) for task, scan in scans.items()]
        now = RunFacts.now(model, run.id, n=n, seed=seed, checks=asked, tasks=versions)
        _write(partial, atlas_json(facts, now, chosen.skipped, records, verdicts, counts), records, verdicts)
        keep(partial, own, [d.head_type for group in chosen.by_task.values() for d in group])
        texts = {task.name: _texts(batch) for task, batch in chosen.batches.items()}
        write_json(partial / "run.json", {**identity, "texts": texts, "created": now.created})
        publish(partial, final)
    return Atlas(final)


def _model_identity(model: Model, facts: ModelFacts) -> dict[str, Any]:
    """What of the model decides the numbers of a run, as run.json has it."""
    return {
        "model": facts.name,
        "sha256": facts.sha256,
        "revision": facts.revision,
        "dtype": facts.dtype,
        "attention_path": facts.attention_path,
        "bos": model.tokenizer.bos_policy,
        **identity_of(model),
    }


def _settings(
    chosen: Plan, *, n: int, seed: int, verdict: bool, verdict_n: int | None, checks: Sequence[str]
) -> dict[str, Any]:
    """What else decides them."""
    return {
        "n": n,
        "n_at_most": 2 * n,
        "seed": seed,
        "verdict": verdict,
        "verdict_n": verdict_n,
        "verdict_version": VERSION if verdict else None,
        "checks": list(checks),
        "detectors": {d.name: [d.version, d.minimum_effect] for group in chosen.by_task.values() for d in group},
        "labelling": {d.name: [d.version, d.minimum_effect] for group in chosen.labelling.values() for d in group},
        "tasks": {task.name: task.version for task in chosen.by_task},
        "headatlas": __version__,
    }


def _texts(batch: Batch) -> str:
    """A hash of the texts of a task and its control: runs in which it is the same read the same, whatever their tokenizers."""
    return " ".join(filter(None, map(digest, (batch, batch.control))))


def _tell_of_others(final: Path, identity: Mapping[str, Any], progress: Progress) -> None:
    """Say why unfinished work beside a run's default place is not gone on with, where only few facts are other ones."""
    if partial_of(final).exists():
        return
    for run in sorted(final.parent.glob("*.partial/run.json")):
        differs = differing(read_json(run), identity)
        if len(differs) <= _CLOSE:
            progress.say(f"The unfinished run in {run.parent} is another one: it differs in {'; '.join(differs)}.")


def _measured(
    model: Model, chosen: Plan, place: Path, seed: int, judging: Mapping[str, Any] | None, tell: Tell
) -> tuple[dict[Task, TaskScan], dict[str, TaskVerdict] | None]:
    """The scan of every task, and by its name the verdicts of every task that can be judged: kept ones, or new ones, which are kept.

    judging: options of `judge_task`; None: there are no verdicts. A task's verdicts wait for its own scan alone.
    """
    progress = tell.progress
    progress.plan([(task.name, len(chosen.batches[task])) for task in chosen.by_task])
    tell.cost(model, chosen, [task for task in chosen.by_task if not (place / "scans" / f"{task.name}.json").exists()])
    by_name = {task.name: task for task in chosen.by_task}
    scans: dict[Task, TaskScan] = {}
    verdicts: dict[str, TaskVerdict] = {}
    units: deque[Unit[Any]] = deque()

    def scanned(task: Task, found: TaskScan) -> None:
        scans[task] = found
        tell.scan(_of(found, chosen.by_task[task]))

    def judge_next(task: Task) -> None:
        """Take up a scanned task's verdicts, or have them measured."""
        mine = _of(scans[task], chosen.by_task[task])
        if judging is None or not can_be_judged(mine):
            return
        size = steps(mine, judging["checks"])
        progress.plan([(step_of(task), size)])
        found = TaskVerdict.load(place / "verdicts", task.name)
        if found is None:
            units.append(_verdict_unit(chosen, task, scans[task], judging, (place / "begun").resolve()))
        else:
            progress.advance(step_of(task), size)
            verdicts[task.name] = found

    for task in chosen.by_task:
        found = TaskScan.load(place / "scans", task.name)
        if found is None:
            units.append(_scan_unit(model, chosen, task, seed))
        else:
            progress.advance(task.name, len(chosen.batches[task]))
            progress.say(f"{task.name}: kept from before.")
            scanned(task, found)
    for task in list(scans):
        judge_next(task)
    for unit, result in engines.current().map(model, units, progress):
        if isinstance(result, TaskScan):
            result.save(place / "scans")
            scanned(by_name[unit.name], result)
            judge_next(by_name[unit.name])
        else:
            result.save(place / "verdicts")
            verdicts[unit.name] = result
    scans = {task: scans[task] for task in chosen.by_task}  # whatever came first
    if judging is None:
        return scans, None
    return scans, settle({task.name: verdicts[task.name] for task in scans if task.name in verdicts})


def _scan_unit(model: Model, chosen: Plan, task: Task, seed: int) -> Unit[TaskScan]:
    """The scan of one task, for an engine."""
    batch, asked = chosen.batches[task], _scanned(model, chosen, task)

    def work(model: Model, progress: Progress) -> TaskScan:
        more = functools.partial(further, task, model.tokenizer, batch, seed)
        return scan_task(model, task, asked, batch, further=more, progress=progress)

    whole = sum(isinstance(one, ModelDetector) for one in asked)
    return Unit(task.name, work, float(sum(int(part.mask.sum()) for part in parts(batch)) * (1 + whole)))


def _of(scan: TaskScan, group: Sequence[Detector]) -> TaskScan:
    """The scan of a task as those who asked for these detectors see it."""
    return scan.only(one.name for one in group)


def _scanned(model: Model, chosen: Plan, task: Task) -> list[Detector]:
    """The chosen detectors of a task, and where there can be verdicts those that tell which heads are no random ones."""
    group = chosen.by_task[task]
    others = chosen.labelling.get(task, ()) if metric_on(model, task) is not None else ()
    return [*group, *(one for one in others if one.name not in {mine.name for mine in group})]


def _verdict_unit(
    chosen: Plan, task: Task, scan: TaskScan, options: Mapping[str, Any], place: Path
) -> Unit[TaskVerdict]:
    """The verdicts of one task, for an engine.

    place: a folder in which the work finds what was judged before an interruption and keeps what it has judged, detector by
    detector, where it reaches the run's folder (a machine elsewhere does not).
    """
    group, n = chosen.by_task[task], len(chosen.batches[task])
    labelled = observed_in([_of(scan, chosen.labelling.get(task, ()))])
    size = steps(_of(scan, group), options["checks"])

    @asked_together()
    def work(model: Model, progress: Progress) -> TaskVerdict:
        kept = place.parent.is_dir()
        begun = (TaskVerdict.load(place, task.name) if kept else None) or TaskVerdict(task.name, {}, 0.0)
        rest = [one for one in group if one.name not in begun.detectors]
        progress.advance(step_of(task), size - steps(_of(scan, rest), options["checks"]))
        found = begun
        for more in judged_one_by_one(model, task, rest, scan, labelled=labelled, n=n, progress=progress, **options):
            for name in more.detectors.keys() - found.detectors.keys():
                progress.say(verdict_line(task.name, name, more.detectors[name]))
            found = more.behind(begun)
            if kept:
                found.save(place)
        return found

    return Unit(task.name, work, float(size * EXAMPLES * CONTEXT))


def _write(
    folder: Path, data: dict[str, Any], scans: Sequence[TaskScan], verdicts: Mapping[str, TaskVerdict] | None
) -> None:
    """The tables, atlas.json, attention.json and the report."""
    lines = {
        (one["name"], HeadId(row["layer"], row["head"], row["stack"])): row["line"]
        for one in data["detectors"]
        for row in one["heads"]
    }
    write_table(folder / "scores.parquet", score_table(scans, verdicts, lines))
    write_table(folder / "examples.parquet", example_table(scans))
    attention = attention_json(scans)
    write_json(folder / "atlas.json", data, DIGITS)
    write_json(folder / "attention.json", attention, DIGITS)
    write_text(folder / "report.html", report.html(read_json(folder / "atlas.json"), extras(data, attention)))
