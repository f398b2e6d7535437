"""A plan on paper for models too large for this machine: time and memory of mining them, from what was measured on a small one.

    python benchmarks/big_models.py measure OUT.json [--model smollm2-135m] [--weight-memory 200MB]
    python benchmarks/big_models.py plan OUT.json [--rate 100e12] [--read 5e9] [--observed 3,14,26]

`measure` (one thread, processor seconds, so that other work on the machine matters little) times a bare forward pass, and one whose
weights are read from disk. `plan` takes the cost of mining in tokens of bare forward passes, which hangs on prompts and observed heads
and not on the model's size (scans: what all of SmolLM2-135M took, docs/benchmarks.md; verdicts: the steps for the heads that its atlas
shows), and a model's operations a token (two for each weight).
What no machine here could measure are options: --rate, operations a second that a device sustains; --read, bytes a second from disk.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import numbers

import headatlas as ha
from headatlas.mining.checks import critics
from headatlas.mining.checks.fresh import CONTEXT, EXAMPLES
from headatlas.mining.scan import TOKENS_AT_ONCE
from headatlas.mining.verdicts import removals

# Heads with verdicts by detector in the atlas of SmolLM2-135M (docs/atlas): what a larger model shows is not known.
ATLAS = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 5, 5, 8, 9, 12, 14, 24, 26, 59]
SHAPES = {  # published configurations: layers, width, MLP, heads, KV groups, head, vocabulary
    "Llama 3.1 8B": (32, 4096, 14336, 32, 8, 128, 128256),
    "Llama 3.1 70B": (80, 8192, 28672, 64, 8, 128, 128256),
    "Llama 3.1 405B": (126, 16384, 53248, 128, 8, 128, 128256),
}


def timed(work: Callable[[], Any], repeats: int = 3) -> float:
    """Least processor seconds."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(options: argparse.Namespace) -> None:
    with ha.engine("local", threads=1):
        model = ha.load(options.model)
        tokens = torch.randint(0, model.vocabulary_size, (2, 128), generator=torch.Generator().manual_seed(0))
        last = torch.tensor([127])
        bare = timed(lambda: model.forward(tokens, logit_positions=last), 2) / tokens.numel()
        weights = sum(value.nbytes for value in {v.data_ptr(): v for v in model.hf.parameters()}.values())
        offloaded = ha.load(options.model, weight_memory=options.weight_memory)
        moved = timed(lambda: offloaded.forward(tokens, logit_positions=last), 2) - bare * tokens.numel()
        away = sum(value.nbytes for value in offloaded.hf.parameters() if value.is_meta)
    found = {
        "model": options.model, "bare_s_a_token": bare, "operations_a_second": 2 * weights / 4 / bare,
        "offload_bytes": away, "offload_s_a_pass": moved, "offload_bytes_a_second": away / max(moved, 1e-9),
    }  # fmt: skip
    Path(options.file).write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def parameters(shape: tuple[int, ...]) -> int:
    layers, width, mlp, heads, groups, head, words = shape
    return layers * (width * head * (2 * heads + 2 * groups) + 3 * width * mlp) + 2 * width * words


def plan(options: argparse.Namespace) -> None:
    found = json.loads(Path(options.file).read_text())
    scans = options.scan_seconds / found["bare_s_a_token"]
    steps = sum(removals(n) + critics.steps(n, critics.DEFAULT) for n in options.observed)
    verdicts = steps * EXAMPLES * CONTEXT  # at most: a step is a run on so many tokens, or a part of one
    passes = scans / TOKENS_AT_ONCE + steps
    print(f"Scans: {options.scan_tokens:,} tokens in {options.scan_seconds:.0f} s, as {scans:,.0f} of bare passes. Verdicts on "
          f"{sum(options.observed)} heads of {len(options.observed)} detectors: {steps:,} steps, at most {verdicts:,} tokens. "
          f"Measured here on one thread: {found['operations_a_second'] / 1e9:.0f} Gop/s, "
          f"{found['offload_bytes_a_second'] / 1e9:.2f} GB/s of weights read.")  # fmt: skip
    print(
        "| model | weights bf16, GB | beside them, GB | scans, h | verdicts, h | one weight pass from disk, s | all of it by offload, h |"
    )
    print("|---" + "| --: " * 6 + "|")
    for name, shape in SHAPES.items():
        n, (layers, width, mlp, heads, _, head, words) = parameters(shape), shape
        beside = TOKENS_AT_ONCE * 2 * (6 * width + 2 * mlp + 3 * heads * head) + (EXAMPLES * CONTEXT * 4 * words) * 2
        beside += layers * EXAMPLES * CONTEXT * 2 * (width + 2 * heads * head)  # what a cached run keeps
        hours = [2 * n * part / options.rate / 3600 for part in (scans, verdicts)]
        disk = 2 * n / options.read
        slow = (passes * disk + 2 * n * (scans + verdicts) / options.rate) / 3600
        print(
            f"| {name} | {2 * n / 1e9:.0f} | {beside / 1e9:.1f} | {hours[0]:.2f} | {hours[1]:.2f} | {disk:.0f} | {slow:,.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(required=True)
    one = ways.add_parser("measure")
    one.add_argument("file")
    one.add_argument("--model", default="smollm2-135m")
    one.add_argument("--weight-memory", default="200MB")
    one.set_defaults(do=measure)
    two = ways.add_parser("plan")
    two.add_argument("file")
    two.add_argument("--rate", type=float, default=100e12, help="operations a second that are sustained")
    two.add_argument("--read", type=float, default=5e9, help="bytes a second read from disk")
    two.add_argument("--scan-tokens", type=int, default=107_642, help="of all tasks with their controls")
    two.add_argument("--scan-seconds", type=float, default=505, help="processor seconds of the measured model for them")
    two.add_argument("--observed", type=numbers, default=ATLAS, help="heads that each detector with verdicts observes")
    two.set_defaults(do=plan)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
