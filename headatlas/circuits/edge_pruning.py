"""The rival of a circuit that was found by heads: edges ranked by EAP-IG, pruned until as many heads are left, and measured as edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from headatlas.circuits.mib import SHARES, cpr_and_cmd
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.attribution.edge_circuit import edges_alone
from headatlas.methods.attribution.edge_graph import Graph
from headatlas.methods.options import RunOptions
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Part, Progress, Silent
from headatlas.task import Batch, Metric
from headatlas.task.answers import hit_at

HITS = 10  # tokens among which an answer is a hit, as in Yao et al. 2024
STEPS = 5  # runs that EAP-IG averages the gradient over, as in Hanna et al. 2024


class PrunedEdges(NamedTuple):
    """The edges with the largest scores that keep at most so many heads on a way from the embedding to the logits."""

    heads: tuple[HeadId, ...]
    edges: int


class RankedEdges(NamedTuple):
    """All edges of a model with their EAP-IG scores [edge], in units of the metric."""

    graph: Graph
    scores: Array

    def first(self, share: float) -> list[tuple[int, int]]:
        """The edges with the largest |scores|, a share of all."""
        edges = self.graph.edges()
        order = np.argsort(-np.abs(self.scores), kind="stable")
        return [edges[i] for i in order[: int(share * len(edges))]]

    def pruned(self, size: int) -> PrunedEdges:
        """The largest graph of the highest edges with at most `size` heads."""
        return pruned(self.graph, self.scores, size)


class EdgeCurve(NamedTuple):
    """What circuits of the highest edges recover by their share of all edges, alone: all others carry the counterfactual.

    hits: the share of prompts whose answer is among the ten likeliest tokens, at each size and last of all in the
    counterfactual's own run; None where prompts have no answer. cpr, cmd: areas over the shares (`cpr_and_cmd`).
    """

    shares: tuple[float, ...]
    edges: tuple[int, ...]
    recovered: tuple[float, ...]
    cpr: float
    cmd: float
    hits: tuple[float, ...] | None


def eap_ig(
    model: Model,
    batch: Batch,
    metric: Metric,
    *,
    rows: Array | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> RankedEdges:
    """Scores of all edges by EAP-IG. rows: examples that the scores are averaged over.

    Raises BadInput, UnsupportedModel as `edge_scores` does.
    """
    memory = (options or RunOptions()).bytes
    told = Part(progress or Silent(), "EAP-IG")
    graph, scores = edge_scores(model, batch, metric, direction="noising", steps=STEPS, memory=memory, progress=told)
    return RankedEdges(graph, stats.mean(scores if rows is None else scores[rows]))


def edge_curve(
    model: Model, batch: Batch, metric: Metric, ranked: RankedEdges, *, progress: Progress | None = None
) -> EdgeCurve:
    """What the first edges of a ranking do alone on a batch, at the benchmark's sizes. Raises BadInput, UnsupportedModel."""
    hit = hit_at(HITS)
    asked = [metric]
    if "answer" in batch.labels and torch.equal(metric.positions(batch), hit.positions(batch)):
        asked.append(hit)
    circuits = [ranked.first(share) for share in SHARES]
    values = edges_alone(model, batch, asked, ranked.graph, [*circuits, []], progress=progress).mean(-1)
    none, whole = values[0, -1], values[0, -2]
    if whole == none:
        raise BadInput("The counterfactuals have the same metric as the prompts, so no share of it can be recovered.")
    recovered = [float(value) for value in (values[0, :-1] - none) / (whole - none)]
    cpr, cmd = cpr_and_cmd(SHARES, recovered)
    hits = tuple(map(float, values[1])) if len(asked) > 1 else None
    return EdgeCurve(SHARES, tuple(map(len, circuits)), tuple(recovered), cpr, cmd, hits)


def pruned(graph: Graph, scores: Array, size: int) -> PrunedEdges:
    """The largest graph of the edges with the largest |scores| [edge] that has at most `size` heads; edges to nowhere go."""
    edges = graph.edges()
    order = [edges[i] for i in np.argsort(-np.abs(scores), kind="stable")]
    low, high = 0, len(order)  # more edges never connect fewer heads
    while low < high:
        middle = (low + high + 1) // 2
        if len(_connected(graph, order[:middle])[0]) <= size:
            low = middle
        else:
            high = middle - 1
    heads, kept = _connected(graph, order[:low])
    return PrunedEdges(tuple(sorted(heads)), kept)


def _connected(graph: Graph, edges: Sequence[tuple[int, int]]) -> tuple[set[HeadId], int]:
    """The heads on a way from the embedding to the logits, and how many edges lie on such ways."""
    owners = _owners(graph)
    into, out = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    end = len(graph.writers)  # the logits, as a part that writes nothing
    links = [(writer, part) for writer, reader in edges for part in owners[reader]]
    for writer, part in links:
        into[part].append(writer)
        out[writer].append(part)
    from_start, to_end = _reached([0], out), _reached([end], into)
    both = from_start & to_end
    heads = {
        head for i, part in enumerate(graph.writers) if i in both and part.kind == "head" for head in _head(graph, i)
    }
    kept = sum(writer in both and any(part in both for part in owners[reader]) for writer, reader in edges)
    return heads, kept


def _reached(start: Iterable[int], links: defaultdict[int, list[int]]) -> set[int]:
    seen, waiting = set(start), list(start)
    while waiting:
        for other in links.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def _owners(graph: Graph) -> list[list[int]]:
    """For each reader the numbers of the writers it is part of: a head, all heads of a KV group, an MLP; the logits come last."""
    number = {(writer.kind, writer.block, writer.number): i for i, writer in enumerate(graph.writers)}
    found = []
    for reader in graph.readers:
        if reader.kind == "logits":
            found.append([len(graph.writers)])
        elif reader.kind == "mlp":
            found.append([number["mlp", reader.block, 0]])
        else:
            layer = graph.blocks[reader.block].attention
            assert layer is not None
            size = 1 if reader.kind == "q" else layer.n_heads // layer.n_groups
            found.append([number["head", reader.block, reader.number * size + i] for i in range(size)])
    return found


def _head(graph: Graph, writer: int) -> tuple[HeadId, ...]:
    layer = graph.blocks[graph.writers[writer].block].attention
    assert layer is not None
    return (layer.heads[graph.writers[writer].number],)
