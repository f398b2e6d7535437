"""How much of what a head does to predictions is copy suppression: all else of it is taken away, and the prediction compared."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.edits import OnHeads
from headatlas.edits.collect import means, pieces
from headatlas.heads import HeadId
from headatlas.methods.weights.copying import lowered
from headatlas.methods.weights.qk_ov import readout, to_logits
from headatlas.model import LayerView, Model
from headatlas.model.runs.residual_stream import Writes, decompose, logit_direction
from headatlas.model.structure.blocks import blocks_of
from headatlas.ops import weights
from headatlas.ops.types import LayerKey
from headatlas.task import Batch
from headatlas.tasks.prose import prose

PLACES = 6  # of each text at which predictions are compared
LEADING = 0.05  # of the tokens so far, those most predicted, are what the head may still suppress
ASKED = 48  # of the texts' tokens, spread over their ids: each takes a product of every head with the whole vocabulary
COLUMNS = 1024  # of the vocabulary whose logits exist at once
LOWEST, SUPPRESSING = 10, 0.1  # a head that lowers a tenth of the words among its 10 lowest is asked; others score 0


@model_detector(head_type="copy-suppression-head", task=prose, version=1, minimum_effect=0.1, needs=("unembedding",))
def cspa(model: Model, batch: Batch) -> Measured:
    """Share of a head's effect on the prediction that copy suppression alone has: 0 none, 1 all of it.

    Formula: 1 - D(preserving) / D(mean), of means over 6 places a text: D is the divergence KL(clean || ablated) of the prediction when
    the head's direct write is its mean over the texts, and when of what it reads at each token s only this is kept beside the
    mean: for the 5% of the tokens so far that are most predicted where the head reads (logit lens), the part along the unembedding of s, if
    it lowers s (copy suppression-preserving ablation, McDougall et al. 2023). Heads that lower fewer than a tenth of 48
    of the texts' tokens among their 10 lowest, by their weights, score 0. Chance: the same with the unembeddings of the tokens
    exchanged within the text. Differs: later layers keep what they had, as in the paper; 192 places in place of a corpus.
    """
    asked = _suppressing(model, batch)
    values, control = (torch.zeros(len(batch), len(model.heads), dtype=torch.float64) for _ in range(2))
    if not asked:
        return Measured(values, control)
    mean_z = {place: found[0] for place, found in means(model, batch, OnHeads(model.heads))[1].items()}
    found = torch.cat([_divergences(model, part, asked, mean_z) for part in pieces(batch)])  # [example, head, 3]
    whole = found[..., 0].mean(0).clamp(min=1e-12)
    columns = [model.heads.index(head) for head in asked]
    values[:, columns] = (found[..., 0] - found[..., 1]) / whole
    control[:, columns] = (found[..., 0] - found[..., 2]) / whole
    return Measured(values, control)


def _suppressing(model: Model, batch: Batch) -> list[HeadId]:
    tokens = batch.tokens[batch.mask].unique()
    tokens = tokens[torch.linspace(0, len(tokens) - 1, min(ASKED, len(tokens))).round().long()]
    shares = lowered(model, tokens, LOWEST).double().mean(0)
    return [head for head, share in zip(model.heads, shares.tolist(), strict=True) if share >= SUPPRESSING]


class _Read(NamedTuple):
    """What a layer's heads read: rows [example, head, n, key], lowering [2, example, head, key] along tokens' own and others' unembeddings."""

    rows: Tensor
    lowering: Tensor


def _divergences(model: Model, batch: Batch, heads: list[HeadId], mean_z: dict[LayerKey, Tensor]) -> Tensor:
    """[example, head, 3] KL(clean || ablated) by the mean, preserving suppression, and preserving it of exchanged tokens."""
    predict = batch.positions["predict"]
    places = predict[:, np.linspace(0, predict.shape[1] - 1, PLACES).astype(int)].to(model.device)
    tokens = torch.stack([batch.tokens, batch.tokens.roll(batch.tokens.shape[1] // 2, 1)]).to(model.device)
    along = logit_direction(model, tokens.reshape(-1, 1), torch.ones(tokens.numel(), 1))
    unit = torch.nn.functional.normalize(along, dim=-1).unflatten(0, tokens.shape)  # [2, example, key, d_model]
    matrix, bias = readout(model)
    blocks = blocks_of(model)
    homes = {(one.attention.stack, one.attention.index): one for one in blocks if one.attention is not None}
    wanted = {(head.stack, head.layer) for head in heads}
    reads: dict[LayerKey, _Read] = {}
    changes: dict[LayerKey, tuple[Tensor, Tensor, Tensor]] = {}

    def watch(layer: LayerView) -> None:
        place = (layer.stack, layer.index)
        if place in wanted:
            beyond = layer.repeat(layer.v).float() - mean_z[place][None, :, None]
            lowering = [torch.einsum("ehkd,ekhd->ehk", beyond, homes[place].pulled(one)).clamp(max=0.0) for one in unit]
            reads[place] = _Read(layer.rows(places).float(), torch.stack(lowering))

    def each(writes: Writes) -> None:
        layer = writes.block.attention
        if layer is None or writes.z is None or (layer.stack, layer.index) not in wanted:
            return
        place = (layer.stack, layer.index)
        moved = torch.einsum("enhv,hvm->enhm", mean_z[place] - writes.z.float(), writes.block.weight.float())
        gone = writes.block.carried(moved) * writes.scale[:, :, None]
        kept = []
        for said, one, lowering in zip(tokens, unit, reads[place].lowering, strict=True):
            leading = _leading(to_logits(model, writes.entry), matrix[:, said], batch.mask.to(places.device), places)
            share = reads[place].rows * leading[:, None] * lowering[:, :, None] * writes.scale[:, None]
            kept.append(torch.einsum("ehnk,ekm->enhm", share, one))
        changes[place] = (gone, gone + kept[0], gone + kept[1])

    end = decompose(model, blocks, batch, places, each, watch=watch)

    clean = to_logits(model, end.residual)
    chances = ((clean @ matrix if bias is None else clean @ matrix + bias) * end.factor).softmax(-1)
    expected = chances @ matrix.T  # [example, n, d_model] the unembedding of what is predicted
    found = torch.zeros(len(batch), len(heads), 3, dtype=torch.float64)
    for i, head in enumerate(heads):
        change = torch.stack([one[:, :, head.head] for one in changes[head.stack, head.layer]])
        moved = (to_logits(model, end.residual + change) - clean) * end.factor  # bias left out: logits move linearly
        found[:, i] = _divergence(chances, matrix, moved, (moved * expected).sum(-1)).mean(-1).T.double().cpu()
    return found


def _divergence(chances: Tensor, matrix: Tensor, moved: Tensor, mean: Tensor) -> Tensor:
    """[..., n] KL of chances [n, token] from those when what is read from `matrix` moved by [..., n, d_model].

    With d the change of the logits and m = E[d] under chances it is log E[exp(d)] - m = log(1 + E[exp(d - m) - 1]), where nothing
    cancels that is much larger than what is left. A part of the vocabulary at a time stays in the processor's cache.
    """
    excess = torch.zeros_like(mean)
    for part in weights.pieces(matrix.shape[1], COLUMNS):
        excess += (chances[..., part] * torch.expm1(moved @ matrix[:, part] - mean[..., None])).sum(-1)
    return excess.log1p()


def _leading(stream: Tensor, columns: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    """[example, n, key] 1 for the LEADING share of the tokens up to each place that the stream there predicts most.

    stream: [example, n, d_model] scaled as the final norm would; columns: [d_model, example, key] of the keys' tokens.
    """
    logits = torch.einsum("enm,mek->enk", stream, columns)
    seen = mask[:, None] & (torch.arange(mask.shape[1], device=mask.device) <= places[..., None])
    order = logits.masked_fill(~seen, -torch.inf).argsort(-1, descending=True).argsort(-1)
    most = torch.tensor([[math.ceil(LEADING * n) for n in row] for row in seen.sum(-1).tolist()], device=mask.device)
    return ((order < most[..., None]) & seen).float()
