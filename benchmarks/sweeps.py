"""What ablating every head costs: hooks on plain transformers, TransformerLens, ours exact, ours with triage.

    python benchmarks/sweeps.py [--model smollm2-135m] [--every 10] [--batches "16 IOI prompts"] [--positions end] [--json]

Every head is mean-ablated at all positions, and at the last position only, on 16 IOI prompts and on 4 x 256 random
repeated tokens. The loops that run one forward per head are timed on every `--every`-th head and extrapolated, which
their rows say; ours always measures all heads. TransformerLens' rows need the package and say so where it is missing.
All that measure the same head must agree: the last lines give the largest difference.
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
from headatlas.edits import Mean
from headatlas.methods.options import SweepOptions
from headatlas.methods.sweeps.ablation import ablate
from headatlas.task import Batch, find_task, logit_difference

TRIAGE = 30


def ioi(model: ha.Model, n: int = 16) -> Batch:
    """IOI prompts with their counterfactuals."""
    return find_task("ioi")(model.tokenizer, n)


def repeated(model: ha.Model) -> Batch:
    """Four sequences of 256 tokens, the second half a copy of the first; the answer is the token that comes next."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor(model.tokenizer.plain_ids()[1000:20000])
    first = ids[torch.randint(len(ids), (4, 128), generator=generator)]
    tokens = torch.cat([first, first], 1)
    end = torch.full((4,), 254)
    labels = {"answer": tokens[:, 255], "wrong": tokens[:, 200]}
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"end": end}, labels=labels)


BATCHES: dict[str, Callable[[ha.Model], Batch]] = {
    "16 IOI prompts": ioi,
    "4 x 256 tokens": repeated,
    "4 IOI prompts": functools.partial(ioi, n=4),  # for a quick look
}


class Sweep:
    """One way to ablate all heads; the first call warms up with a single head, later ones do the whole."""

    def __init__(self, name: str, made: Callable[[ha.Model], Batch], positions: str, every: int, notes: Path) -> None:
        self.model = ha.load(name)
        self.batch, self.positions, self.every, self.notes = made(self.model), positions, every, notes
        self.warm = False
        end = self.batch.positions["end"]
        self.end = end.reshape(-1, 1)
        source = self.batch.counterfactual or self.batch
        tokens = self.end if positions == "end" else None
        self.mean = Mean.over(self.model, self.model.heads, source, tokens=tokens)
        length = self.batch.tokens.shape[1]
        self.columns = (
            (torch.arange(length)[None] == self.end)
            if positions == "end"
            else torch.ones(len(end), length, dtype=torch.bool)
        )

    def heads(self) -> tuple[ha.HeadId, ...]:
        """Which heads this call measures."""
        chosen = self.model.heads[:: self.every] if self.warm else self.model.heads[:1]
        self.warm = True
        return chosen

    def note(self, heads: tuple[ha.HeadId, ...], effects: np.ndarray, **more: Any) -> None:
        """Leave the effects where the parent process finds them."""
        np.savez(self.notes, heads=[str(head) for head in heads], effects=effects, every=self.every, **more)

    def score(self, logits: torch.Tensor) -> float:
        """Mean metric of logits [example, 1, vocabulary]."""
        return float(logit_difference.score(logits, self.batch).mean())


def hooks(*given: Any) -> Callable[[], object]:
    """One forward of the plain model per head, with a hook on the output projection and logits at the last token only."""
    own = Sweep(*given)
    own.model.hf.set_attn_implementation("sdpa")
    inner, head_of = own.model.hf.model, own.model.hf.lm_head
    mask = own.batch.mask.long() if not bool(own.batch.mask.all()) else None
    rows = torch.arange(len(own.batch))

    def forward() -> float:
        states = inner(input_ids=own.batch.tokens, attention_mask=mask, use_cache=False).last_hidden_state
        return own.score(head_of(states[rows, own.end[:, 0]])[:, None])

    def sweep() -> None:
        with torch.no_grad():
            clean, effects, heads = forward(), [], own.heads()
            for head in heads:
                layer = own.model.layer(head.layer)
                value = own.mean.values["decoder", head.layer][head.head]

                def ablated(
                    _: Any, args: tuple[Any, ...], layer: Any = layer, head: Any = head, value: Any = value
                ) -> Any:
                    z = args[0].unflatten(-1, (layer.n_heads, -1)).clone()
                    z[:, :, head.head] = torch.where(own.columns[..., None], value, z[:, :, head.head])
                    return (z.flatten(-2),)

                handle = layer.projection.register_forward_pre_hook(ablated)
                effects.append(forward() - clean)
                handle.remove()
        own.note(heads, np.array(effects))

    return sweep


def transformer_lens(*given: Any) -> Callable[[], object]:
    """TransformerLens' own loop: one run with a hook on hook_z per head."""
    from transformer_lens.model_bridge import TransformerBridge

    own = Sweep(*given)
    own.model.hf.set_attn_implementation("eager")
    bridge = TransformerBridge.boot_transformers(
        str(own.model.source.folder), hf_model=own.model.hf, tokenizer=own.model.tokenizer._hf
    )  # type: ignore[union-attr]
    rows = torch.arange(len(own.batch))
    kwargs = {} if bool(own.batch.mask.all()) else {"attention_mask": own.batch.mask.long()}

    def pick(logits: torch.Tensor) -> float:
        return own.score(logits[rows, own.end[:, 0]][:, None])

    def sweep() -> None:
        with torch.no_grad():
            clean, effects, heads = pick(bridge(own.batch.tokens, **kwargs)), [], own.heads()
            for head in heads:
                value = own.mean.values["decoder", head.layer][head.head]

                def ablated(z: torch.Tensor, hook: Any, head: Any = head, value: Any = value) -> torch.Tensor:
                    z = z.clone()
                    z[:, :, head.head] = torch.where(own.columns[..., None], value, z[:, :, head.head])
                    return z

                name = f"blocks.{head.layer}.attn.hook_z"
                logits = bridge.run_with_hooks(own.batch.tokens, fwd_hooks=[(name, ablated)], **kwargs)
                effects.append(pick(logits) - clean)
        own.note(heads, np.array(effects))

    return sweep


def ours(triage: int | None, *given: Any) -> Callable[[], object]:
    """`ablate`, exact or with triage."""
    own = Sweep(*given)
    own.every = 1

    def sweep() -> None:
        heads = own.heads()
        k = min(triage, len(heads)) if triage is not None else None
        found = ablate(own.model, own.batch, heads, positions=own.positions, options=SweepOptions(triage=k))
        forwards = float(found.facts["forwards"])
        own.note(heads, found.effects.mean(0)[:, 0], forwards=forwards, agreement=found.agreement())

    return sweep


def compare(name: str, batch: str, positions: str, every: int, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one batch and one choice of positions, and what the effects say about each other."""
    label = f"{batch}, {'all positions' if positions == 'all' else 'last position only'}:"
    ways: dict[str, Callable[..., Any]] = {
        "(a) hooks on transformers": hooks,
        "(b) TransformerLens": transformer_lens,
        "(c) ours, exact": functools.partial(ours, None),
        f"(d) ours, triage {TRIAGE}": functools.partial(ours, TRIAGE),
    }
    files = {way: folder / f"{len(label)}{positions}{number}.npz" for number, way in enumerate(ways)}
    works = {
        f"{label} {way}": functools.partial(make, name, BATCHES[batch], positions, every, files[way])
        for way, make in ways.items()
    }
    rows = measure(works, repeats=1)  # type: ignore[arg-type]
    effects, remarks = {}, []
    for row, way in zip(rows, ways, strict=True):
        if "missing" in row:
            continue
        found = np.load(files[way])
        effects[way] = dict(zip(found["heads"].tolist(), found["effects"].tolist(), strict=True))
        if int(found["every"]) > 1:
            row["measured_seconds"], row["extrapolated"] = row["seconds"], f"every {every}th head"
            row["seconds"] *= every
            row["name"] += f", from every {every}th head"
        for extra in ("forwards", "agreement"):
            if extra in found:
                row[extra] = float(found[extra])
        row["ratio"] = row["seconds"] / rows[0]["seconds"]
    exact = effects["(c) ours, exact"]
    for way, found in effects.items():
        known = [head for head in found if not np.isnan(found[head])]
        apart = max(abs(found[head] - exact[head]) for head in known)
        remarks.append(f"{label} {way} differs from (c) by at most {apart:.1e} on {len(known)} heads")
    best = sorted(exact, key=lambda head: -abs(exact[head]))[:10]
    kept = effects[f"(d) ours, triage {TRIAGE}"]
    remarks.append(f"{label} triage measured {sum(not np.isnan(kept[head]) for head in best)} of the true top 10")
    return rows, remarks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--every", type=int, default=10, help="the loops run every so-manieth head; 1 for all")
    parser.add_argument("--batches", default="16 IOI prompts,4 x 256 tokens", help=f"of: {', '.join(BATCHES)}")
    parser.add_argument("--positions", default="all,end")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    began = time.perf_counter()
    config = ha.load(arguments.model)
    heads, layers = len(config.heads), config.n_layers
    floor = sum(layers - head.layer for head in config.heads) / layers
    del config
    with tempfile.TemporaryDirectory() as folder:
        for batch in arguments.batches.split(","):
            for positions in arguments.positions.split(","):
                found, said = compare(arguments.model, batch, positions, arguments.every, Path(folder))
                rows += found
                remarks += said
    remarks.append(f"{heads} heads; the floor of all-position sweeps is {floor:.1f} whole runs")
    remarks.append(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        print(json.dumps({"rows": rows, "remarks": remarks, "machine": machine()}))
        return
    for row in rows:
        more = f"  {row['forwards']:.1f} runs' worth" if "forwards" in row else ""
        print(line(row) + more)
    print("\n".join(remarks))


if __name__ == "__main__":
    main()
