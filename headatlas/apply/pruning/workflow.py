"""Pruning from prompts to curves: order heads on some texts, take them away on others, beside random orders."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headatlas.apply.pruning.halves import halves_of
from headatlas.apply.pruning.options import PruneOptions
from headatlas.apply.pruning.orders import Removal, measured, order_of, random_order
from headatlas.apply.pruning.result import RANDOM, PrunedPoint, Pruning
from headatlas.apply.pruning.rounds import rounds_of
from headatlas.choices import PRUNING
from headatlas.edits import Mean
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.prompts import Prompts, measured_by
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.runs.shared_pass import demand_gradients
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Metric


def prune(
    model: Model,
    batch: Inputs | Prompts,
    held_out: Inputs | Prompts | None = None,
    *,
    order: str | Sequence[str] = "michel",
    keep: float | None = None,
    metric: Metric | str | None = None,
    options: PruneOptions | None = None,
    progress: Progress | None = None,
) -> Pruning:
    """Order heads by how little they seem to be needed, and measure what is lost as they go, beside random orders.

    order: one or several of "michel" (|z . dL/dz|, normalised by layer), "l0" (hard-concrete gates), "mean-ablation" and
    "zero-ablation" (what each head's mean, or zero, in its place costs, measured) and "random". batch: what heads are ordered on, as `model.forward` takes it, or `Prompts`. held_out:
    what is measured on; None: as many other prompts of the task, or half of those given. Texts without answers are scored by the loss
    of their tokens. keep: measure at this share of heads alone; None: at each step of the curve. metric: another than the task's own.
    Nothing is written: `headatlas.write_pruned` does that. Raises BadInput, UnknownName, UnfitTask, UnsupportedModel.
    """
    options, progress = options or PruneOptions(), progress or Silent()
    names = list(dict.fromkeys([order] if isinstance(order, str) else order))
    for name in names:
        PRUNING.demand(name)
    if not names:
        raise BadInput("No order is named.", f"Choose of {', '.join(PRUNING.values)}.")
    if keep is not None and not 0 <= keep <= 1:
        raise BadInput(f"The share of heads to keep is {keep:g}.", "Give a share from 0 to 1.")
    rounds_of(model, model.heads, options.spread, options.guard)  # what it cannot do is told before the work
    if {"michel", "l0"} & {*names}:
        demand_gradients(model)
    texts = halves_of(model, measured_by(batch, metric), held_out, options.seed)
    if "michel" in names and texts.metric.level:
        raise BadInput(
            f"The {texts.metric.name} has no slope in the run without changes, so Michel's importance is 0 for every head.",
            "Take the order mean-ablation, or a metric with a slope.",
        )
    means: Mapping[Any, Any] | None = None
    if options.removal == "mean" or "mean-ablation" in names:
        means = Mean.over(model, model.heads, texts.ordering).values
    orders = {name: order_of(model, name, texts.ordering, texts.metric, means, options, progress) for name in names}
    rounds = {name: rounds_of(model, one.heads, options.spread, options.guard) for name, one in orders.items()}
    drawn = [random_order(model, options.seed + 1 + number) for number in range(options.draws)]
    lots = [rounds_of(model, one.heads, options.spread, options.guard) for one in drawn]
    shares = [1 - step / options.points for step in range(1, options.points + 1)] if keep is None else [keep]
    lists = [*rounds.values(), *lots]
    # Whole rounds, and guarded heads, leave few sizes: each is measured once. They are the same for all orders.
    shares = list({len(lists[0].removed(share)): share for share in reversed(shares)}.values())[::-1]
    sets = [[one.removed(share) for share in shares] for one in lists]
    gates = orders["l0"].open if "l0" in orders else None
    gone = () if gates is None else tuple(head for head in model.heads if head not in gates)
    removal = Removal(means if options.removal == "mean" else None)
    wanted = list(dict.fromkeys([(), gone, *itertools.chain(*sets)]))
    runs = measured(model, texts.held_out, texts.metric, [removal.of(one) for one in wanted], "removals", progress)
    values = dict(zip(wanted, runs, strict=True))
    random = [[values[one[i]] for one in sets[len(rounds) :]] for i in range(len(sets[0]))] if lots else []
    points = _Points(len(model.heads), texts.metric, values[()], values)
    curves = {
        name: tuple(points.at(one, random[i] if random else []) for i, one in enumerate(mine))
        for name, mine in zip(rounds, sets, strict=False)
    }
    if random and RANDOM not in curves:
        kept = [len(model.heads) - len(one) for one in sets[len(rounds)]]
        curves[RANDOM] = tuple(points.of_random(*one) for one in zip(kept, random, strict=True))
    low, high = stats.interval(values[()][:, None])
    facts = {**texts.facts, **vars(options), "keep": keep}
    return Pruning(
        model.heads, orders, rounds, curves, float(values[()].mean()), float(low[0]), float(high[0]),
        None if gates is None else points.at(gone, []), removal.means, facts,
    )  # fmt: skip


class _Points:
    """Makes points of a curve from the metric [example] under each set of removed heads."""

    def __init__(self, n_heads: int, metric: Metric, whole: Array, values: Mapping[tuple[HeadId, ...], Array]) -> None:
        self.n_heads, self.metric, self.whole, self.values = n_heads, metric, whole, values

    def at(self, gone: tuple[HeadId, ...], random: Sequence[Array]) -> PrunedPoint:
        """The point at which these heads are gone; random: the metric [example] under each random order's set of that size."""
        mine = self.values[gone]
        columns = [mine, self.metric.worse(mine - self.whole)]
        if random:
            columns.append(self.metric.worse(mine - np.mean(random, 0)))
        return self._point(self.n_heads - len(gone), columns)

    def of_random(self, kept: int, random: Sequence[Array]) -> PrunedPoint:
        """The mean over random orders at one size."""
        rises = [float(self.metric.worse(one - self.whole).mean()) for one in random]
        mine = np.mean(random, 0)
        found = self._point(kept, [mine, self.metric.worse(mine - self.whole)])
        return PrunedPoint(**{**vars(found), "least": min(rises), "greatest": max(rises)})

    def _point(self, kept: int, columns: Sequence[Array]) -> PrunedPoint:
        low, high = stats.interval(np.stack(columns, 1))
        numbers = [float(x) for i, one in enumerate(columns) for x in (one.mean(), low[i], high[i])]
        return PrunedPoint(kept, kept / self.n_heads, *numbers)
