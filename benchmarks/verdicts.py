"""Where the processor time of a whole `mine` goes, with and without the checks beside verdicts, in this checkout and another.

    python benchmarks/verdicts.py [--base OTHER_CHECKOUT] [--model smollm2-135m] [--detectors previous-token,subword-merge] [--n 4] [--json]

Each run is a program of its own on one thread, and the ways take turns, so that what else runs on the machine meets all of them
alike; the least of the repeats counts. Processor seconds, without loading the model. Ratios are to the first way: the other
checkout without checks (a checkout that has none is run as it is), or this one. `--detectors all --n 32` mines everything, which
takes half an hour. Below the table: whether both checkouts observed the same heads, and whose verdicts are other ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
PHASES = ("scans", "detectors of the whole model", "verdicts", "all")
PROGRAM = """
import importlib, inspect, json, sys, time
import headatlas
from headatlas.detector import ModelDetector, detectors
name, tasks, chosen, n, checks, folder = sys.argv[1:]
spent = {}

def timed(phase, work):
    def run(*given, **more):
        began = time.process_time()
        try:
            return work(*given, **more)
        finally:
            spent[phase] = spent.get(phase, 0.0) + time.process_time() - began
    return run

def watch(module, function, phase):
    try:
        owner = importlib.import_module(module)
    except ImportError:
        return  # of a checkout that has its work elsewhere
    if hasattr(owner, function):
        setattr(owner, function, timed(phase, getattr(owner, function)))

for module, function, phase in (
    ("headatlas.mining.run", "scan_task", "scans"),
    ("headatlas.mining.run", "judge_task", "verdicts"),
    ("headatlas.mining", "_scan", "scans"),
    ("headatlas.judging", "verdicts", "verdicts"),
):
    watch(module, function, phase)
for one in detectors().values():
    if isinstance(one, ModelDetector):
        object.__setattr__(one, "measure", timed("detectors of the whole model", one.measure))
model = headatlas.load(name, device="cpu")
more = {"checks": checks or None} if "checks" in inspect.signature(headatlas.mine).parameters else {}
began = time.process_time()
listed = lambda names: None if names == "all" else names.split(",")
headatlas.mine(model, listed(chosen), tasks=listed(tasks), n=int(n), out=folder, **more)
spent["all"] = time.process_time() - began
spent["scans"] -= spent.get("detectors of the whole model", 0.0)
print(json.dumps(spent))
"""


def mined(home: Path, checks: str, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Processor seconds by phase of one program, with the headatlas of the checkout `home`; the run is left in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    what = [arguments.model, arguments.tasks, arguments.detectors, str(arguments.n), checks, str(folder)]
    command = [sys.executable, "-c", PROGRAM, *what]
    done = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mine of {home} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def heads_of(folder: Path) -> dict[tuple[str, str], str]:
    """(detector, head) -> verdict of every observed head of a run."""
    atlas = json.loads((folder / "atlas.json").read_text("utf-8"))
    detectors = atlas.get("detectors") or atlas["results"]
    return {
        (one["name"], f"{row['layer']}.{row['head']}"): row.get("verdict") or ""
        for one in detectors
        for row in one["heads"]
    }


def compared(first: dict[tuple[str, str], str], second: dict[tuple[str, str], str]) -> str:
    """One line on what two runs found."""
    alone = sorted(first.keys() ^ second.keys())
    other = sorted(key for key in first.keys() & second.keys() if first[key] != second[key])
    told = [f"{len(first)} heads observed by the first"]
    told.append(f"observed by one only: {', '.join(map(' '.join, alone))}" if alone else "the same by the second")
    told.append(
        "other verdicts: " + ", ".join(f"{' '.join(key)} {first[key]} -> {second[key]}" for key in other)
        if other
        else "same verdicts"
    )
    return "; ".join(told)


def measured(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each way with the seconds and ratios of its phases, and what was found."""
    base = arguments.base.resolve() if arguments.base else None
    homes = ({"base": base} if base else {}) | {"this": HERE}
    ways = {f"{name}, no checks": (home, "none") for name, home in homes.items()}
    ways |= {
        f"this, checks {one}": (HERE, "" if one == "default" else one) for one in arguments.checks.split(",") if one
    }
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(arguments.repeats):
            for way, (home, checks) in ways.items():
                folder = Path(place) / f"{list(ways).index(way)}-{turn}"
                seconds[way].append(mined(home, checks, arguments, folder))
                print(f"{way}: {seconds[way][-1]['all']:.1f} s", file=sys.stderr, flush=True)
        found = {way: heads_of(Path(place) / f"{i}-0") for i, way in enumerate(ways)}
    least = {
        way: {phase: min(row.get(phase, 0.0) for row in rows) for phase in PHASES} for way, rows in seconds.items()
    }
    first, *others = ways
    rows = [
        {
            "way": way,
            **{phase: round(value, 2) for phase, value in row.items()},
            "ratio": row["all"] / least[first]["all"],
        }
        for way, row in least.items()
    ]
    return rows, [f"{first} | {way}: {compared(found[first], found[way])}" for way in others]


def main() -> None:
    """Measure and print a table as docs/benchmarks.md has it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, help="root of another checkout of headatlas")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--detectors", default="previous-token,subword-merge", help="or all")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument(
        "--checks", default="default", help="sets of checks to time beside none: default, all, or both; '' for none"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows, found = measured(arguments)
    if arguments.json:
        print(json.dumps({"rows": rows, "found": found}))
        return
    print(f"| what | {' | '.join(PHASES)} | ratio |\n| --- | {'--: | ' * (len(PHASES) + 1)}")
    for row in rows:
        print(f"| {row['way']} | {' | '.join(f'{row[phase]:.1f}' for phase in PHASES)} | {row['ratio']:.2f} |")
    print("\n".join(found))


if __name__ == "__main__":
    main()
