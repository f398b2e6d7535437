"""What reading weights from disk costs: a model held whole beside the same with at most some megabytes of weights in memory.

    python benchmarks/offload.py [--model smollm2-135m] [--weight-memory 200MB] [--task repeated] [--n 8] [--json]

Each row is a program of its own on one thread: it loads the model, mines one task without verdicts, and tells the seconds, the peak of
its memory (VmHWM, with the pages of files that are mapped in, and of anonymous memory alone, sampled every 20 ms) above what it had
before loading, and a hash of all scores, which must be the same.
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


def child(options: argparse.Namespace) -> None:
    import headatlas as ha

    ha.mine  # noqa: B018  (imports)
    import headatlas.mining.run

    with ha.engine("local", threads=1):
        before = {name: memory(name) for name in ("VmRSS", "RssAnon")}
        Path("/proc/self/clear_refs").write_text("5")
        with Peak() as loading:
            began = time.perf_counter()
            model = ha.load(options.model, weight_memory=options.weight_memory)
            load = time.perf_counter() - began
        load_peak = memory("VmHWM")
        Path("/proc/self/clear_refs").write_text("5")
        with Peak() as working:
            began = time.perf_counter()
            atlas = ha.mine(
                model, tasks=[options.task], n=options.n, verdict=False, out=Path(tempfile.mkdtemp()) / "run"
            )
            mine = time.perf_counter() - began
    scores = json.dumps([one["scores"] for one in atlas.data["detectors"]])
    held = {value.data_ptr(): value.nbytes for value in model.hf.parameters() if not value.is_meta}
    print(json.dumps({
        "weights_held_mb": sum(held.values()) / 1e6, "load_s": load, "mine_s": mine,
        "load_peak_mb": load_peak - before["VmRSS"], "mine_peak_mb": memory("VmHWM") - before["VmRSS"],
        "load_anon_mb": loading.most - before["RssAnon"], "mine_anon_mb": working.most - before["RssAnon"],
        "scores": hashlib.sha256(scores.encode()).hexdigest()[:12],
    }))  # fmt: skip


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
        words = [
            sys.executable,
            __file__,
            "--child",
            "--model",
            options.model,
            "--task",
            options.task,
            "--n",
            str(options.n),
        ]
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
