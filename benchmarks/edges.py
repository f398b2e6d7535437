"""What scoring every edge of a model costs: EAP and EAP-IG on IOI prompts, next to a bare forward with its backward.

    python benchmarks/edges.py [--model smollm2-135m] [--n 4] [--steps 5] [--json]

The first row is one forward and backward pass over the same prompts; ratios are to it. The last line compares the ranking
of 32 edges, the 16 highest and 16 spread over the others, with exact patching of each.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import line, machine, measure

import headatlas as ha
from headatlas.methods.attribution.attribute import AttributionOptions, attribute
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.task import Batch, find_task, logit_difference


def loaded(name: str, n: int) -> tuple[ha.Model, Batch]:
    model = ha.load(name)
    return model, find_task("ioi")(model.tokenizer, n)


def bare(name: str, n: int) -> Callable[[], object]:
    model, batch = loaded(name, n)

    def run() -> object:
        inputs = model.hf.get_input_embeddings()(batch.tokens).detach().requires_grad_(True)
        logits = model.hf(inputs_embeds=inputs, attention_mask=batch.mask.long(), use_cache=False).logits
        rows = torch.arange(len(batch))
        score = logit_difference.score(logits[rows, batch.positions["end"]][:, None], batch).sum()
        return torch.autograd.grad(score, inputs)

    return run


def edges(name: str, n: int, steps: int | None) -> Callable[[], object]:
    model, batch = loaded(name, n)
    return lambda: edge_scores(model, batch, logit_difference, steps=steps)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="smollm2-135m")
    options.add_argument("--n", type=int, default=4)
    options.add_argument("--steps", type=int, default=5)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    name, n, steps = given.model, given.n, given.steps
    rows = measure(
        {
            f"forward and backward, {n} prompts": functools.partial(bare, name, n),
            "EAP, every edge": functools.partial(edges, name, n, None),
            f"EAP-IG, {steps} steps, every edge": functools.partial(edges, name, n, steps),
        },
        repeats=1,
    )
    model, batch = loaded(name, n)
    agreement = {
        method: attribute(model, batch, method=method, verify=16, options=AttributionOptions(steps=steps)).agreement()
        for method in ("eap", "eap-ig")
    }
    if given.json:
        print(json.dumps({"rows": rows, "agreement": agreement, "machine": machine()}))
        return
    print("\n".join(line(row) for row in rows))
    print("rank agreement with exact patching: " + ", ".join(f"{k} {v:.2f}" for k, v in agreement.items()))


if __name__ == "__main__":
    main()
