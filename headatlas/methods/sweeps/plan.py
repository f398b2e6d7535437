"""What a sweep changes and measures, and where its finished pieces are kept: what all sweeps over heads have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headatlas.edits.base import OnHeads, token_stack
from headatlas.errors import BadInput
from headatlas.heads import HeadId, HeadSets, parse_head_sets
from headatlas.methods.sweeps.effects import HeadSet
from headatlas.methods.sweeps.memory_budget import peak_of
from headatlas.model import Model
from headatlas.model.runs.cached_run import cache_run
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric

if TYPE_CHECKING:
    from headatlas.model.core.forward_pass import Edit

Make = Callable[[HeadSet, Tensor | None], Sequence["Edit"]]  # the edits of one change: which heads, at which positions
Prepare = Callable[[slice], Make]  # the same for some examples of the batch


class ChunkStore(Protocol):
    """Where finished pieces are kept, so that an interrupted sweep goes on from there."""

    def get(self, name: str) -> Array | None: ...  # noqa: D102
    def put(self, name: str, values: Array) -> None: ...  # noqa: D102


class NoStore:
    """Keeps nothing."""

    def get(self, name: str) -> Array | None:
        """Nothing is known."""
        return None

    def put(self, name: str, values: Array) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Sweep:
    """What to change and measure.

    head_sets: heads that change together. positions: name -> positions [example or 1, n] of each change, None for all.
    prepare: how to make the edits for some examples. run_on: the prompts to run if not the batch's own (denoising).
    """

    kind: str
    batch: Batch
    metric: Metric
    head_sets: tuple[HeadSet, ...]
    positions: Mapping[str, Tensor | None]
    component: str
    prepare: Prepare
    run_on: Batch | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def side_of(batch: Batch, head_sets: Sequence[HeadSet], component: str, positions: str) -> Batch:
    """The batch as the stack counts it whose tokens the heads' component belongs to. Raises BadInput where it is not one stack."""
    if batch.encoder is None or positions == "all":
        return batch
    stacks = {token_stack(head.stack, component) for head_set in head_sets for head in head_set}
    if len(stacks) > 1:
        raise BadInput(
            f"Encoder and decoder count positions apart, so '{positions}' is not one place for heads of both.",
            "Name heads of one stack, such as --heads encoder:0.1, or take all positions.",
        )
    return batch.side(next(iter(stacks), "decoder"))


def positions_of(batch: Batch, positions: str) -> dict[str, Tensor | None]:
    """Where each change acts: "all" at once, "each" position on its own, or a named position of the batch such as "end"."""
    if positions == "all":
        return {"all": None}
    if positions == "each":
        last = int(batch.mask.any(0).nonzero().max())
        return {str(i): torch.tensor([[i]]) for i in range(last + 1)}
    if positions not in batch.positions:
        known = ", ".join(["all", "each", *sorted(batch.positions)])
        raise BadInput(f"These prompts have no position '{positions}'.", f"Choose one of {known}.")
    value = batch.positions[positions]
    if bool((value < 0).all()):
        raise BadInput(f"No example has a position '{positions}' in this stack.", "Choose another, or all.")
    return {positions: value.reshape(len(batch), -1)}


def head_sets_for(model: Model, heads: HeadSets | None, component: str) -> tuple[HeadSet, ...]:
    """One head_set per head, or per KV group where keys or values are changed; sets of heads as given.

    heads: see `headatlas.heads.parse_head_sets`; None is every head. Raises BadInput.
    """
    head_sets = parse_head_sets(model.heads if heads is None else heads, model.heads)
    model.require([head for head_set in head_sets for head in head_set])
    if component not in ("k", "v"):
        return head_sets
    grouped = []
    for head_set in head_sets:
        for head in head_set:
            layer = model.layer(head.layer, head.stack)
            size = layer.n_heads // layer.n_groups
            first = head.head // size * size
            grouped.append(tuple(HeadId(head.layer, first + i, head.stack) for i in range(size)))
    return tuple(dict.fromkeys(grouped))


def metric_of(
    model: Model, batch: Batch, metric: Metric, *, run_on: Batch | None = None, edits: Sequence[OnHeads] = ()
) -> Array:
    """[example] the metric on a batch; run_on: other prompts of the same shape, run in its place; edits: in force meanwhile."""
    return metrics_of(model, batch, [metric], run_on=run_on, edits=edits)[0]


def metrics_of(
    model: Model,
    batch: Batch,
    metrics: Sequence[Metric],
    *,
    run_on: Batch | None = None,
    edits: Sequence[OnHeads] = (),
) -> list[Array]:
    """[example] of each metric, as `metric_of` has it, from one run: they must read logits at the same positions. Raises BadInput."""
    prompts = run_on if run_on is not None else batch
    places = metrics[0].positions(batch)
    if any(not torch.equal(one.positions(batch), places) for one in metrics[1:]):
        raise BadInput("Metrics that read logits at different positions cannot share a run.", "Ask for each alone.")
    asked = places.shape[1]  # logits of the whole vocabulary there, a quarter of a gigabyte at once
    size = max(1, min(4096 // batch.tokens.shape[1], (1 << 26) // (asked * max(model.vocabulary_size, 1))))
    scores: list[list[Array]] = [[] for _ in metrics]
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        part, mine = batch.rows(rows), [edit.rows(rows) for edit in edits]
        logits = model.forward(prompts.rows(rows), edits=mine, logit_positions=metrics[0].positions(part)).cpu()
        for metric, found in zip(metrics, scores, strict=True):
            found.append(metric.score(logits, part).double().numpy())
    return [metric.settled(np.concatenate(found), batch) for metric, found in zip(metrics, scores, strict=True)]


def examples_at_once(model: Model, sweep: Sweep, memory: int) -> int:
    """How many examples are swept together, judged by what one longest example takes."""
    batch = sweep.batch
    longest = int(batch.mask.sum(1).argmax())
    one = replace(batch.rows([longest]), control=None, counterfactual=None)
    positions = sweep.metric.positions(one)

    def kept_run() -> object:
        return (
            cache_run(model, one, logit_positions=positions)
            if model.restarts
            else model.forward(one, logit_positions=positions)
        )

    _, peak = peak_of(kept_run, model.hf.parameters())
    # Twice: the kept run, and values of another run or a pass of changed runs beside it.
    return max(1, min(len(batch), int(memory / (2.5 * peak))))
