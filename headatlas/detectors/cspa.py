"""How much of what a head does to predictions is copy suppression: all else of it is taken away, and the prediction compared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.edits.collect import pieces
from headatlas.heads import HeadId
from headatlas.methods.weights.copying import lowered
from headatlas.methods.weights.qk_ov import readout, to_logits
from headatlas.model import LayerView, Model
from headatlas.model.runs.residual_stream import Writes, logit_direction, taking_apart
from headatlas.model.runs.shared_pass import Alongside, Watch, alone
from headatlas.model.structure.blocks import Block, blocks_of
from headatlas.ops import weights
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, next_token_loss
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
    one = _Suppression(model, batch, _suppressing(model, batch))
    found: Measured = alone(model, pieces(batch) if one.asked else [], one)
    return found


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return _Suppression(model, batch, _suppressing(model, batch))


class _Suppression:
    """The scores from passes over a batch's parts."""

    slopes = False

    def __init__(self, model: Model, batch: Batch, asked: list[HeadId]) -> None:
        self.model, self.batch, self.asked, self.seen = model, batch, asked, list[_Seen]()
        self.metric = next_token_loss if asked else None  # it reads the run at some of the tokens that predict
        self.blocks: tuple[Block, ...] = ()
        self.ending: Callable[[Tensor], _Seen] | None = None  # of the part that is read now

    @contextlib.contextmanager
    def looking(self, part: Batch) -> Iterator[Watch]:
        if not self.asked:
            yield lambda _: None
            return
        self.blocks = self.blocks or blocks_of(self.model)
        with _reading(self.model, self.blocks, part, self.asked) as (watch, self.ending):
            yield watch

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        if self.ending is not None:
            self.seen.append(self.ending(logits))
            self.ending = None

    def measured(self) -> Measured:
        model, batch, asked, seen = self.model, self.batch, self.asked, self.seen
        values, control = (torch.zeros(len(batch), len(model.heads), dtype=torch.float64) for _ in range(2))
        if not asked:
            return Measured(values, control)
        tokens = int(batch.mask.sum())
        mean_z = {at: (torch.stack([one.sums[at] for one in seen]).sum(0) / tokens).float() for at in seen[0].sums}
        found = torch.cat([_divergences(model, one, asked, mean_z) for one in seen])  # [example, head, 3]
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


class _Layer(NamedTuple):
    """What a layer's heads read and wrote at n places of each example.

    rows: [example, head, n, key] attention. along: [2, example, head, key] each key's value along its token's unembedding, and
    along that of the token it is exchanged with. z: [example, n, head, d_value]. scale: [example, n, 1] of the norm behind the
    attention. leading: [2, example, n, key] 1 for tokens that lead where the layer reads.
    """

    block: Block
    rows: Tensor
    along: Tensor
    z: Tensor
    scale: Tensor
    leading: Tensor


class _Seen(NamedTuple):
    """One run: directions [2, example, key, d_model] of length 1, the end of the stream [example, n, d_model], the logits' factor.

    sums: (stack, layer) -> [head, d_value] of z over all tokens, in double precision.
    """

    unit: Tensor
    end: Tensor
    factor: float
    sums: dict[LayerKey, Tensor]
    layers: dict[LayerKey, _Layer]


@contextlib.contextmanager
def _reading(
    model: Model, blocks: tuple[Block, ...], batch: Batch, heads: list[HeadId]
) -> Iterator[tuple[Watch, Callable[[Tensor], _Seen]]]:
    """What must watch a run on some examples, and what makes of its logits what heads and their layers read and wrote there."""
    predict = batch.positions["predict"]
    picked = torch.from_numpy(np.linspace(0, predict.shape[1] - 1, PLACES).astype(int))
    places = predict[:, picked].to(model.device)
    tokens = torch.stack([batch.tokens, batch.tokens.roll(batch.tokens.shape[1] // 2, 1)]).to(model.device)
    toward = logit_direction(model, tokens.reshape(-1, 1), torch.ones(tokens.numel(), 1))
    unit = torch.nn.functional.normalize(toward, dim=-1).unflatten(0, tokens.shape)
    matrix, _ = readout(model)
    mask = batch.mask.to(model.device)
    homes = {(one.attention.stack, one.attention.index): one for one in blocks if one.attention is not None}
    wanted = {(head.stack, head.layer) for head in heads}
    sums: dict[LayerKey, Tensor] = {}
    read: dict[LayerKey, tuple[Tensor, Tensor]] = {}
    layers: dict[LayerKey, _Layer] = {}

    def watch(layer: LayerView) -> None:
        place = (layer.stack, layer.index)
        if place in wanted:
            values = layer.repeat(layer.v).float()
            along = [torch.einsum("ehkd,ekhd->ehk", values, homes[place].pulled(one)) for one in unit]
            sums[place] = torch.einsum("et,ethd->hd", mask.double(), layer.z.double())
            read[place] = layer.rows(places).float(), torch.stack(along)

    def each(writes: Writes) -> None:
        layer = writes.block.attention
        if layer is None or writes.z is None or (layer.stack, layer.index) not in wanted:
            return
        place, entry = (layer.stack, layer.index), to_logits(model, writes.entry)
        leading = torch.stack([_leading(entry, matrix[:, said], mask, places) for said in tokens])
        layers[place] = _Layer(writes.block, *read[place], writes.z.float(), writes.scale, leading)

    with taking_apart(model, blocks, places, each) as (look, ending):

        def both(layer: LayerView) -> None:
            look(layer)
            watch(layer)

        def seen(logits: Tensor) -> _Seen:
            end = ending(logits, picked)
            return _Seen(unit, end.residual, end.factor, sums, layers)

        yield both, seen


def _changes(seen: _Seen, layer: _Layer, mean: Tensor) -> Tensor:
    """[3, example, n, head, d_model] what the mean z, [head, d_value], puts in place of a write: alone, and with suppression kept."""
    weight = layer.block.weight.float()
    gone = layer.block.carried(torch.einsum("enhv,hvm->enhm", mean - layer.z, weight)) * layer.scale[:, :, None]
    constant = layer.block.carried(
        torch.einsum("hv,hvm->hm", mean, weight)
    )  # what the mean writes, which counts as nothing read
    found = [gone]
    for one, along, leading in zip(seen.unit, layer.along, layer.leading, strict=True):
        lowering = (along - torch.einsum("ekm,hm->ehk", one, constant)).clamp(max=0.0)
        share = layer.rows * leading[:, None] * lowering[:, :, None] * layer.scale[:, None]
        found.append(gone + torch.einsum("ehnk,ekm->enhm", share, one))
    return torch.stack(found)


@torch.no_grad()
def _divergences(model: Model, seen: _Seen, heads: list[HeadId], mean_z: dict[LayerKey, Tensor]) -> Tensor:
    """[example, head, 3] KL(clean || ablated) by the mean, preserving suppression, and preserving it of exchanged tokens."""
    matrix, bias = readout(model)
    changes = {place: _changes(seen, layer, mean_z[place]) for place, layer in seen.layers.items()}
    clean = to_logits(model, seen.end)
    chances = ((clean @ matrix if bias is None else clean @ matrix + bias) * seen.factor).softmax(-1)
    expected = chances @ matrix.T  # [example, n, d_model] the unembedding of what is predicted
    found = torch.zeros(len(seen.end), len(heads), 3, dtype=torch.float64)
    for i, head in enumerate(heads):
        change = changes[head.stack, head.layer][:, :, :, head.head]
        moved = (to_logits(model, seen.end + change) - clean) * seen.factor  # bias left out: logits move linearly
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
