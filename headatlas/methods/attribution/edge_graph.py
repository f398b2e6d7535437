"""The edges of a model's residual stream: who writes into it, who reads it, and which reader comes after which writer.

Writers are the embedding, heads and MLPs; readers are the queries of a head, the keys or values of a group
of heads that share them, MLPs and the logits (Elhage et al. 2021). A run's residual stream is the sum of its
writers, so a reader can be given another run's value of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.runs.residual_stream import Writes, visit_blocks
from headatlas.model.structure.blocks import Block, blocks_of
from headatlas.task import Batch

_ONE = torch.zeros(1, dtype=torch.long)  # logits are computed at one position only, nobody needs them here


@dataclass(frozen=True)
class Writer:
    """A part that writes: "embedding" (block -1), "head" (with its number) or "mlp"."""

    name: str
    kind: str
    block: int
    number: int = 0


@dataclass(frozen=True)
class Reader:
    """A part that reads: "q" of a head, "k" or "v" of a group (with its number), "mlp", or "logits" (after the last block)."""

    name: str
    kind: str
    block: int
    number: int = 0


class Graph:
    """All writers and readers of a model of one stack, in order. Raises UnsupportedModel where they cannot be told apart."""

    def __init__(self, model: Model) -> None:
        self.blocks = blocks_of(model)
        writers, readers = [Writer("embedding", "embedding", -1)], []
        for block in self.blocks:
            layer = block.attention
            if layer is None:
                raise UnsupportedModel(
                    f"Block {block.index} of {model.architecture} ({type(block.module).__name__}) has no attention, and what "
                    "it reads is not told apart.",
                    "Edges are scored for models that attend in every block; use --method atp or direct.",
                )
            size = layer.n_heads // layer.n_groups
            names = [str(head) for head in layer.heads]
            groups = [names[i * size : (i + 1) * size] for i in range(layer.n_groups)]
            writers += [Writer(name, "head", block.index, i) for i, name in enumerate(names)]
            writers.append(Writer(f"mlp {block.index}", "mlp", block.index))
            readers += [Reader(f"{name}.q", "q", block.index, i) for i, name in enumerate(names)]
            for kind in ("k", "v"):
                readers += [Reader(f"{_group(group)}.{kind}", kind, block.index, i) for i, group in enumerate(groups)]
            readers.append(Reader(f"mlp {block.index}", "mlp", block.index))
        readers.append(Reader("logits", "logits", len(self.blocks)))
        self.writers, self.readers = tuple(writers), tuple(readers)

    def __repr__(self) -> str:
        return f"Graph({len(self.writers)} writers, {len(self.readers)} readers)"

    def reaches(self, writer: Writer, reader: Reader) -> bool:
        """Whether the reader comes after the writer: in a later block, or an MLP after its block's heads."""
        if writer.block == reader.block and writer.kind == "head" and reader.kind == "mlp":
            mlp = self.blocks[reader.block].mlp
            return mlp is not None and mlp.reader is not None
        return writer.block < reader.block

    def edges(self) -> list[tuple[int, int]]:
        """(writer, reader) numbers of every edge."""
        return [
            (i, j)
            for i, writer in enumerate(self.writers)
            for j, reader in enumerate(self.readers)
            if self.reaches(writer, reader)
        ]

    def name(self, edge: tuple[int, int]) -> str:
        """An edge as text: "9.6 -> 10.7.q"."""
        return f"{self.writers[edge[0]].name} -> {self.readers[edge[1]].name}"

    def heads_of(self, edge: tuple[int, int]) -> tuple[HeadId, ...]:
        """The heads at either end of an edge, the writing one first."""
        writer, reader = self.writers[edge[0]], self.readers[edge[1]]
        found: list[HeadId] = []
        if writer.kind == "head":
            found += [self._heads(writer.block)[writer.number]]
        if reader.kind in ("q", "k", "v"):
            heads = self._heads(reader.block)
            size = 1 if reader.kind == "q" else len(heads) // self._groups(reader.block)
            found += heads[reader.number * size : (reader.number + 1) * size]
        return tuple(found)

    def _heads(self, block: int) -> tuple[HeadId, ...]:
        layer = self.blocks[block].attention
        assert layer is not None
        return layer.heads

    def _groups(self, block: int) -> int:
        layer = self.blocks[block].attention
        assert layer is not None
        return layer.n_groups


def _group(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}-{names[-1].rpartition('.')[2]}"


@dataclass(frozen=True, eq=False)
class Written:
    """What all writers wrote in one run, at all positions: entry [example, pos, d_model], then block by block."""

    entry: Tensor
    z: tuple[Tensor, ...]  # [example, pos, head, d_value]
    scale: tuple[Tensor, ...]  # [example, pos, 1]
    mlp: tuple[Tensor, ...]  # [example, pos, d_model]
    bias: tuple[Tensor, ...]  # [example, pos, d_model]

    def rows(self, index: slice) -> Written:
        """The same for some examples."""
        return Written(
            self.entry[index], *(tuple(x[index] for x in part) for part in (self.z, self.scale, self.mlp, self.bias))
        )

    def heads(self, block: Block, which: slice = slice(None)) -> Tensor:
        """[example, pos, head, d_model] what the heads of a block added."""
        z, scale = self.z[block.index], self.scale[block.index]
        written = torch.einsum("enhv,hvm->enhm", z[:, :, which].float(), block.weight[which].float())
        return block.carried(written) * scale[:, :, None]


def written(model: Model, graph: Graph, prompts: Any) -> Written:
    """Run the model and keep what every writer wrote. Raises UnsupportedModel where the parts do not add up."""
    return written_in(visited(model, graph, prompts))


def both_written(model: Model, graph: Graph, one: Batch, other: Batch) -> tuple[Written, Written]:
    """`written` of two batches of one shape, from one run of both."""
    n = len(one)
    both = Batch(torch.cat([one.tokens, other.tokens]), torch.cat([one.mask, other.mask]))
    found = written(model, graph, both)
    return found.rows(slice(0, n)), found.rows(slice(n, 2 * n))


def visited(model: Model, graph: Graph, prompts: Any) -> list[Writes]:
    """What each block read and wrote in a run, at all positions. Raises UnsupportedModel where the parts do not add up."""
    found: list[Writes] = []
    n, length = prompts.tokens.shape
    everywhere = torch.arange(length).expand(n, -1)
    with torch.no_grad():
        visit_blocks(model, graph.blocks, prompts, everywhere, found.append, logit_positions=_ONE)
    return found


def written_in(found: list[Writes]) -> Written:
    """What every writer wrote in a run of `visited`."""
    return Written(
        found[0].entry,
        tuple(writes.z for writes in found if writes.z is not None),
        tuple(writes.scale for writes in found),
        tuple(writes.mlp for writes in found),
        tuple(writes.bias for writes in found),
    )


class Difference:
    """What each writer wrote more in one run than in another."""

    def __init__(self, graph: Graph, base: Written, source: Written) -> None:
        self.graph, self.base, self.source = graph, base, source
        for block, one, other in zip(graph.blocks, base.bias, source.bias, strict=True):
            if float((one - other).abs().max()) > 1e-5 * max(1.0, float(one.abs().max())):
                raise UnsupportedModel(
                    f"The constant part of block {block.index}'s attention differs between runs: a norm behind it rescales "
                    "its bias, which belongs to no head.",
                    "Edges are not scored for this model; use --method atp.",
                )

    def block(self, index: int) -> Tensor:
        """[example, pos, writer, d_model] of a block's heads and MLP; of the embedding for -1."""
        if index < 0:
            return (self.source.entry - self.base.entry).unsqueeze(2)
        block = self.graph.blocks[index]
        mlp = (self.source.mlp[index] - self.base.mlp[index]).unsqueeze(2)
        return torch.cat([self.source.heads(block) - self.base.heads(block), mlp], 2)

    def of(self, writer: Writer) -> Tensor:
        """[example, pos, d_model] of one writer."""
        if writer.kind == "embedding":
            return self.source.entry - self.base.entry
        if writer.kind == "mlp":
            return self.source.mlp[writer.block] - self.base.mlp[writer.block]
        block, which = self.graph.blocks[writer.block], slice(writer.number, writer.number + 1)
        return (self.source.heads(block, which) - self.base.heads(block, which)).squeeze(2)
