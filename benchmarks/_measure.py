"""Timing and peak memory of pieces of work, each in a process of its own, as rows with ratios to the first."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], Callable[[], object]]  # sets up, returns what is timed


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status; this benchmark needs Linux")


def _child(work: Work, repeats: int, pipe: Any) -> None:
    try:
        run = work()
        run()  # warm up
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        resting = _peak_mb()
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        pipe.send({"seconds": min(seconds), "peak_mb": _peak_mb(), "resting_mb": resting})
    except ImportError as error:
        pipe.send({"missing": str(error)})


def measure(works: dict[str, Work], *, repeats: int = 3) -> list[dict[str, Any]]:
    """A row per piece of work: name, seconds (best of `repeats`), peak_mb of its process, ratio and memory ratio to the first."""
    rows: list[dict[str, Any]] = []
    # Not forked: a child of a process whose threads have computed hangs in its first parallel loop.
    context = multiprocessing.get_context("spawn")
    for name, work in works.items():
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(work, repeats, there))
        process.start()
        there.close()
        try:
            found = here.recv()
        except EOFError:
            found = {"missing": f"its process ended with {process.exitcode}"}
        process.join()
        row = {"name": name, **found}
        if "seconds" in row and rows and "seconds" in rows[0]:
            row["ratio"] = row["seconds"] / rows[0]["seconds"]
            row["memory_ratio"] = row["peak_mb"] / rows[0]["peak_mb"]
        elif "seconds" in row:
            row |= {"ratio": 1.0, "memory_ratio": 1.0}
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    return rows


def numbers(text: str) -> list[int]:
    """ "1,2" of a command line as numbers."""
    return [int(part) for part in text.split(",")]


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    if "missing" in row:
        return f"{row['name']:<58} not measured: {row['missing']}"
    return f"{row['name']:<58} {row['seconds']:8.2f} s  {row['ratio']:5.2f}x   {row['peak_mb']:8.0f} MB  {row['memory_ratio']:5.2f}x"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch
    import transformers

    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.machine(), "python": platform.python_version(),
            "torch": torch.__version__, "transformers": transformers.__version__}  # fmt: skip


def report(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        print(json.dumps({"rows": rows, "machine": machine()}))
    else:
        print("\n".join(line(row) for row in rows))
