"""What passes between the heads of a circuit: each edge measured on its own by path patching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headatlas.circuits.circuit import Edge, Node
from headatlas.heads import HeadId
from headatlas.methods.options import RunOptions
from headatlas.methods.path_patching.receivers import HEAD_INPUTS, Receiver
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.prompts import Prompts
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.model import Model
from headatlas.progress import Part, Progress, Silent
from headatlas.task import Batch, Metric

LEVEL = 0.05  # false discovery rate over all edges tried
SMALLEST = 0.02  # of the difference between the prompts and their counterfactuals


def receivers_of(model: Model, nodes: Sequence[Node]) -> tuple[Receiver, ...]:
    """The logits, and queries, keys and values of each node; keys and values as those of its KV group."""
    found: dict[Receiver, None] = {Receiver("logits"): None}
    for node in nodes:
        for kind in HEAD_INPUTS:
            # What a head reads may come from any token; only its query stands where the head acts.
            position = node.position if kind == "q" else None
            found[Receiver(kind, (node.head,), position=position).within(model, group=True)] = None
    return tuple(found)


def measure_edges(
    model: Model,
    batch: Batch,
    nodes: Sequence[Node],
    metric: Metric,
    *,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[Edge, ...], HeadEffects]:
    """The edges among the heads of `nodes` and to the logits that are there beyond chance, largest effect first.

    Noising path patching of every sender to every receiver, MLPs recomputed: q (Benjamini-Hochberg over all edges tried)
    below 0.05, and an effect of at least 2% of what tells the prompts from their counterfactuals. Raises BadInput.
    """
    heads: list[HeadId] = sorted({node.head for node in nodes})
    receivers = receivers_of(model, nodes)
    given = Prompts(batch=batch, metric=metric)
    told = Part(progress or Silent(), "edges")
    found = path_patch(model, given, heads, receivers, options=options, progress=told)
    by_name = {receiver.name: receiver for receiver in receivers}
    least = SMALLEST * abs(float(found.span.mean()))
    edges = [
        Edge(line.head, by_name[line.position], line.effect, line.q)
        for line in found.summary()
        if not np.isnan(line.effect) and line.q < LEVEL and abs(line.effect) >= least
    ]
    return tuple(sorted(edges, key=lambda edge: -abs(edge.effect or 0.0))), found
