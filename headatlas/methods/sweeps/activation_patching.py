"""Activation patching: what a single head brings over from one prompt to another, for every head of a model."""

from __future__ import annotations

from dataclasses import replace

from headatlas.choices import DIRECTION, PATCHED
from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadSets
from headatlas.methods.former import former_arguments
from headatlas.methods.measured_by.choice import REWRITING
from headatlas.methods.options import RunOptions, SweepOptions
from headatlas.methods.prompts import MeasuredPrompts, Prompts, measured_by, prompts_for
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.plan import Make, Sweep, head_sets_for, metric_of, positions_of, side_of
from headatlas.methods.sweeps.run import run
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.progress import Progress
from headatlas.task import Metric
from headatlas.task.answers import kl

SITES = PATCHED.values


@former_arguments(SweepOptions, site="component")
def patch(
    model: Model,
    batch: Inputs | Prompts,
    heads: HeadSets | None = None,
    *,
    direction: str = "denoising",
    component: str = "z",
    positions: str = "all",
    metric: Metric | str | None = None,
    options: RunOptions | SweepOptions | None = None,
    progress: Progress | None = None,
) -> HeadEffects:
    """Put each head's value from the clean prompt into the run on its counterfactual (denoising), or the other way round.

    The metric is always that of the clean prompt's answers, kl where there are none. component: z (output), q, k, v or pattern; keys and values are
    changed for whole KV groups. The counterfactual must have the same length. The other options are those of `ablate`.
    Raises BadInput.
    """
    options = options or RunOptions()
    triage = options.triage if isinstance(options, SweepOptions) else None
    given = prompts_for(model, measured_by(batch, metric), progress, unanswered=kl, settles=True)
    sweep = plan(model, given, heads, direction, component, positions)
    with checkpoint.folder(options.out, model, sweep, {"triage": triage}) as kept:
        if kept.result is not None:
            return kept.result
        found = run(
            model, sweep, triage=triage, memory=options.bytes, store=kept.store, step="patch", progress=progress
        )
        source = None if direction == "denoising" else given.batch.counterfactual
        unchanged = metric_of(model, given.batch, given.metric, run_on=source)
        return kept.finish(replace(found, other=unchanged), model, sweep)


def plan(
    model: Model,
    given: MeasuredPrompts,
    heads: HeadSets | None,
    direction: str,
    component: str,
    positions: str,
) -> Sweep:
    """The changes that `patch` measures, one per head and position. Raises BadInput."""
    DIRECTION.demand(direction)
    PATCHED.demand(component)
    batch, other = given.batch, given.batch.counterfactual
    if other is None:
        raise BadInput(
            "Patching needs counterfactual prompts.",
            "Give each prompt its counterfactual."
            if given.metric in REWRITING
            else "Choose a task that has them, or give each prompt its counterfactual.",
        )
    demand_aligned(batch, other)
    head_sets = head_sets_for(model, heads, component)
    named_positions = positions_of(side_of(batch, head_sets, component, positions), positions)
    everything = sorted({head for head_set in head_sets for head in head_set})
    source = batch if direction == "denoising" else other

    def prepare(rows: slice) -> Make:
        values = collect(model, source.rows(rows), OnHeads(everything, component=component))
        return lambda head_set, at: [Resample(head_set, values, component=component, positions=at)]

    facts = {"positions": positions, "site": component, **given.facts}
    run_on = other if direction == "denoising" else None
    return Sweep(direction, batch, given.metric, head_sets, named_positions, component, prepare, run_on, facts)
