"""Activation patching: what a single head brings over from one prompt to another, for every head of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.cached_runs import GB
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.run import Make, Sweep, head_sets_for, metric_of, positions_of, run
from headatlas.model import Model
from headatlas.task import Batch, Metric, logit_difference

DIRECTIONS = ("denoising", "noising")
SITES = ("z", "q", "k", "v", "pattern")


def patch(
    model: Model,
    batch: Batch,
    heads: Sequence[HeadId | HeadSet] | None = None,
    *,
    metric: Metric = logit_difference,
    direction: str = "denoising",
    component: str = "z",
    positions: str = "all",
    triage: int | None = None,
    memory: int = 4 * GB,
    out: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> HeadEffects:
    """Put each head's value from the clean prompt into the run on its counterfactual (denoising), or the other way round.

    The metric is always that of the clean prompt's answers. component: z (output), q, k, v or pattern; keys and values are
    changed for whole KV groups. The counterfactual must have the same length. The other options are those of `ablate`.
    Raises BadInput.
    """
    sweep = plan(model, batch, heads, metric, direction, component, positions, about)
    with checkpoint.folder(out, model, sweep, {"triage": triage}) as kept:
        if kept.result is not None:
            return kept.result
        found = run(model, sweep, triage=triage, memory=memory, ledger=kept.ledger, tick=tick)
        source = None if direction == "denoising" else batch.counterfactual
        unchanged = metric_of(model, batch, metric, run_on=source)
        return kept.finish(replace(found, other=unchanged), model, sweep)


def plan(
    model: Model,
    batch: Batch,
    heads: Sequence[HeadId | HeadSet] | None,
    metric: Metric,
    direction: str,
    component: str,
    positions: str,
    about: Mapping[str, Any] | None = None,
) -> Sweep:
    """The changes that `patch` measures, one per head and position. Raises BadInput."""
    if direction not in DIRECTIONS:
        raise BadInput(f"There is no direction '{direction}'.", f"Choose one of {', '.join(DIRECTIONS)}.")
    if component not in SITES:
        raise BadInput(f"Heads are not patched at '{component}'.", f"Choose one of {', '.join(SITES)}.")
    other = batch.counterfactual
    if other is None:
        raise BadInput(
            "Patching needs counterfactual prompts.", "Choose a task that has them, or give `corrupted` prompts."
        )
    demand_aligned(batch, other)
    head_sets, named_positions = head_sets_for(model, heads, component), positions_of(batch, positions)
    everything = sorted({head for head_set in head_sets for head in head_set})
    source = batch if direction == "denoising" else other

    def prepare(rows: slice) -> Make:
        values = collect(model, source.rows(rows), OnHeads(everything, component=component))
        return lambda head_set, places: [Resample(head_set, values, component=component, positions=places)]

    facts = {"positions": positions, "site": component, **(about or {})}
    run_on = other if direction == "denoising" else None
    return Sweep(direction, batch, metric, head_sets, named_positions, component, prepare, run_on, facts)
