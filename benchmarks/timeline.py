"""What a timeline costs: 40 checkpoints of a two-layer toy over all detectors of layers, beside bare forwards of the same batches.

    OMP_NUM_THREADS=1 python benchmarks/timeline.py [--folder TOY] [--repeats 3] [--json]

Without --folder the checkpoints are those of the toy `repeated` after 40 steps of training. Processor seconds of one thread,
loads included, imports and the choice of detectors left out of neither; least of the repeats, which take turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import headatlas as ha
from headatlas.detector import LayerDetector, detectors
from headatlas.lab.toys import find_study
from headatlas.lab.training.loop import train
from headatlas.lab.training.options import TrainOptions
from headatlas.mining.planning import plan
from headatlas.mining.scan import TOKENS_AT_ONCE
from headatlas.mining.timeline.sources import checkpoints_of

CHECKPOINTS, N = 40, 32


def made(folder: Path) -> Path:
    """The toy's first 40 steps, a checkpoint each."""
    toy = find_study("repeated").variants[0]
    options = TrainOptions(CHECKPOINTS - 1, per_decade=400)
    train(toy.make(0), toy.objective, options, folder=folder, save=toy.save)
    return folder


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def bare(first: str, count: int) -> Callable[[], object]:
    """The forward passes of a timeline without looking: every batch and control, cut as it cuts them, for each checkpoint."""
    model = ha.load(first)
    names = [name for name, one in detectors().items() if isinstance(one, LayerDetector)]
    batches = [
        part for batch in plan(model, names, None, N, 0).batches.values() for part in (batch, batch.control) if part
    ]

    def run() -> None:
        with torch.no_grad():
            for _ in range(count):
                for batch in batches:
                    size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
                    for start in range(0, len(batch), size):
                        model.hf(batch.tokens[start : start + size])

    return run


def main() -> None:
    """Print the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        found = checkpoints_of(given.folder or made(Path(place)))[:CHECKPOINTS]
        names = [one.name for one in found]
        forwards = bare(names[0], len(names))
        times = [(seconds(forwards), seconds(lambda: ha.timeline(names, n=N))) for _ in range(given.repeats)]
    least = min(one for one, _ in times), min(two for _, two in times)
    row = {"checkpoints": len(names), "bare": least[0], "timeline": least[1], "ratio": least[1] / least[0]}
    print(json.dumps(row) if given.json else "  ".join(f"{key} {value:.2f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
