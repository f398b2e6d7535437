"""What removing heads does to a prompt beyond one number: which token becomes the likeliest, and where attention changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.choices import demand_some
from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.heads import HeadId, HeadSets, parse_head_sets
from headatlas.methods.measured_by.clean_run import with_clean_run
from headatlas.methods.prompts import prompts_for
from headatlas.methods.sweeps.ablation import replacements
from headatlas.methods.sweeps.effects import HeadSet
from headatlas.methods.sweeps.plan import positions_of, side_of
from headatlas.model import LayerView, Model
from headatlas.model.core.pass_context import Inputs
from headatlas.ops.types import Array, LayerKey
from headatlas.render.escape import shown
from headatlas.task import Batch
from headatlas.task.answers import first_alternatives

Rows = dict[LayerKey, Tensor]  # (stack, layer) -> [example, head, key], the pattern's rows at the end of each prompt


@dataclass(frozen=True)
class MovedHead:
    """A head whose attention at the end of the prompt changes when others are removed.

    change: total variation distance of its row (0 the same, 1 nothing in common), the mean over examples. away, toward: of the
    first example, the token that loses most attention and the one that gains most, with the change.
    """

    head: HeadId
    change: float
    away: tuple[str, float]
    toward: tuple[str, float]


@dataclass(frozen=True, repr=False)
class Downstream:
    """What removing some heads together does to prompts.

    heads: those removed. kl: [example] KL of the next token to the clean run, in nats. before, after: for each prompt the
    likeliest next tokens with their probabilities. moved: later heads by how much their attention changes, largest first.
    """

    model: str
    heads: HeadSet
    edit: str
    kl: Array
    before: tuple[tuple[tuple[str, float], ...], ...]
    after: tuple[tuple[tuple[str, float], ...], ...]
    moved: tuple[MovedHead, ...]

    def __repr__(self) -> str:
        names = " ".join(map(str, self.heads))
        lines = [f"Downstream({self.model} without {names}, {self.edit}-ablated: KL {self.kl.mean():.3g} nats)"]
        for before, after in list(zip(self.before, self.after, strict=True))[:4]:
            lines.append(f"  next token: {_spelled(before)} becomes {_spelled(after)}")
        for one in self.moved[:5]:
            told = f"away from {_spelled([one.away])} toward {_spelled([one.toward])}"
            lines.append(f"  {one.head} moves {one.change:.2f} of its attention at the end, {told}")
        return "\n".join(lines)


def _spelled(tokens: Any) -> str:
    return ", ".join(f"{shown(token, lines=False)!r} {chance:.2f}" for token, chance in list(tokens)[:3])


@torch.no_grad()
def downstream(
    model: Model,
    batch: Inputs,
    heads: HeadSets,
    *,
    edit: str = "mean",
    mean: str = "overall",
    positions: str = "all",
    k: int = 10,
) -> Downstream:
    """Remove heads together and see what the prompts' next token becomes and where later heads attend then.

    batch: prompts as `model.forward` takes them. heads, edit, mean, positions: as in `ablate`. k: how many tokens are told.
    Raises BadInput, UnknownName.
    """
    demand_some(k, "tokens")
    removed = tuple(dict.fromkeys(head for one in parse_head_sets(heads, model.heads) for head in one))
    model.require(removed)
    given = prompts_for(model, batch, demand=False, settles=True, chosen=False)
    read = with_clean_run(model, first_alternatives(given.batch))
    if edit not in ("mean", "zero", "resample"):
        raise BadInput(f"Unknown ablation '{edit}'.", "Choose one of mean, zero, resample.")
    at = positions_of(side_of(read, [removed], "z", positions), positions)
    if len(at) != 1:
        raise BadInput("Heads are removed at one position or at all.", "Choose all, or a named position.")
    prepare = replacements(model, read, [removed], edit, mean, positions, None)
    where = next(iter(at.values()))
    first = min(head.layer for head in removed)
    changed, moved, start = [], list[tuple[Rows, Rows, Batch]](), 0
    for part in pieces(read):
        rows = slice(start, start + len(part))
        start = rows.stop
        edits = prepare(rows)(removed, where if where is None or len(where) == 1 else where[rows])
        _, clean = _run(model, part, first, [])
        logits, other = _run(model, part, first, edits)
        changed.append(logits)
        moved.append((clean, other, part))
    before, after = read.labels["clean"], torch.cat(changed).log_softmax(-1)
    kl = (before.exp() * (before - after)).masked_fill(before == -torch.inf, 0.0).sum(-1).clamp(min=0).numpy()
    top = (_likeliest(model, before, k), _likeliest(model, after, k))
    return Downstream(model.name, removed, edit, kl, *top, _moved(model, moved))


def _run(model: Model, batch: Batch, first: int, edits: Any) -> tuple[Tensor, Rows]:
    """Logits [example, vocab] at the end of each prompt, and the rows of attention there from layer `first` + 1 on."""
    rows: Rows = {}

    def watch(layer: LayerView) -> None:
        other = layer.stack == "encoder" and "decoder" in model.stacks  # where the end is no token of this stack
        if other or layer.index <= first:
            return
        end = batch.positions["end"].reshape(-1, 1)
        found = layer.rows(end.to(layer.q.device))[:, :, 0].float().cpu()
        rows[layer.stack, layer.index] = found

    logits = model.forward(batch, watch=watch, edits=edits, logit_positions=batch.positions["end"].reshape(-1, 1))
    return logits[:, 0].float().cpu(), rows


def _likeliest(model: Model, log_probabilities: Tensor, k: int) -> tuple[tuple[tuple[str, float], ...], ...]:
    best = log_probabilities.exp().topk(min(k, log_probabilities.shape[-1]), -1)
    return tuple(
        tuple(zip(model.tokenizer.pieces(ids), chances, strict=True))
        for ids, chances in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def _moved(model: Model, found: list[tuple[Rows, Rows, Batch]]) -> tuple[MovedHead, ...]:
    """Later heads by how far their rows at the end have moved."""
    if not found or not found[0][0]:
        return ()
    clean, other, part = found[0]
    moved = []
    for key in clean:
        distance = torch.cat([0.5 * (b[key] - a[key]).abs().sum(-1) for a, b, _ in found]).mean(0)
        gain = other[key][0] - clean[key][0]  # [head, key] of the first example
        tokens = part.side("encoder" if key[0] == "cross" else key[0]).tokens[0].tolist()
        names = model.tokenizer.pieces(tokens)
        for number, change in enumerate(distance.tolist()):
            low, high = int(gain[number].argmin()), int(gain[number].argmax())
            moved.append(
                MovedHead(
                    HeadId(key[1], number, key[0]), change,
                    (names[low], float(gain[number, low])), (names[high], float(gain[number, high])),
                )
            )  # fmt: skip
    return tuple(sorted(moved, key=lambda one: -one.change))
