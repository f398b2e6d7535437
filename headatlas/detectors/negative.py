"""Heads that attend to the word No rather than Yes when a question is to be answered with one of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.edits import Swap
from headatlas.methods.direct_logit_attribution import demand_plain_sum
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.model import LayerView, Model
from headatlas.ops.patterns import mean_of, where_queries
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, Metric
from headatlas.tasks.yes_no import yes_no

PAIRS = 4  # of random words an example: the largest of n leans is exceeded by luck about once in 2 n heads
TINY = 1e-9  # keeps the logarithm finite where a head attends to neither word


@model_detector(head_type="negative-head", task=yes_no, version=2, minimum_effect=0.05)
def negative(model: Model, batch: Batch) -> Measured:
    """Lean of attention to "No" over "Yes" in the instruction: 0 both alike, 1 such as half of all attention at 8 to 1.

    Formula: mean over the tokens after both words of (A[i, yes] + A[i, no]) log(A[i, no] / A[i, yes]), in nats (negative
    attention score, Yu et al. 2024, whose sum over tokens would grow with the prompt), averaged over both orders of the
    words, so that looking at the nearer one cancels. Below 0: Yes is preferred. Chance: the largest lean, to either side,
    that the head has between two random words in the places of the two, four pairs an example: any head that matches contents
    prefers one of two words. A twentieth of the attention at 3 to 1 beyond that is the least that counts.
    """
    places = torch.stack([batch.positions["yes"], batch.positions["no"]], 1)
    said = batch.tokens.gather(1, places)
    strange = torch.stack([_lean(model, batch, places, words) for words in _strangers(model, batch)])
    largest = strange.abs().amax((0, 1))
    return Measured(_lean(model, batch, places, said), largest.expand(len(batch), -1))


def _lean(model: Model, batch: Batch, places: Tensor, words: Tensor) -> Tensor:
    """[example, head] lean from words[:, 0] to words[:, 1], which stand at places [example, 2] in either order."""
    orders = [
        _score(model, replace(batch, tokens=batch.tokens.scatter(1, places, words[:, order]), control=None, counterfactual=None),
               places[:, order])
        for order in ([0, 1], [1, 0])
    ]  # fmt: skip
    return torch.stack(orders).mean(0)


def _score(model: Model, batch: Batch, keys: Tensor) -> Tensor:
    """[example, head] lean from the token at keys[:, 0] to that at keys[:, 1]."""
    found: list[Tensor] = []

    def watch(layer: LayerView) -> None:
        first, second = layer.columns(keys.to(layer.q.device)).float().unbind(-1)  # [example, head, query]
        lean = (first + second) * ((second + TINY) / (first + TINY)).log()
        after = layer.valid_queries & (torch.arange(layer.n_queries) > keys.amax(1, keepdim=True)).to(layer.q.device)
        found.append(mean_of(where_queries(lean, after)).cpu())

    model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    return torch.cat(found, 1)


def _strangers(model: Model, batch: Batch) -> Tensor:
    """[PAIRS, example, 2] pairs of different frequent words for each example, none that the batch uses itself."""
    plain = model.tokenizer.plain_ids()
    used = set(batch.tokens.unique().tolist())
    starts = [one for one, start in zip(plain, model.tokenizer.word_starts(plain), strict=True) if start]
    free = torch.tensor([one for one in starts if one not in used][:2000])
    order = torch.rand(
        PAIRS, len(batch), len(free), generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).argsort(-1)
    return free[order[..., :2]]


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """The heads attend to both words alike, judged by how far the answer moves away from No: z + sum of (m - A[i, w]) v[w].

    w are the two words, m the mean of what they get, i the tokens after both. A head that leans to No whatever is asked
    gives the same on any other question, and so would not be missed in a resample ablation. Right answers are Yes and No in
    equal parts, so what a lean costs one half it gives the other: the metric is counted for No on every question.
    """

    def toward_no(logits: Tensor, part: Batch) -> Tensor:
        return metric.score(logits, part) * torch.where(part.labels["yes"] == 1, -1.0, 1.0)

    values, after = _evened(model, batch)
    return SetAblation(
        model,
        batch,
        replace(metric, name="No over Yes", score=toward_no),
        lambda heads: Swap(heads, values, positions=after),
    )


@torch.no_grad()
def _evened(model: Model, batch: Batch) -> tuple[dict[LayerKey, Tensor], Tensor]:
    """(stack, layer) -> [example, pos, head, d_value] z of heads that give both words the mean of what these get; where: -1 for no change."""
    words = torch.stack([batch.positions["yes"], batch.positions["no"]], 1)
    values: dict[LayerKey, Tensor] = {}

    def watch(layer: LayerView) -> None:
        each, at, end = (x.to(layer.q.device) for x in (torch.arange(len(batch)), words, batch.positions["end"]))
        v, z = (
            layer.repeat(layer.v).float(),
            layer.z.float(),
        )  # [example, head, key, d_value], [example, pos, head, d_value]
        rows = layer.rows(end[:, None]).float()
        demand_plain_sum(layer, torch.einsum("ehqk,ehkd->ehqd", rows, v), z[each, end][:, :, None])
        given = layer.columns(at).float()  # [example, head, query, word]
        read = v.gather(2, at[:, None, :, None].expand(-1, v.shape[1], -1, v.shape[3]))
        moved = torch.einsum("ehqw,ehwd->eqhd", given.mean(-1, keepdim=True) - given, read)
        values[layer.stack, layer.index] = z + moved

    model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    columns = torch.arange(batch.tokens.shape[1]).expand(len(batch), -1)
    return values, torch.where((columns > words.amax(1, keepdim=True)) & batch.mask, columns, -1)
