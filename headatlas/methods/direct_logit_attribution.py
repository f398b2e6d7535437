"""Direct logit attribution: how much each head, each MLP and the embedding add to an answer's logit.

What a part writes into the residual stream is read out as the last hidden state is: through the final norm, whose scale
is kept at its value in this run, and W_U (Elhage et al. 2021; Wang et al. 2022, section 3.1). Norms between attention and
stream (Gemma) keep their scale too, factors count. The parts then add up to the metric, which is checked: where they do
not, the model is refused. Effects that pass through later parts are not included; patching measures those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.edits.collect import pieces
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.prompts import prompts_for
from headatlas.model import Edit, LayerView, Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.runs.residual_stream import FinalResidual, Writes, decompose, logit_direction
from headatlas.model.structure.blocks import Block, blocks_of
from headatlas.model.text.reading import as_batch
from headatlas.ops.types import Array, LayerKey
from headatlas.task import Batch, Metric, logit_difference
from headatlas.task.answers import find_metric


@dataclass(frozen=True)
class Toward:
    """A weighted sum of logits at one position of each example: positions [example], ids and weights [example, m]."""

    positions: Tensor
    ids: Tensor
    weights: Tensor

    @classmethod
    def answer(cls, batch: Batch) -> Toward:
        """The logit of the answer minus that of the wrong answer at positions["end"], as the metric `logit_difference` has it."""
        missing = [name for name in ("answer", "wrong") if name not in batch.labels]
        if missing or "end" not in batch.positions:
            raise BadInput(
                f"These prompts have no {missing[0] if missing else 'end'}, so there is no answer to write towards.",
                "Use prompts with an answer, a wrong answer and their end, or give `toward`.",
            )
        sides = [(batch.answer, 1.0), (batch.wrong, -1.0)]
        ids = [side.reshape(len(batch), -1) for side, _ in sides]
        weights = [
            sign * (one >= 0) / (one >= 0).sum(1, keepdim=True) for one, (_, sign) in zip(ids, sides, strict=True)
        ]
        return cls(batch.positions["end"].reshape(-1), torch.cat(ids, 1).clamp(min=0), torch.cat(weights, 1))

    @classmethod
    def tokens(cls, positions: Tensor, tokens: Tensor) -> Toward:
        """The logit of one token each: positions, tokens [example]."""
        return cls(positions, tokens[:, None], torch.ones(len(tokens), 1))

    def rows(self, start: int, stop: int) -> Toward:
        """Some examples."""
        return Toward(self.positions[start:stop], self.ids[start:stop], self.weights[start:stop])


@dataclass(frozen=True)
class DirectEffects:
    """What each part adds to a sum of logits (unit: logits).

    heads, values: [example, head]. others: name -> [example]: "embedding", "mlp 0" ..., "attention biases", "read-out
    bias". total: [example] the sum that the model itself gives. by_source: [example, head, key] the same as values, by the
    token that each head took it from; None unless asked for. notes: what a reader must know.
    """

    heads: tuple[HeadId, ...]
    values: Array
    others: Mapping[str, Array]
    total: Array
    by_source: Array | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        mean = self.values.mean(0)
        best = ", ".join(f"{self.heads[i]} {mean[i]:+.3g}" for i in np.argsort(-np.abs(mean), kind="stable")[:3])
        total = float(self.total.mean())
        return f"DirectEffects({len(self.heads)} heads on {len(self.values)} prompts; {total:+.3g} logits in all; largest {best})"


@torch.no_grad()
def direct_effects(
    model: Model,
    batch: Inputs,
    metric: Metric | str = logit_difference,
    *,
    toward: Toward | None = None,
    by_source: bool = False,
    edits: Sequence[Edit] = (),
) -> DirectEffects:
    """Direct effect of every head on the answer's logit minus the wrong answer's, or on the sum of logits `toward`.

    batch: prompts as `model.forward` takes them; where they have no answer, the model's first choice is compared with its
    second. by_source: split each head's effect over the tokens that it attends to. edits: changes that the run is made under; heads
    whose z they set have no sources (NaN), and examples are then run all at once. Raises BadInput for a metric that is no sum of
    logits, UnsupportedModel where parts cannot be told apart or do not add up to the metric (to 1e-4 of the largest part
    in float32, 3e-2 in half precision).
    """
    if toward is None:
        metric = find_metric(metric)
        if metric is not logit_difference:
            raise BadInput(
                f"Direct effects are parts of a sum of logits; the {metric.name} is not one.",
                "Choose a task that is measured by the logit difference (such as ioi), or give `toward`.",
            )
        read = prompts_for(model, batch).batch
        toward = Toward.answer(read)
    else:
        read = as_batch(batch, model.tokenizer)
    return effects_along(model, read, [toward], by_source=by_source, edits=edits)[0]


@torch.no_grad()
def effects_along(
    model: Model, batch: Batch, towards: Sequence[Toward], *, by_source: bool = False, edits: Sequence[Edit] = ()
) -> list[DirectEffects]:
    """`direct_effects` on several sums of logits, which are read at the same positions, from one run. Raises as it does."""
    if any(not torch.equal(one.positions, towards[0].positions) for one in towards):
        raise BadInput("Effects from one run are read at the same positions.", "Ask for them one after the other.")
    if bool((towards[0].positions < 0).any()):
        raise BadInput("Some examples have no position at which their logits are read.")
    blocks, start, found = blocks_of(model), 0, []
    for part in [batch] if edits else pieces(batch):  # an edit may speak of all examples
        stop = start + len(part)
        found.append(_piece(model, blocks, part, [one.rows(start, stop) for one in towards], by_source, edits))
        start = stop
    return [_joined(list(one)) for one in zip(*found, strict=True)]


class _Along:
    """What the parts of one run add along the direction of one sum of logits, taken down block after block."""

    def __init__(self, model: Model, toward: Toward) -> None:
        self.model, self.toward = model, toward
        self.direction = logit_direction(model, toward.ids, toward.weights)  # [example, d_model]
        self._heads: dict[LayerKey, Tensor] = {}
        self._sources: dict[LayerKey, Tensor] = {}
        self._others: dict[str, Tensor] = {}
        self._biases: Tensor | float = 0.0

    def attended(self, layer: LayerView, block: Block, read: _Read) -> None:
        """What a layer takes from each source token, before the norm behind it."""
        pull = block.pulled(self.direction[:, None]).squeeze(1)  # [example, head, d_value]
        found = read.rows * torch.einsum("ehkd,ehd->ehk", read.values, pull)
        self._sources[layer.stack, layer.index] = found.masked_fill(~read.own[:, None], torch.nan)

    def wrote(self, writes: Writes) -> None:
        """What a block added."""
        along = lambda x: torch.einsum("end,ed->e", x, self.direction)  # noqa: E731
        if not self._others:
            self._others["embedding"] = along(writes.entry)
        name = "mlp" if writes.z is not None else "block"
        self._others[f"{name} {writes.block.index}"] = along(writes.mlp)
        self._biases = self._biases + along(writes.bias)
        layer = writes.block.attention
        if writes.z is not None and layer is not None:
            place = layer.stack, layer.index
            self._heads[place] = (writes.pull(self.direction[:, None]) * writes.z.float()).sum(-1).squeeze(1)
            if place in self._sources:
                self._sources[place] *= writes.scale

    def effects(self, end: FinalResidual) -> DirectEffects:
        """All of it under the final norm. Raises UnsupportedModel where the parts do not add up."""
        model, toward, layers = self.model, self.toward, [(one.stack, one.index) for one in self.model.layers]
        scale = end.scale[:, 0, 0] * end.factor
        values = torch.cat([self._heads[place] for place in layers], 1) * scale[:, None]
        rest = {name: value * scale for name, value in {**self._others, "attention biases": self._biases}.items()}
        rest["read-out bias"] = end.constant(toward.ids, toward.weights)
        ids, weights = toward.ids.to(end.raw.device), toward.weights.to(end.raw.device)
        total = (end.raw[:, 0].gather(1, ids) * weights).sum(1) * end.factor
        # Where large parts of the stream cancel, their rounding is larger than small logits.
        size = (end.residual[:, 0].abs() * self.direction.abs()).sum(-1) * scale
        _demand_sum(model, values, rest, total, 10 * torch.finfo(torch.float32).eps * size)
        whole = torch.cat([self._sources[place] for place in layers], 1) if self._sources else None
        notes = (
            ()
            if not end.capped
            else ("logits before the model's cap, which bends large ones: effects add up before it",)
        )
        plain = lambda x: x.double().cpu().numpy()  # noqa: E731
        return DirectEffects(
            model.heads, plain(values), {name: plain(value) for name, value in rest.items()}, plain(total),
            plain(whole * scale[:, None, None]) if whole is not None else None, notes,
        )  # fmt: skip


def _piece(
    model: Model,
    blocks: tuple[Block, ...],
    batch: Batch,
    towards: Sequence[Toward],
    by_source: bool,
    edits: Sequence[Edit],
) -> list[DirectEffects]:
    positions, each_way = towards[0].positions[:, None].to(model.device), [_Along(model, one) for one in towards]
    homes = {(one.attention.stack, one.attention.index): one for one in blocks if one.attention is not None}

    put = {head for edit in edits if edit.component == "z" for head in edit.heads}

    def watch(layer: LayerView) -> None:
        if by_source:
            read = _read(layer, positions, put)
            for one in each_way:
                one.attended(layer, homes[layer.stack, layer.index], read)

    def each(writes: Writes) -> None:
        for one in each_way:
            one.wrote(writes)

    end = decompose(model, blocks, batch, positions, each, watch=watch, edits=edits)
    return [one.effects(end) for one in each_way]


class _Read(NamedTuple):
    """What a layer attends to at one position of each example: rows [example, head, key], values [example, head, key, d_value].

    own [head]: whether z comes from it.
    """

    rows: Tensor
    values: Tensor
    own: Tensor


def _read(layer: LayerView, positions: Tensor, put: AbstractSet[HeadId]) -> _Read:
    """A layer's attention at positions [example, 1]; the z of heads of `put` does not come from it."""
    positions = positions.to(layer.z.device)
    example = torch.arange(len(positions), device=positions.device)
    wanted, which = positions.flatten().unique(return_inverse=True)
    rows = layer.rows(wanted)[example, :, which].float()  # [example, head, key]
    values = layer.repeat(layer.v).float()
    z = layer.z[example, positions[:, 0]].float()
    own = torch.tensor([head not in put for head in layer.attention.heads], device=z.device)
    if bool(own.any()):
        demand_plain_sum(layer, torch.einsum("ehk,ehkd->ehd", rows, values)[:, own], z[:, own])
    return _Read(rows, values, own)


def demand_plain_sum(layer: LayerView, summed: Tensor, z: Tensor) -> None:
    """Raise UnsupportedModel unless a layer's z is its attention weights times values, `summed`, of the same shape."""
    limit = 1e-4 if _exact(layer.z.dtype) else 3e-2
    if summed.shape != z.shape or float((summed - z).abs().max()) > limit * float(z.abs().max()):
        raise UnsupportedModel(
            f"The heads of layer {layer.index} ({type(layer.attention.module).__name__}) do not simply add up the values they attend "
            "to, so their writes cannot be split by source token.",
            "Leave the split by source out; headatlas attribute gives whole heads.",
        )


def _exact(dtype: torch.dtype) -> bool:
    """Whether numbers of this type are exact to about seven digits."""
    return dtype in (torch.float32, torch.float64)


def _demand_sum(model: Model, values: Tensor, others: Mapping[str, Tensor], total: Tensor, rounding: Tensor) -> None:
    """Raise UnsupportedModel unless heads [example, head] and other parts [example] add up to total, within rounding [example]."""
    parts = torch.cat([values, torch.stack(list(others.values()), 1)], 1)
    off = (parts.sum(1) - total).abs()
    limit = (1e-4 if _exact(model.dtype) else 3e-2) * torch.maximum(parts.abs().amax(1), total.abs()) + rounding
    if not bool((off <= limit).all()):
        worst = int(off.argmax())
        raise UnsupportedModel(
            f"The parts of {model.architecture} add up to {float(parts[worst].sum()):.4f} logits where the model gives "
            f"{float(total[worst]):.4f}, so its direct effects would be wrong.",
            "Use ablation and patching."
            if _exact(model.dtype)
            else "Load it in float32, or use ablation and patching.",
        )


def _joined(found: list[DirectEffects]) -> DirectEffects:
    """The pieces of a batch as one."""
    sources = [one.by_source for one in found if one.by_source is not None]
    return DirectEffects(
        found[0].heads,
        np.concatenate([one.values for one in found]),
        {name: np.concatenate([one.others[name] for one in found]) for name in found[0].others},
        np.concatenate([one.total for one in found]),
        np.concatenate(sources) if sources else None,
        tuple(dict.fromkeys(note for one in found for note in one.notes)),
    )
