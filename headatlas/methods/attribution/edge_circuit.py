"""What a set of edges is worth: a run in which they alone carry the prompt, and all others what the counterfactual writes.

Every reader of a block is given its own residual stream: the counterfactual's, plus for each kept edge into it what its
writer writes more in this very run than there. So an MLP that only reads kept edges writes something new, which its own kept edges hand
on. A norm behind the attention has this run's scale. With all edges kept this is the prompt's run, with none the counterfactual's. These are the runs by which circuits of
edges are judged (Conmy et al. 2023; Yao et al. 2024; Mueller et al. 2025: interchange ablation).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.methods.attribution.edge_attribution import sides
from headatlas.methods.attribution.edge_graph import Graph, Written, visited, written, written_in
from headatlas.model import Model
from headatlas.model.core.hooks import Args, Kwargs, OwnHooks, own_hooks
from headatlas.model.runs.residual_stream import Writes, visit_blocks
from headatlas.model.structure.blocks import Block, first, given
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric

if TYPE_CHECKING:
    from headatlas.heads import HeadId
    from headatlas.model import LayerView

CHUNK = 8192  # tokens a pass, all streams together
Edge = tuple[int, int]


@torch.no_grad()
def edges_alone(
    model: Model,
    batch: Batch,
    metrics: Sequence[Metric],
    graph: Graph,
    circuits: Sequence[Collection[Edge]],
    *,
    progress: Progress | None = None,
) -> Array:
    """[metric, circuit, example] each metric when only the edges of a circuit, (writer, reader) numbers of `graph`, carry the prompt.

    All metrics must read the same positions. Raises BadInput, UnsupportedModel.
    """
    progress, (clean, other) = progress or Silent(), sides(batch, "noising")
    streams = max(len([r for r in graph.readers if r.block == block.index]) for block in graph.blocks)
    size = max(1, CHUNK // (streams * batch.tokens.shape[1]))
    found = np.zeros((len(metrics), len(circuits), len(batch)))
    for start in range(0, len(batch), size):
        rows = slice(start, min(start + size, len(batch)))
        scored = batch.rows(rows)
        run = _Run(model, graph, clean.rows(rows), other.rows(rows), metrics[0].positions(scored))
        for i, circuit in enumerate(circuits):
            logits = run.logits(circuit).cpu()
            for j, metric in enumerate(metrics):
                found[j, i, rows] = metric.score(logits, scored).double().numpy()
            progress.advance("circuits of edges", rows.stop - rows.start, of=len(circuits) * len(batch))
    return found


class _Run:
    """Runs of the same prompts under circuits of edges."""

    def __init__(self, model: Model, graph: Graph, clean: Batch, other: Batch, positions: Tensor) -> None:
        self.model, self.graph, self.clean, self.positions = model, graph, clean, positions
        self.start = written(model, graph, clean).entry
        found = visited(model, graph, other)
        self.corrupt: Written = written_in(found)
        # The counterfactual's stream at each block's entry, and at the end.
        self.entries: list[Tensor] = [*(writes.entry for writes in found), found[-1].exit]

    def logits(self, circuit: Collection[Edge]) -> Tensor:
        """[example, n, vocab] logits under a circuit."""
        return _Streams(self, circuit).logits()


class _Streams:
    """One run: readers with the same kept edges share a stream, streams lie side by side along the batch.

    more: for each writer so far what it wrote more than in the counterfactual's run, [example, pos, d_model].
    """

    def __init__(self, run: _Run, circuit: Collection[Edge]) -> None:
        self.run, self.graph, self.n = run, run.graph, len(run.clean)
        keep = torch.zeros(len(self.graph.writers), len(self.graph.readers))
        for i, j in circuit:
            keep[i, j] = 1.0
        self.keep = keep
        self.of: dict[int, list[int]] = {}  # block -> the stream of each of its readers
        self.rows: dict[int, list[int]] = {}  # block -> a reader of each stream
        self.readers = {
            b: [j for j, reader in enumerate(self.graph.readers) if reader.block == b]
            for b in range(len(self.graph.blocks) + 1)
        }
        for b, mine in self.readers.items():
            names = [keep[:, j].numpy().tobytes() + (b"mlp" if self._middle(b, j) else b"") for j in mine]
            order = list(dict.fromkeys(names))
            self.of[b] = [order.index(name) for name in names]
            self.rows[b] = [mine[names.index(name)] for name in order]
        self.width = max(len(rows) for rows in self.rows.values())
        self.more: list[Tensor] = [run.start - run.corrupt.entry]
        self.seen: dict[str, Tensor] = {}

    def _middle(self, block: int, reader: int) -> bool:
        """Whether a reader is an MLP that reads the stream after its block's attention, which then needs one of its own."""
        return self.graph.readers[reader].kind == "mlp" and self._mlp(block).reader is not None

    def _mlp(self, block: int) -> Any:
        mlp = self.graph.blocks[block].mlp
        assert mlp is not None
        return mlp

    def logits(self) -> Tensor:
        """[example, n, vocab] the logits of the run."""
        model, batch = self.run.model, self.run.clean
        many = batch.rows([i for _ in range(self.width) for i in range(self.n)])
        edits: list[Any] = [_Joined(self, kind) for kind in ("q", "k", "v")]
        everywhere = torch.arange(batch.tokens.shape[1]).expand(len(many), -1)
        at = self.run.positions
        at = at if len(at) == 1 else at.repeat(self.width, 1)
        with own_hooks() as hooks:
            for block in self.graph.blocks:
                self._listen(hooks, block)
            found = visit_blocks(
                model,
                self.graph.blocks,
                many,
                everywhere,
                self.wrote,
                watch=self.watch,
                edits=edits,
                logit_positions=at,
            )
        return found[: self.n]

    # ---- what happens on the way through a block, in this order ------------------------------------------------------
    def entry(self, hooks: OwnHooks, block: int) -> Callable[..., Any]:
        """A hook that gives a block the streams of its readers."""

        def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
            if block == len(self.graph.blocks) - 1:
                # Now, so that it acts behind the hook that checks what this block wrote.
                hooks.after(self.graph.blocks[-1].module, self._end)
            return _instead(args, kwargs, self._streams(block))

        return hook

    def joined(self, layer: LayerView, x: Tensor, kind: str) -> Tensor:
        """Queries, keys or values of each head or group, from its own stream, for all streams alike."""
        block = self._block(layer)
        each = x.view(self.width, self.n, *x.shape[1:])
        mine = [
            (self.graph.readers[j].number, stream)
            for j, stream in zip(self.readers[block], self.of[block], strict=True)
            if self.graph.readers[j].kind == kind
        ]
        whole = torch.stack([each[stream, :, number] for number, stream in sorted(mine)], 1)
        return whole.repeat(self.width, *[1] * (x.ndim - 1))

    def watch(self, layer: LayerView) -> None:
        """Keep what heads give, which the block's MLP may read."""
        self.seen["z"] = layer.z[: self.n]

    def wrote(self, writes: Writes) -> None:
        """Keep what heads and MLP wrote more than in the counterfactual's run: heads the same in all streams, the MLP in its own."""
        block = writes.block
        assert writes.z is not None
        alone = replace(writes, z=writes.z[: self.n], scale=writes.scale[: self.n])
        self.more += [*(alone.heads() - self.run.corrupt.heads(block)).unbind(2)]
        stream = self.of[block.index][-1]  # an MLP is the last of its block's readers
        mlp = writes.mlp.view(self.width, self.n, *writes.mlp.shape[1:])[stream]
        self.more.append(mlp - self.run.corrupt.mlp[block.index])

    # ---- parts -------------------------------------------------------------------------------------------------------
    def _streams(self, block: int) -> Tensor:
        """[stream x example, pos, d_model] what the readers of a block read, as far as earlier blocks wrote it."""
        before = self.run.entries[block]
        kept = self.keep[: len(self.more), self.rows[block]].to(before.device)
        more = torch.einsum("ws,wepd->sepd", kept, torch.stack(self.more))
        streams = before + more
        spare = streams[:1].expand(self.width - len(streams), -1, -1, -1)
        return torch.cat([streams, spare]).flatten(0, 1)

    def _end(self, _: nn.Module, __: Args, ___: Kwargs, output: Any) -> Any:
        x = self._streams(len(self.graph.blocks)).to(first(output).dtype)
        return (x, *output[1:]) if isinstance(output, tuple) else x

    def _listen(self, hooks: OwnHooks, block: Block) -> None:
        """Give a block its streams, and let its MLP read only those of its own heads whose edges are kept."""
        hooks.before(block.module, self.entry(hooks, block.index))
        mlp, layer = self._mlp(block.index), block.attention
        assert layer is not None
        if mlp.reader is None:
            return
        keep = lambda name: lambda _, __, ___, output: self.seen.update({name: first(output)[: self.n]})  # noqa: E731
        hooks.after(layer.projection, keep("written"))
        if block.post is not None:
            hooks.after(block.post.module, keep("after"))
        stream = self.of[block.index][-1]
        heads = [i for i, one in enumerate(self.graph.writers) if (one.block, one.kind) == (block.index, "head")]
        dropped = 1 - self.keep[heads, self.readers[block.index][-1]]

        def read(_: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
            x = given(args, kwargs)
            shape = (self.n, -1, x.shape[-1])
            behind = self.seen["written"].reshape(shape)
            scale = block.scale(behind, self.seen["after"].reshape(shape) if block.post is not None else behind)
            z = torch.einsum("enhv,hvm->enhm", self.seen["z"].float(), block.weight.float())
            more = block.carried(z) * scale[:, :, None] - self.run.corrupt.heads(block)
            less = torch.einsum("enhm,h->enm", more, dropped.to(x.device))
            changed = x.clone().view(self.width, *less.shape)
            changed[stream] -= less.to(x.dtype)
            return _instead(args, kwargs, changed)

        hooks.before(mlp.reader, read)

    def _block(self, layer: LayerView) -> int:
        return self.run.model.block_index(layer.stack, layer.index)


class _Joined:
    """An edit of queries, keys or values by a run of streams."""

    heads: tuple[HeadId, ...] = ()

    def __init__(self, streams: _Streams, component: str) -> None:
        self.streams, self.component = streams, component
        self.layers = frozenset((layer.stack, layer.index) for layer in streams.run.model.layers)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        return self.streams.joined(layer, x, self.component)


def _instead(args: Args, kwargs: Kwargs, x: Tensor) -> tuple[Args, Kwargs]:
    """What a module is called with, with other hidden states."""
    old = given(args, kwargs)
    x = x.view_as(old).to(old.dtype)
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})
