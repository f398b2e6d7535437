"""What reading weights from disk costs: a model held whole beside the same with at most some megabytes of weights in memory.

    python benchmarks/offload.py [--model smollm2-135m] [--weight-memory 200MB] [--task repeated] [--n 8] [--json]

Each row is a program of its own on one thread: it loads the model, mines one task without verdicts, and tells seconds (of the
processor, and by the clock), the most weights that were in memory at any time (counted whenever accelerate has put some there), the peak
of the program's memory above what it had before loading (VmHWM, with the pages of files that are mapped in; and anonymous memory
alone, sampled every 20 ms), and a hash of all scores, which must be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from accelerate.hooks import AlignDevicesHook

import headatlas as ha
import headatlas.mining.run  # now, so that it is no part of what is measured


def memory(name: str) -> float:
    """A field of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


class Peak:
    """The largest anonymous memory while this is entered."""

    def __enter__(self) -> Peak:
        self.most, self._over = memory("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, memory("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Weights:
    """The most bytes of a model's weights that were in memory after any of accelerate's moves."""

    def __init__(self) -> None:
        self.most, self.root = 0, None
        real = AlignDevicesHook.pre_forward

        def counted(hook: Any, module: Any, *args: Any, **options: Any) -> Any:
            found = real(hook, module, *args, **options)
            self.note(module)
            return found

        AlignDevicesHook.pre_forward = counted

    def note(self, module: Any) -> None:
        parts = [*(self.root or module).parameters(), *module.parameters(recurse=False)]
        held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in parts if not one.is_meta}
        self.most = max(self.most, sum(held.values()))


def child(options: argparse.Namespace) -> None:
    weights = Weights()
    with ha.engine("local", threads=1):
        before = {name: memory(name) for name in ("VmRSS", "RssAnon")}
        row: dict[str, Any] = {}
        for what in ("load", "mine"):
            Path("/proc/self/clear_refs").write_text("5")
            began, clock = time.process_time(), time.perf_counter()
            with Peak() as peak:
                if what == "load":
                    model = ha.load(options.model, weight_memory=options.weight_memory)
                    weights.root = model.hf
                    weights.note(model.hf)
                else:
                    out = Path(tempfile.mkdtemp()) / "run"
                    atlas = ha.mine(model, tasks=[options.task], n=options.n, verdict=False, out=out)
            row[f"{what}, CPU s"] = time.process_time() - began
            row[f"{what}, s"] = time.perf_counter() - clock
            row[f"{what}, peak MB"] = memory("VmHWM") - before["VmRSS"]
            row[f"{what}, anonymous MB"] = peak.most - before["RssAnon"]
    scores = json.dumps([one["scores"] for one in atlas.data["detectors"]])
    row |= {"weights MB": weights.most / 1e6, "scores": hashlib.sha256(scores.encode()).hexdigest()[:12]}
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--weight-memory", default="200MB")
    parser.add_argument("--task", default="repeated")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.child:
        options.weight_memory = options.weight_memory or None
        child(options)
        return
    rows: dict[str, dict[str, Any]] = {}
    for name, allowed in (("whole", ""), (options.weight_memory, options.weight_memory)):
        asked = ["--model", options.model, "--task", options.task, "--n", str(options.n)]
        words = [sys.executable, __file__, "--child", *asked]
        done = subprocess.run([*words, "--weight-memory", allowed], capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    columns = list(next(iter(rows.values())))
    print("| weights | " + " | ".join(columns) + " |\n|---" + "| --: " * len(columns) + "|")
    for name, row in rows.items():
        print(
            f"| {name} | "
            + " | ".join(f"{one:.1f}" if isinstance(one, float) else str(one) for one in row.values())
            + " |"
        )


if __name__ == "__main__":
    main()
