"""What a step of decoding costs with the full cache and with one that holds less, at one length, and what the caches take.

    python benchmarks/cache.py [--model smollm2-135m] [--tokens 4096] [--keep 0.3] [--steps 32] [--json]

The text is made up: time and bytes do not depend on it. Groups that keep everything are drawn by chance. Each row is a process of its own:
the model's own cache (the first row), the same in parts that keep everything, the plan, and the plan with the mean of what is dropped.
`seconds` are of `--steps` steps of one token, with cutting the cache down once before them; bytes are counted by the plan, as allocated, and for the process as a whole.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import line, machine, measure

import headatlas as ha
from headatlas.apply.kv_cache.plan import everything, groups_of, plan_of, within_budget
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.own import again, cache_bytes, read_text
from headatlas.model.holding.span import Span

ROWS = ("own cache", "parts that keep everything", "plan", "plan with means")


def planned(model: ha.Model, keep: float, tokens: int, name: str) -> ha.CachePlan:
    shapes = cache_shapes(model)
    if name != "plan" and name != "plan with means":
        return everything(shapes)
    groups = groups_of(shapes)
    order = [groups[i] for i in torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).tolist()]
    span = Span(4, 64, compensate=name == "plan with means")
    return plan_of(shapes, within_budget(shapes, order, span, keep=keep, n_tokens=tokens), span)


def steps(name: str, keep: float, tokens: int, count: int, row: str) -> Callable[[], object]:
    """Sets up the cache of the text; what is timed are `count` steps of one token, from the same cache each time."""
    model = ha.load(name)
    ids = torch.randint(5, 5000, (tokens + count,), generator=torch.Generator().manual_seed(1))
    past = read_text(model, ids[:tokens])
    plan = planned(model, keep, tokens, row)
    size = [0]

    @torch.no_grad()
    def run() -> object:
        cache: Any = again(past) if row == ROWS[0] else plan.evicted(model, past)
        with contextlib.nullcontext() if row == ROWS[0] else plan.on(model):
            for i in range(count):
                model.hf(input_ids=ids[None, tokens + i : tokens + i + 1], past_key_values=cache)
        size[0] = cache_bytes(cache) if row == ROWS[0] else cache.n_bytes
        return size[0]

    return run


def sizes(name: str, keep: float, tokens: int, row: str) -> tuple[int, int]:
    """Bytes that the plan says, and bytes of the tensors."""
    model = ha.load(name)
    ids = torch.randint(5, 5000, (tokens,), generator=torch.Generator().manual_seed(1))
    plan = planned(model, keep, tokens, row)
    past = read_text(model, ids)
    held = cache_bytes(past) if row == ROWS[0] else plan.evicted(model, past).n_bytes
    return plan.n_bytes(tokens), held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    works = {row: functools.partial(steps, chosen.model, chosen.keep, chosen.tokens, chosen.steps, row) for row in ROWS}
    rows = measure(works)
    for row in rows:
        said, held = sizes(chosen.model, chosen.keep, chosen.tokens, row["name"])
        row |= {"said_bytes": said, "held_bytes": held}
    if chosen.json:
        print(json.dumps({**machine(), "tokens": chosen.tokens, "keep": chosen.keep, "rows": rows}))
        return
    print(f"{chosen.model}, {chosen.tokens} tokens, {chosen.steps} steps of one token")
    for row in rows:
        print(line(row), f"{row['said_bytes'] / 1e6:8.1f} MB by plan, {row['held_bytes'] / 1e6:8.1f} MB held")


if __name__ == "__main__":
    main()
