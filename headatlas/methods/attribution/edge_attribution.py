"""Edge attribution patching: an estimate of what every edge between parts carries over from one prompt to another.

Estimate for an edge: (writer's value in the other run - in this one) . d metric / d (reader's input), summed over positions
(Syed et al. 2023). EAP-IG averages the gradient over runs whose embeddings lie between the two prompts' (Hanna et al.
2024, equation 3), here at the middles (k - 1/2) / steps of equal steps. Each reader's gradient is taken back through its
own projections and norm only; that they all add up to the gradient of the block's input is checked in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.engines.allocator import freed_memory_kept
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.attribution.edge_gradients import (
    KINDS,
    Recorded,
    Shortcuts,
    listen_to_projections,
    reader_gradients,
)
from headatlas.methods.attribution.edge_graph import Difference, Graph, both_written
from headatlas.methods.former import former_arguments
from headatlas.methods.prompts import Prompts, prompts_for
from headatlas.methods.sweeps.cached_runs import GB
from headatlas.methods.sweeps.memory_budget import peak_of, show_size
from headatlas.model import Edit, LayerView, Model
from headatlas.model.core.hooks import Args, Kwargs, OwnHooks, own_hooks
from headatlas.model.core.pass_context import Inputs
from headatlas.model.runs.shared_pass import demand_gradients, no_gradient
from headatlas.model.structure.blocks import first, given
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric, logit_difference

if TYPE_CHECKING:
    from headatlas.model.structure.blocks import MLP


@dataclass
class _Tape:
    """An edit that changes nothing and keeps, with gradients, all that readers read and what they make of it.

    entry: [example, pos, d_model] what the first block is given in place of its own input; None for that.
    """

    layers: frozenset[LayerKey]
    entry: Tensor | None
    component: str = "residual"
    heads: tuple[HeadId, ...] = ()
    entries: list[Tensor] = field(default_factory=list)  # each block's input
    arrays: list[dict[str, Tensor]] = field(default_factory=list)  # each block's q, k, v [example, head, pos, d]
    middles: dict[int, Tensor] = field(default_factory=dict)  # what MLPs read, where not the block's input
    mlps: dict[int, Tensor] = field(default_factory=dict)
    end: list[Tensor] = field(default_factory=list)  # the last block's output
    projections: dict[int, dict[nn.Module, tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """The block's input."""
        if not self.entries:
            x = (x if self.entry is None else self.entry.to(x.dtype)).detach().requires_grad_(True)
        self.entries.append(x)
        return x

    def watch(self, layer: LayerView) -> None:
        """Keep q, k and v."""
        self.arrays.append({"q": layer.q, "k": layer.k, "v": layer.v})

    def block(self, index: int) -> Recorded:
        """What was kept of one block."""
        after = self.entries[index + 1] if index + 1 < len(self.entries) else self.end[0]
        return Recorded(
            self.entries[index], after, self.arrays[index], self.projections.get(index, {}), self.middles.get(index), self.mlps[index]
        )  # fmt: skip


@former_arguments()
@torch.enable_grad()
@freed_memory_kept()
def edge_scores(
    model: Model,
    batch: Inputs,
    metric: Metric | str = logit_difference,
    *,
    direction: str = "denoising",
    steps: int | None = None,
    memory: int = 4 * GB,
    graph: Graph | None = None,
    progress: Progress | None = None,
) -> tuple[Graph, Array]:
    """Estimated effect [example, edge] of every edge in `graph.edges()`, in units of the metric.

    batch: prompts as `model.forward` takes them, with counterfactuals. direction: denoising (this run is the
    counterfactual's, values come from the clean prompt) or noising. steps: None for EAP, else the number of runs over which EAP-IG averages. Memory beside the weights stays below `memory` bytes.
    Raises BadInput, UnsupportedModel.
    """
    progress = progress or Silent()
    read = prompts_for(model, Prompts(batch=batch, metric=metric))
    prompts, asked = read.batch, read.metric
    demand_gradients(model)
    if steps is not None and steps < 1:
        raise BadInput(f"EAP-IG cannot average over {steps} steps.", "Give at least 1; 5 is common.")
    graph = graph or Graph(model)
    base, source = sides(prompts, direction)
    longest = prompts.mask.sum(1).argmax(keepdim=True).cpu()
    one, known = _Rows(prompts, base, source, longest), Shortcuts()
    (tape, score), peak = peak_of(lambda: _record(model, graph, asked, one, None), model.hf.parameters())
    size = int(memory / (4 * peak))  # what is recorded, what both runs wrote, and the readers' gradients
    if size < 1:
        raise BadInput(
            f"Edges of one example need about {show_size(4 * peak)}, {show_size(memory)} are allowed.",
            "Allow more with --memory, or use shorter prompts.",
        )
    for _ in _slopes(model, graph, tape, score, memory // 4, known):  # which shortcuts lead to the same, on one example
        pass
    del tape, score
    found, n = [], len(prompts)
    at_once = min(steps or 1, size)  # steps are runs like any others, side by side in one pass
    size //= at_once
    for start in range(0, n, size):
        rows = _Rows(prompts, base, source, torch.arange(start, min(start + size, n)))
        found.append(_Piece(model, graph, asked, rows, memory // 4, known).scores(steps, at_once))
        progress.advance("edges", len(rows.scored), of=n)
    return graph, np.concatenate(found)


def sides(batch: Batch, direction: str) -> tuple[Batch, Batch]:
    """(the prompts that are run, those whose values are put in). Raises BadInput."""
    from headatlas.methods.sweeps.ablation import demand_aligned

    if direction not in ("denoising", "noising"):
        raise BadInput(f"Unknown direction '{direction}'.", "Choose one of denoising, noising.")
    other = batch.counterfactual
    if other is None:
        raise BadInput(
            "Edges are compared between prompts and their counterfactuals.", "Choose a task that has them, such as ioi."
        )
    demand_aligned(batch, other)
    return (other, batch) if direction == "denoising" else (batch, other)


class _Rows:
    """Some examples, at `index` [n]: what is scored, what is run, and where values come from."""

    def __init__(self, batch: Batch, base: Batch, source: Batch, index: Tensor) -> None:
        self.scored, self.base, self.source = batch.rows(index), base.rows(index), source.rows(index)

    def again(self, times: int) -> _Rows:
        """The examples in order, then again, and so on."""
        index = torch.arange(len(self.scored)).repeat(times)
        return self if times == 1 else _Rows(self.scored, self.base, self.source, index)


@dataclass
class _Piece:
    """Some examples whose edges are scored together; readers' gradients take up to `memory` bytes at once."""

    model: Model
    graph: Graph
    metric: Metric
    rows: _Rows
    memory: int
    known: Shortcuts

    def scores(self, steps: int | None, at_once: int) -> Array:
        """Estimated effects [example, edge], the gradients averaged over `steps` runs between the prompts, `at_once` in one pass."""
        graph, n = self.graph, len(self.rows.scored)
        base, source = both_written(self.model, graph, self.rows.base, self.rows.source)
        change = Difference(graph, base, source)
        total = torch.zeros(n, len(graph.writers), len(graph.readers))
        if steps is None:
            parts: list[Tensor | None] = [None]
        else:
            shares = (torch.arange(steps) + 0.5) / steps
            parts = [part.to(base.entry)[:, None, None, None] for part in shares.split(at_once)]
        small = base.entry.numel() * len(graph.readers) * 4 <= self.memory and len(parts) > 1
        mean: Tensor | None = None
        for part in parts:
            entry = None if part is None else (base.entry + part * (source.entry - base.entry)).flatten(0, 1)
            tape, score = _record(
                self.model, graph, self.metric, self.rows.again(1 if part is None else len(part)), entry
            )
            found = _slopes(self.model, graph, tape, score, self.memory, self.known, n)
            if not small:
                for first_reader, slopes in found:
                    _contract(graph, change, first_reader, slopes / (steps or 1), total)
                continue
            # Scores are linear in the gradients: with room for all of them their mean is taken first, and multiplied once.
            whole = torch.cat([slopes for _, slopes in found][::-1], 1)
            mean = whole if mean is None else mean.add_(whole)
        if mean is not None:
            _contract(graph, change, 0, mean / (steps or 1), total)
        pairs = torch.tensor(graph.edges())
        result: Array = total[:, pairs[:, 0], pairs[:, 1]].double().numpy()
        return result


def _slopes(
    model: Model, graph: Graph, tape: _Tape, score: Tensor, memory: int, known: Shortcuts, n: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """(number of the first reader, [example, reader, pos, d_model] gradients by what readers read), last blocks first, in pieces of `memory` bytes.

    n: examples; where the run holds them several times, the gradients are summed over these.
    """
    blocks = range(len(graph.blocks))
    wanted = [*tape.entries, *tape.end, *(x for x in tape.middles.values() if x.requires_grad)]
    wanted += [tape.arrays[i][kind] for i in blocks for kind in KINDS] + [tape.mlps[i] for i in blocks]
    slopes = torch.autograd.grad(score, wanted, retain_graph=True, allow_unused=True)
    slope = {id(x): torch.zeros_like(x) if g is None else g for x, g in zip(wanted, slopes, strict=True)}
    held = [slope[id(tape.end[0])].float().unflatten(0, (-1, n)).sum(0).unsqueeze(1)]
    first_reader = len(graph.readers) - 1
    for index in reversed(blocks):
        layer = graph.blocks[index].attention
        assert layer is not None
        felt = reader_gradients(model, layer, tape.block(index), slope, known).unflatten(0, (-1, n)).sum(0)
        held.insert(0, felt)
        first_reader -= felt.shape[1]
        if index == 0 or sum(x.numel() * 4 for x in held) > memory:
            yield first_reader, torch.cat(held, 1)
            held = []


@torch.no_grad()
def _contract(graph: Graph, change: Difference, first_reader: int, slopes: Tensor, result: Tensor) -> None:
    """Add the scores of all edges into some readers, in order from one on, whose gradients are slopes [example, reader, pos, d_model]."""
    felt = slopes.flatten(2)  # [example, reader, pos x d_model]
    last = graph.readers[first_reader + felt.shape[1] - 1].block
    for index in range(-1, min(last, len(graph.blocks) - 1) + 1):
        mine = [i for i, writer in enumerate(graph.writers) if writer.block == index]
        skip = sum(reader.block < index for reader in graph.readers[first_reader : first_reader + felt.shape[1]])
        moved = change.block(index).transpose(1, 2).flatten(2)  # [example, writer, pos x d_model]
        found = torch.bmm(moved, felt[:, skip:].transpose(1, 2)).cpu()
        result[:, mine[0] : mine[-1] + 1, first_reader + skip : first_reader + felt.shape[1]] += found


def _record(model: Model, graph: Graph, metric: Metric, rows: _Rows, entry: Tensor | None) -> tuple[_Tape, Tensor]:
    """One run with gradients: all that was read, and the metric summed over examples."""
    tape = _Tape(frozenset((layer.stack, layer.index) for layer in model.layers), entry)
    positions, edits = metric.positions(rows.scored), [tape]
    with own_hooks() as hooks:
        listen_to_projections(hooks, model.layers, tape.projections)
        for block in graph.blocks:
            assert block.mlp is not None
            _listen(hooks, tape, block.index, block.mlp)
        hooks.after(graph.blocks[-1].module, lambda _, __, ___, output: tape.end.append(first(output)))
        logits = model.forward(
            rows.base, watch=tape.watch, edits=_as_edits(edits), logit_positions=positions, grad=True
        )
    score = metric.score(logits.cpu(), rows.scored).sum()
    if not score.requires_grad:
        raise no_gradient(model)
    return tape, score


def _as_edits(tapes: list[_Tape]) -> list[Edit]:
    return list(tapes)


def _listen(hooks: OwnHooks, tape: _Tape, index: int, mlp: MLP) -> None:
    """Keep what an MLP reads and gives."""

    def read(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
        tape.middles.setdefault(index, given(args, kwargs))

    def gave(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> Any:
        tape.mlps[index] = first(output)
        fresh = first(output).clone()  # some blocks go on to add in place
        return (fresh, *output[1:]) if isinstance(output, tuple) else fresh

    hooks.after(mlp.post or mlp.module, gave)
    if mlp.reader is not None:
        hooks.before(mlp.reader, read)
