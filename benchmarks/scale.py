"""How mining scales over workers: measured here with one and two, and played through with many from the measured times of units.

    python benchmarks/scale.py measure OUT.json [--model smollm2-135m] [--task repeated ...] [--n 8] [--workers 1,2]
    python benchmarks/scale.py simulate OUT.json [--models 100] [--workers 1,2,8,64] [--at-once 2,8,16]

`measure` mines once in this program, one thread, and notes how long each unit takes; then with Ray, whose workers have one
thread each, twice: when they start and load the model, and when they have it. Beside the clock it tells the processor seconds of all
units in the processes that computed them, which other work on the machine moves little. `simulate` gives out the same units by the rules of the engine (the costliest first, verdicts once their scan is there, a worker stays with
its model while that has units, one model at a time is opened by the program that gives out the work).
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _measure import numbers

import headatlas as ha
from headatlas.engines import Engine, Unit
from headatlas.engines.contract import Local
from headatlas.mining.task_scan import TaskScan


class Timed:
    """An engine whose units note their processor seconds where they are computed."""

    def __init__(self, inner: Engine) -> None:
        self.inner, self.workers, self.rows = inner, inner.workers, list[dict[str, Any]]()

    def map(self, model: Any, units: deque[Unit[Any]], progress: Any) -> Iterator[tuple[Unit[Any], Any]]:
        inside: deque[Unit[Any]] = deque()
        known: dict[tuple[str, float], Unit[Any]] = {}

        def take() -> None:
            while units:
                unit = units.popleft()
                known[unit.name, unit.cost] = unit
                inside.append(Unit(unit.name, timed(unit.work), unit.cost))

        take()
        for unit, (found, seconds) in self.inner.map(model, inside, progress):
            kind = "scan" if isinstance(found, TaskScan) else "verdict"
            self.rows.append({"task": unit.name, "kind": kind, "seconds": seconds, "cost": unit.cost})
            yield known[unit.name, unit.cost], found
            take()

    def together(self, jobs: Any, at_once: Any = None) -> None:
        self.inner.together(jobs, at_once)


def timed(work: Any) -> Any:
    """The work, with its processor seconds beside its result."""

    def both(model: Any, progress: Any) -> tuple[Any, float]:
        began = time.process_time()
        return work(model, progress), time.process_time() - began

    return both


def measure(options: argparse.Namespace) -> None:
    chosen = {"tasks": options.task, "n": options.n, "verdict": not options.no_verdict}
    folder, local = Path(tempfile.mkdtemp()), Timed(Local())
    with ha.engine("local", threads=1), ha.engine(local):
        began = time.process_time()
        model = ha.load(options.model)
        loading = time.process_time() - began
        began, clock = time.process_time(), time.perf_counter()
        ha.mine(model, **chosen, out=folder / "local")
        whole, clock = time.process_time() - began, time.perf_counter() - clock
    units = sum(row["seconds"] for row in local.rows)
    runs = [{"workers": 0, "turn": "local", "seconds": clock, "units": units}]
    print(runs[-1], flush=True)
    for workers in options.workers:
        with ha.engine("ray", workers=workers, threads=1) as inner:
            for turn in ("start", "started"):
                there = Timed(inner)
                with ha.engine(there):
                    clock = time.perf_counter()
                    ha.mine(model, **chosen, out=folder / f"ray-{workers}-{turn}")
                seconds = sum(row["seconds"] for row in there.rows)
                runs.append(
                    {"workers": workers, "turn": turn, "seconds": time.perf_counter() - clock, "units": seconds}
                )
                print(runs[-1], flush=True)
    found = {"model": options.model, "load": loading, "driver": whole - units, "units": local.rows, "runs": runs}
    Path(options.file).write_text(json.dumps(found, indent=1))
    print(
        f"{units:.1f} processor seconds in {len(local.rows)} units; load {loading:.1f} s, the rest {whole - units:.1f} s"
    )


@dataclass
class Job:
    """A model under way in the simulation."""

    ready: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0


def makespan(found: dict[str, Any], models: int, workers: int, at_once: int) -> float:
    """Seconds until all models are mined."""
    scans = [row for row in found["units"] if row["kind"] == "scan"]
    verdicts = {row["task"]: row for row in found["units"] if row["kind"] == "verdict"}
    jobs: dict[int, Job] = {}
    idle: list[int | None] = [None] * workers  # which model each free worker has
    events: list[tuple[float, int, str, Any]] = []
    order, opened, now, opener_free = 0, 0, 0.0, 0.0

    def push(at: float, what: str, value: Any) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, what, value))

    def open_next() -> None:
        nonlocal opened, opener_free
        if opened < models:
            opener_free = max(now, opener_free) + found["load"] + found["driver"]
            push(opener_free, "opened", opened)
            opened += 1

    for _ in range(at_once):
        open_next()
    while events:
        now, _, what, value = heapq.heappop(events)
        if what == "opened":
            jobs[value] = Job(list(scans), len(scans) + len(verdicts))
        else:
            number, row = value
            idle.append(number)
            jobs[number].left -= 1
            if row["kind"] == "scan" and row["task"] in verdicts:
                jobs[number].ready.append(verdicts[row["task"]])
            if not jobs[number].left:
                del jobs[number]
                open_next()
        for number, job in jobs.items():
            while job.ready and idle:
                had = number in idle
                idle.remove(number) if had else idle.pop(0)
                row = max(job.ready, key=lambda one: one["cost"])
                job.ready.remove(row)
                push(now + row["seconds"] + (0 if had else found["load"]), "done", (number, row))
    return now


def simulate(options: argparse.Namespace) -> None:
    found = json.loads(Path(options.file).read_text())
    work = sum(row["seconds"] for row in found["units"]) * options.models
    longest = max(row["seconds"] for row in found["units"])
    print(f"{options.models} models like {found['model']}: {len(found['units'])} units each, {work / options.models:.0f} s a model, "
          f"the longest {longest:.1f} s; loading {found['load']:.1f} s, planning and writing {found['driver']:.1f} s")  # fmt: skip
    print("| workers | models at once | hours | speed-up | efficiency |\n| --: | --: | --: | --: | --: |")
    one = makespan(found, options.models, 1, 1)
    for workers in options.workers:
        for at_once in options.at_once:
            took = makespan(found, options.models, workers, at_once)
            print(f"| {workers} | {at_once} | {took / 3600:.2f} | {one / took:.1f} | {work / took / workers:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(required=True)
    one = ways.add_parser("measure")
    one.add_argument("file")
    one.add_argument("--model", default="smollm2-135m")
    one.add_argument("--task", action="append")
    one.add_argument("--n", type=int, default=8)
    one.add_argument("--no-verdict", action="store_true")
    one.add_argument("--workers", type=numbers, default=[1, 2])
    one.set_defaults(do=measure)
    many = ways.add_parser("simulate")
    many.add_argument("file")
    many.add_argument("--models", type=int, default=100)
    many.add_argument("--workers", type=numbers, default=[1, 2, 8, 64])
    many.add_argument("--at-once", type=numbers, default=[2, 8, 16])
    many.set_defaults(do=simulate)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
