"""Information flow routes: through which tokens, heads and MLPs a prediction came about, in one pass.

Every token's residual stream is a sum of parts; a part matters by how much it brings the sum closer: with L1 norms,
proximity(part, sum) = max(|sum| - |sum - part|, 1e-5), divided by the total over the parts of that sum (Ferrando & Voita
2024, section 2.2). From the predicted token backwards, edges whose importance exceeds a threshold are followed; an edge
between two tokens has the importance of all its heads together. Parts that point against the sum get about nothing, so
suppression does not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import demand_plain_sum
from headatlas.model import LayerView, Model
from headatlas.model.runs.residual_stream import Writes, visit_blocks
from headatlas.model.structure.blocks import Block, blocks_of
from headatlas.model.text.start_end import said_of
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch

SMALL = 1e-5  # proximity of a part that does not bring the sum closer, as in the paper's own code
THRESHOLD = 0.04  # the same code's default
_ONE = torch.zeros(1, dtype=torch.long)


class Node(NamedTuple):
    """A token's residual stream at a depth: 0 embeddings, 2 l + 1 after the attention of block l, 2 l + 2 after the block."""

    depth: int
    position: int


@dataclass(frozen=True)
class Edge:
    """One part of a sum: from where to where, by what ("attention", "mlp" or "residual"), how important, by which heads."""

    source: Node
    target: Node
    kind: str
    weight: float
    heads: Mapping[HeadId, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """The edges through which the stream of one token came about. tokens: [pos] ids; target: where it ends.

    start_end: what results say of the start and end tokens of the text.
    """

    tokens: tuple[int, ...]
    target: Node
    threshold: float
    edges: tuple[Edge, ...]
    start_end: str = ""

    def __repr__(self) -> str:
        best = ", ".join(f"{head} {weight:.3g}" for head, weight in list(self.heads().items())[:3])
        return f"Route({len(self.edges)} edges above {self.threshold:g} to token {self.target.position} of {len(self.tokens)}; heads {best or 'none'})"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every token at every depth that the route passes, from the embeddings up."""
        return tuple(sorted({node for edge in self.edges for node in (edge.source, edge.target)} | {self.target}))

    def heads(self) -> dict[HeadId, float]:
        """Heads whose own part of some edge of the route exceeds the threshold, with the sum of those, largest first."""
        found: dict[HeadId, float] = {}
        for edge in self.edges:
            for head, weight in edge.heads.items():
                if weight > self.threshold:
                    found[head] = found.get(head, 0.0) + weight
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Importances:
    """Importances of one text, block by block; each row, over all that arrives at a token, adds up to 1.

    heads: [head, pos, pos] of attention from a source (last) to a target. residual, constant: [pos] at the same sum: what
    was there before, and biases. mlp, before: [pos] of the MLP and of what it is added to. In a parallel
    block all five belong to one sum and `before` is 0.
    """

    heads: Tensor
    residual: Tensor
    constant: Tensor
    mlp: Tensor
    before: Tensor
    parallel: bool
    site_heads: tuple[HeadId, ...]


@torch.no_grad()
def importances(model: Model, tokens: Tensor, blocks: tuple[Block, ...] | None = None) -> tuple[Importances, ...]:
    """Importances of every part in every block for one text, tokens [pos]. Raises UnsupportedModel."""
    blocks = blocks or blocks_of(model)
    bare = next((block for block in blocks if block.attention is None), None)
    if bare is not None:
        raise UnsupportedModel(
            f"Block {bare.index} of {model.architecture} ({type(bare.module).__name__}) has no attention, and how it moves "
            "information between tokens is not told apart.",
            "Flow is computed for models that attend in every block.",
        )
    seen: list[tuple[Tensor, Tensor]] = []
    found: list[Importances] = []

    def watch(layer: LayerView) -> None:
        pattern, values = layer.pattern.float(), layer.repeat(layer.v).float()
        demand_plain_sum(layer, torch.einsum("ehqk,ehkd->eqhd", pattern, values), layer.z.float())
        seen.append((pattern[0], values[0]))

    def each(writes: Writes) -> None:
        pattern, values = seen.pop()
        found.append(_block(writes, pattern, values))

    batch = Batch(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
    visit_blocks(model, blocks, batch, torch.arange(len(tokens))[None], each, watch=watch, logit_positions=_ONE)
    return tuple(found)


def _block(writes: Writes, pattern: Tensor, values: Tensor) -> Importances:
    """Importances of one block; pattern [head, query, key], values [head, key, d_value]."""
    block = writes.block
    assert block.attention is not None
    assert block.mlp is not None
    written = block.carried(torch.einsum("hkv,hvm->hkm", values, block.weight.float()))  # [head, key, d_model]
    entry, exit_, scale, bias, mlp = (x[0] for x in (writes.entry, writes.exit, writes.scale, writes.bias, writes.mlp))
    parallel = block.mlp.reader is None
    whole = exit_ if parallel else exit_ - mlp
    rows = []
    for i in range(len(entry)):  # one token at a time, so that memory is [head, key, d_model]
        parts = pattern[:, i, :, None] * written * scale[i]
        rows.append(_proximity(parts, whole[i]))
    heads = torch.stack(rows, 1)  # [head, query, key]
    heads = heads.masked_fill(pattern == 0, 0.0)
    residual, constant = _proximity(entry, whole), _proximity(bias, whole)
    constant = torch.where(bias.abs().amax(-1) > 0, constant, 0.0)
    added, before = _proximity(mlp, exit_), _proximity(whole, exit_)
    first = heads.sum((0, 2)) + residual + constant + (added if parallel else 0.0)
    second = first if parallel else added + before
    return Importances(
        heads / first[None, :, None], residual / first, constant / first, added / second,
        torch.zeros_like(before) if parallel else before / second, parallel, block.attention.heads,
    )  # fmt: skip


def _proximity(parts: Tensor, whole: Tensor) -> Tensor:
    """[...] how much parts [..., d_model] bring the sum closer."""
    return (whole.abs().sum(-1) - (whole - parts).abs().sum(-1)).clamp(min=SMALL)


def extract(
    tokens: Tensor, blocks: tuple[Importances, ...], *, position: int = -1, threshold: float = THRESHOLD
) -> Route:
    """The route to the stream of the token at `position` (from the end where negative) after the last block.

    Raises BadInput for a position outside the text and a threshold outside [0, 1).
    """
    n = len(tokens)
    if not -n <= position < n:
        raise BadInput(f"Position {position} lies outside the text.", f"Its tokens are 0 to {n - 1}.")
    if not 0 <= threshold < 1:
        raise BadInput(f"A threshold of {threshold} keeps nothing or everything.", "Give 0 to 1, such as 0.04.")
    target = Node(2 * len(blocks), position % n)
    edges: list[Edge] = []
    seen, waiting = {target}, [target]
    while waiting:
        for edge in _arriving(blocks, waiting.pop()):
            if edge.weight <= threshold:
                continue
            edges.append(edge)
            if edge.source not in seen and edge.source.depth > 0:
                seen.add(edge.source)
                waiting.append(edge.source)
    edges.sort(key=lambda edge: (edge.target, edge.source, edge.kind))
    return Route(tuple(int(one) for one in tokens), target, threshold, tuple(edges))


def _arriving(blocks: tuple[Importances, ...], node: Node) -> list[Edge]:
    """All edges that end at a node."""
    index, i = (node.depth - 1) // 2, node.position
    block = blocks[index]
    found: list[Edge] = []
    if node.depth % 2 == 0:
        before = Node(node.depth - (2 if block.parallel else 1), i)
        found.append(Edge(before, node, "mlp", float(block.mlp[i])))
        if not block.parallel:
            return [*found, Edge(before, node, "residual", float(block.before[i]))]
    entry = 2 * index
    found.append(Edge(Node(entry, i), node, "residual", float(block.residual[i])))
    for j, weight in enumerate(block.heads[:, i].sum(0).tolist()):
        if weight > 0:
            heads = {head: float(x) for head, x in zip(block.site_heads, block.heads[:, i, j], strict=True)}
            found.append(Edge(Node(entry, j), node, "attention", weight, heads))
    return found


@dataclass(frozen=True)
class Shares:
    """How much of the flow passes through each head of each text.

    heads. values: [example, head] mean importance over tokens, the first left out. used: [example, head] 1 where the route
    to the last token runs through the head, else 0. start_end: what results say of the texts' start and end tokens.
    """

    heads: tuple[HeadId, ...]
    values: Array
    used: Array
    start_end: str = ""

    def __repr__(self) -> str:
        mean = stats.mean(self.values)
        best = ", ".join(f"{self.heads[i]} {mean[i]:.3g}" for i in np.argsort(-mean, kind="stable")[:3])
        return f"Shares({len(self.heads)} heads over {len(self.values)} texts; largest {best})"


def shares(
    model: Model,
    batch: Batch,
    *,
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> Shares:
    """Importance of every head over a set of texts. Raises BadInput for texts of one token, UnsupportedModel."""
    progress = progress or Silent()
    parts, values, used = blocks_of(model), [], []
    for number, (row, mask) in enumerate(zip(batch.tokens, batch.mask, strict=True)):
        tokens = row[mask]
        if len(tokens) < 2:
            raise BadInput(f"Text {number + 1} has one token, through which nothing flows.")
        blocks = importances(model, tokens, parts)
        by_head = {head: x for b in blocks for head, x in zip(b.site_heads, b.heads.sum(2)[:, 1:].mean(1), strict=True)}
        inside = extract(tokens, blocks, threshold=threshold).heads()
        values.append([float(by_head[head]) for head in model.heads])
        used.append([float(head in inside) for head in model.heads])
        progress.advance("flow", of=len(batch))
    return Shares(model.heads, np.array(values), np.array(used), said_of(batch.facts))


def shares_data(found: Shares, top: int) -> dict[str, Any]:
    """The `top` heads by mean share as plain data, with intervals over texts and how many routes they are on."""
    mean, (low, high), used = stats.mean(found.values), stats.interval(found.values), stats.mean(found.used)
    rows = [
        {"head": str(found.heads[i]), "share": float(mean[i]), "low": float(low[i]), "high": float(high[i]), "used": float(used[i])}
        for i in np.argsort(-mean, kind="stable")[:top]
    ]  # fmt: skip
    return {
        "schema": "headatlas/flow-shares/1",
        "n_examples": len(found.values),
        "start_end": found.start_end,
        "heads": rows,
    }
