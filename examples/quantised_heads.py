"""Which heads does rounding the weights break? SmolLM2 beside itself with 4, 3 and 2 bits a weight.

    python examples/quantised_heads.py OUT_FOLDER

Weights of the linear layers of all blocks are rounded to the nearest of 2^bits evenly spaced values between the least and the
largest of each 32 in a row (round to nearest, asymmetric, as Q4_1 of llama.cpp has it). Nothing is calibrated, so this is the
worst that a quantiser of that size does. SmolLM2 comes from a Q4_1 file, so 4 bits on the same grid change next to nothing.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch import nn

import headatlas as ha
from headatlas.mining.comparison.page import headline, write_comparison
from headatlas.model import attach

GROUP = 32  # weights that share a scale
TASKS = ["repeated"]
N = 16


@torch.no_grad()
def rounded(hf: nn.Module, bits: int) -> nn.Module:
    """A copy of a model whose blocks have weights of so many bits."""
    made = copy.deepcopy(hf)
    for name, module in made.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            rows = module.weight.reshape(-1, GROUP)
            least = rows.amin(1, keepdim=True)
            step = ((rows.amax(1, keepdim=True) - least) / (2**bits - 1)).clamp(min=1e-12)
            module.weight.copy_((((rows - least) / step).round() * step + least).reshape(module.weight.shape))
    return made


def main(out: Path) -> None:
    """Compare the model with each rounded one, and write a page of each comparison."""
    base = ha.load("smollm2-135m")
    for bits in (4, 3, 2):
        other = attach(rounded(base.hf, bits), tokenizer=base.tokenizer)
        found = ha.compare(base, other, tasks=TASKS, n=N, verdict=False)
        out.mkdir(parents=True, exist_ok=True)
        write_comparison(found, out / f"{bits}-bits.html")
        write_comparison(found, out / f"{bits}-bits.md")
        print(f"{bits} bits:", *headline(found)[1:2], f"observed before: {observed(found)}", flush=True)


def observed(found: ha.Comparison) -> int:
    """Heads that the first run observes, a head once for each detector."""
    return sum(len(found.a.measured[name].observed) for name in found.detectors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
