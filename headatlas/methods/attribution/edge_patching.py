"""What single edges really carry: one reader is given another run's value of one writer, everything after it is computed.

The stream that the reader reads is its own plus (writer's value in the other run - in this one), at all positions; other
readers see the stream as it was (path patching with everything downstream recomputed; Goldowsky-Dill et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.heads import HeadId
from headatlas.methods.attribution.edge_attribution import sides
from headatlas.methods.attribution.edge_graph import Difference, Graph, Reader, written
from headatlas.model import Edit, LayerView, Model
from headatlas.model.core.hooks import Args, Kwargs, own_hooks
from headatlas.model.structure.blocks import Block, first, given
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric

CHUNK = 4096  # tokens a pass


class _Change:
    """An edit of one component of one layer: the whole of it, or one head (group) of it."""

    heads: tuple[HeadId, ...] = ()

    def __init__(self, block: Block, component: str, change: Callable[[Tensor], Tensor]) -> None:
        assert block.attention is not None
        self.component, self.layers, self.change = (
            component,
            frozenset([(block.attention.stack, block.attention.index)]),
            change,
        )

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        return self.change(x)


@torch.no_grad()
def edge_effects(
    model: Model,
    batch: Batch,
    metric: Metric,
    graph: Graph,
    edges: Sequence[tuple[int, int]],
    *,
    direction: str = "denoising",
    progress: Progress | None = None,
) -> Array:
    """[example, edge] change of the metric when each edge alone carries the other run's value. Raises UnsupportedModel."""
    base, source = sides(batch, direction)
    progress = progress or Silent()
    size = max(1, CHUNK // batch.tokens.shape[1])
    pieces = len(range(0, len(batch), size))
    found = np.zeros((len(batch), len(edges)))
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        scored, ran = batch.rows(rows), base.rows(rows)
        change = Difference(graph, written(model, graph, ran), written(model, graph, source.rows(rows)))
        run = _Run(model, graph, metric, scored, ran)
        unchanged = run.score()
        for j, (i, k) in enumerate(edges):
            shift = change.of(graph.writers[i])
            found[rows, j] = run.read(graph.readers[k], shift) - unchanged
            progress.advance("edges", of=len(edges) * pieces)
    return found


class _Run:
    """Runs of the same prompts in which one reader reads something else."""

    def __init__(self, model: Model, graph: Graph, metric: Metric, scored: Batch, ran: Batch) -> None:
        self.model, self.graph, self.metric, self.scored, self.ran = model, graph, metric, scored, ran
        self.positions = metric.positions(scored)

    def score(self, edits: Sequence[Edit] = (), watch: Callable[[LayerView], None] | None = None) -> Array:
        """The metric [example] of a run under edits."""
        logits = self.model.forward(self.ran, edits=edits, watch=watch, logit_positions=self.positions)
        score: Array = self.metric.score(logits.cpu(), self.scored).double().numpy()
        return score

    def read(self, reader: Reader, shift: Tensor) -> Array:
        """The metric [example] when the reader reads its stream plus shift [example, pos, d_model]."""
        if reader.kind == "logits":
            return self._given(self.graph.blocks[-1].module, lambda x: x + shift.to(x.dtype))
        block = self.graph.blocks[reader.block]
        assert block.mlp is not None
        added = _Change(block, "residual", lambda x: x + shift.to(x.dtype))
        if reader.kind != "mlp":
            value = self._seen(reader, added)
            return self.score([_Change(block, reader.kind, _put(value, reader.number))])
        if block.mlp.reader is not None:
            with own_hooks() as hooks:
                hooks.before(block.mlp.reader, _incoming(shift))
                return self.score()
        kept: list[Tensor] = []
        module = block.mlp.post or block.mlp.module
        with own_hooks() as hooks:
            hooks.after(module, lambda _, __, ___, output: kept.append(first(output).clone()))
            self.score([added])
        return self._given(module, lambda _: kept[0])

    def _given(self, module: nn.Module, change: Callable[[Tensor], Tensor]) -> Array:
        """The metric [example] when what a module gives is changed."""
        with own_hooks() as hooks:
            hooks.after(module, _outgoing(change))
            return self.score()

    def _seen(self, reader: Reader, added: _Change) -> Tensor:
        """The reader's q, k or v [example, head, pos, d] when its whole block reads the changed stream."""
        kept: list[Tensor] = []

        def watch(layer: LayerView) -> None:
            if (layer.stack, layer.index) in added.layers:
                kept.append(getattr(layer, reader.kind))

        self.score([added], watch=watch)
        return kept[0]


def _put(value: Tensor, number: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        result = x.clone()
        result[:, number] = value[:, number]
        return result

    return change


def _outgoing(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Forward hook that changes the hidden states a module returns."""

    def hook(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> Any:
        changed = change(first(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def _incoming(shift: Tensor) -> Callable[..., Any]:
    """Forward pre-hook that adds to the hidden states a module is given."""

    def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        x = given(args, kwargs)
        x = x + shift.to(x.dtype).view_as(x)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    return hook
