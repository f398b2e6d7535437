"""What path patching costs: the paper's four runs pair by pair on plain transformers, and ours with all pairs at once.

    python benchmarks/paths.py [--model smollm2-135m] [--n 16] [--every 199] [--receivers "logits" "q:23.3" ...] [--json]

Every head sends, at the last token of IOI prompts, to the logits and to the queries of a few late heads. The loop keeps the
two first runs and makes the third and fourth for every `--every`-th pair; its time for all pairs is extrapolated from those,
which its row says. Ours measures all pairs. Pairs that both measure must agree: the last line gives the largest difference.
The loop hooks q_proj and o_proj, so it knows models of Llama's kind (SmolLM2) only.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import line, machine, measure

import headatlas as ha
from headatlas.methods.path_patching.receivers import Receiver, parse_receivers
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.task import Batch, find_task, logit_difference

RECEIVERS = ("logits", "q:23.3", "q:24.4", "q:29.1", "q:20.0")


class Pairs:
    """The pairs of one benchmark; the first call warms up with few of them, later ones do the whole."""

    def __init__(self, name: str, n: int, receivers: tuple[str, ...], every: int, notes: Path) -> None:
        self.model = ha.load(name)
        self.batch: Batch = find_task("ioi")(self.model.tokenizer, n)
        self.receivers = parse_receivers(receivers, self.model, group=False)
        self.notes, self.every, self.warm = notes, every, False
        self.all = [(head, one) for head in self.model.heads for one in self.receivers if one.hears(head.layer)]

    def now(self) -> list[tuple[ha.HeadId, Receiver]]:
        """Which pairs the loop measures this time."""
        chosen = self.all[:: self.every] if self.warm else self.all[:1]
        self.warm = True
        return chosen

    def note(self, effects: dict[str, float]) -> None:
        """Leave the effects where the parent process finds them."""
        self.notes.write_text(json.dumps({"pairs": len(self.all), "effects": effects}))


def loop(*given: Any) -> Callable[[], object]:
    """The third and fourth run of the paper for each pair, whole forwards of the plain model with hooks."""
    own = Pairs(*given)
    hf = own.model.hf
    hf.set_attn_implementation("sdpa")
    layers, heads = hf.model.layers, own.model.layer(0).n_heads
    mask, end = own.batch.mask.long(), own.batch.positions["end"]
    rows = torch.arange(len(end))
    assert own.batch.counterfactual is not None

    def run(tokens: torch.Tensor, hooks: list[tuple[Any, Callable[..., Any], bool]]) -> np.ndarray:
        handles = [
            module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
            for module, hook, before in hooks
        ]
        with torch.no_grad():
            states = hf.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            logits = hf.lm_head(states[rows, end])[:, None]
        for handle in handles:
            handle.remove()
        return logit_difference.score(logits, own.batch).double().numpy()

    def kept(tokens: torch.Tensor) -> dict[int, torch.Tensor]:
        seen: dict[int, torch.Tensor] = {}
        run(
            tokens, [(layer.self_attn.o_proj, functools.partial(_see, seen, i), True) for i, layer in enumerate(layers)]
        )
        return seen

    def work() -> None:
        pairs = own.now()
        clean, other = kept(own.batch.tokens), kept(own.batch.counterfactual.tokens)  # type: ignore[union-attr]
        base = run(own.batch.tokens, [])
        effects = {}
        for sender, receiver in pairs:
            width = clean[0].shape[-1] // heads
            sent = {i: z.clone() for i, z in clean.items()}
            part = slice(sender.head * width, (sender.head + 1) * width)
            sent[sender.layer][rows, end, part] = other[sender.layer][rows, end, part]
            hooks = [(layer.self_attn.o_proj, lambda _, __, z=sent[i]: (z,), True) for i, layer in enumerate(layers)]
            if receiver.kind == "logits":
                found = run(own.batch.tokens, hooks)
            else:
                head = receiver.heads[0]
                projection, q = layers[head.layer].self_attn.q_proj, slice(head.head * width, (head.head + 1) * width)
                arrived: dict[int, torch.Tensor] = {}
                run(own.batch.tokens, [*hooks, (projection, functools.partial(_take, arrived), False)])

                def put(
                    _: Any, __: Any, x: torch.Tensor, q: slice = q, a: dict[int, torch.Tensor] = arrived
                ) -> torch.Tensor:
                    x = x.clone()
                    x[rows, end, q] = a[0][rows, end, q]
                    return x

                found = run(own.batch.tokens, [(projection, put, False)])
            effects[f"{sender} {receiver.name}"] = float((found - base).mean())
        own.note(effects)

    return work


def _see(seen: dict[int, torch.Tensor], layer: int, _: Any, args: tuple[Any, ...]) -> None:
    seen[layer] = args[0].clone()


def _take(arrived: dict[int, torch.Tensor], _: Any, __: Any, output: torch.Tensor) -> None:
    arrived[0] = output.clone()


def ours(*given: Any) -> Callable[[], object]:
    """`path_patch`, all pairs."""
    own = Pairs(*given)

    def work() -> None:
        heads = own.model.heads if own.warm else own.model.heads[:1]
        own.warm = True
        found = path_patch(own.model, own.batch, heads, own.receivers, positions="end")
        own.note({f"{one.name} {one.position}": one.effect for one in found.summary() if not np.isnan(one.effect)})

    return work


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n", type=int, default=16, help="IOI prompts")
    parser.add_argument("--every", type=int, default=199, help="the loop runs every so-manieth pair")
    parser.add_argument("--receivers", nargs="+", default=list(RECEIVERS), help="logits, or q of one head each")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "loop.json", Path(folder) / "ours.json"]
        given = (arguments.model, arguments.n, tuple(arguments.receivers), arguments.every)
        works = {
            "four runs a pair, extrapolated": functools.partial(loop, *given, files[0]),
            "path_patch, all pairs": functools.partial(ours, *given, files[1]),
        }
        rows = measure(works, repeats=1)
        notes = [json.loads(file.read_text()) for file in files]
    pairs = notes[0]["pairs"]
    rows[0] |= {"measured": len(notes[0]["effects"]), "measured_seconds": rows[0]["seconds"]}
    rows[0]["seconds"] *= pairs / rows[0]["measured"]
    for row in rows:
        row |= {"pairs": pairs, "pairs_a_second": pairs / row["seconds"], "ratio": row["seconds"] / rows[0]["seconds"]}
    both = set(notes[0]["effects"]) & set(notes[1]["effects"])
    largest = max(abs(notes[0]["effects"][name]) for name in both)
    apart = max(abs(notes[0]["effects"][name] - notes[1]["effects"][name]) for name in both)
    remarks = [
        f"{pairs} pairs of {arguments.n} prompts; the loop ran {rows[0]['measured']} of them in {rows[0]['measured_seconds']:.1f} s",
        f"ours is {rows[0]['seconds'] / rows[1]['seconds']:.0f} times as fast; of {len(both)} pairs, with effects up to "
        f"{largest:.2f}, the largest difference is {apart:.1e}",
        f"{time.perf_counter() - began:.0f} s in all",
    ]
    if arguments.json:
        print(json.dumps({"rows": rows, "remarks": remarks, "machine": machine()}))
        return
    for row in rows:
        print(f"{line(row)}  {row['pairs_a_second']:.2f} pairs a second")
    print("\n".join(remarks))


if __name__ == "__main__":
    main()
