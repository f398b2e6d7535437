"""What opening a model costs beside reading it: processor seconds and runs of the model, each in a program of its own.

    python benchmarks/opening.py [--models smollm2-135m,gemma3-270m] [--repeats 3] [--base FOLDER] [--json]

The yardstick is transformers' `from_pretrained` plus reading the tokenizer. `first load` has an empty cache of what openings
found out, `second load` the one that the first has left. --base: another checkout of headatlas, measured beside this one.
The start of Python and imports are left out. Least of the repeats, which take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
PROGRAM = """
import json, sys, time
from pathlib import Path
import torch, transformers
from torch.nn.modules.module import register_module_forward_pre_hook
from headatlas.model.loading import load
way, name, kept, folder = sys.argv[1:]
runs = []
whole = lambda module, _: runs.append(1) if type(module).__name__.endswith("ForCausalLM") else None
register_module_forward_pre_hook(whole)
if way != "transformers":
    try:
        from headatlas.model.sources import openings
        openings.folder = lambda: Path(kept)
    except ImportError:
        pass  # a checkout that keeps nothing
began = time.process_time()
if way == "transformers":
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    transformers.AutoTokenizer.from_pretrained(folder)
else:
    load(name, device="cpu")
print(json.dumps({"seconds": time.process_time() - began, "forwards": len(runs)}))
"""


def ran(way: str, name: str, kept: Path, folder: str, home: Path) -> dict[str, Any]:
    """Seconds and forwards of one program, with the headatlas of the checkout `home`."""
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, way, name, str(kept), folder]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(name: str, repeats: int, base: Path | None) -> list[dict[str, Any]]:
    """A row for each way of opening one model, with ratios to transformers alone."""
    from headatlas.model.sources.resolve import resolve

    folder = str(resolve(name).folder)
    ways = ["transformers", *(["base"] if base else []), "first load", "second load"]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(repeats):
            kept = Path(place) / "opened"
            for way in ways:
                if way == "first load":
                    shutil.rmtree(kept, ignore_errors=True)
                found[way].append(ran(way, name, kept, folder, base if way == "base" and base else HERE))
    least = {way: min(rows, key=lambda row: row["seconds"]) for way, rows in found.items()}
    alone = least["transformers"]["seconds"]
    return [{"model": name, "way": way, **row, "ratio": row["seconds"] / alone} for way, row in least.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", default="smollm2-135m,gemma3-270m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [row for name in arguments.models.split(",") for row in measured(name, arguments.repeats, arguments.base)]
    if arguments.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print(
            f"{row['model']:<14} {row['way']:<13} {row['seconds']:6.2f} s  {row['ratio']:6.2f}x  {row['forwards']:3d} forwards"
        )


if __name__ == "__main__":
    main()
