"""Ablation: what happens to a task when a head's output is removed, for every head of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from headatlas.choices import EDIT, MEAN
from headatlas.edits import Mean, OnHeads, Resample, Zero, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId, HeadSets
from headatlas.methods.former import former_arguments
from headatlas.methods.induction_ablation import averaged_inputs
from headatlas.methods.options import RunOptions, SweepOptions
from headatlas.methods.prompts import MeasuredPrompts, Prompts, measured_by, prompts_for
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.plan import Make, Prepare, Sweep, head_sets_for, positions_of, side_of
from headatlas.methods.sweeps.run import run
from headatlas.methods.sweeps.top_token import top_tokens
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Task, Vocabulary
from headatlas.task.answers import kl

if TYPE_CHECKING:
    from headatlas.model.core.forward_pass import Edit


@former_arguments(SweepOptions)
def ablate(
    model: Model,
    batch: Inputs | Prompts,
    heads: HeadSets | None = None,
    *,
    edit: str = "mean",
    mean: str = "overall",
    positions: str = "all",
    reference: Batch | int | None = None,
    metric: Metric | str | None = None,
    options: RunOptions | SweepOptions | None = None,
    progress: Progress | None = None,
) -> HeadEffects:
    """Remove each head (or each of the sets given) and measure the metric, every example on its own.

    batch: the prompts, as `model.forward` takes them (a text, several, a chat, ids, a Batch), or `Prompts`, which names a task or
    a file. metric: kl, logit-difference, log-probability, rank ... (headatlas.task.answers), or a Metric; default the task's own, else
    the logit difference, and kl (to the clean run) for prompts without answers. heads: default every head. edit: mean (over `reference`; else the counterfactual prompts where there are some, else the batch itself), zero,
    resample (the same head's output on the counterfactual prompt), or input (what the head gives where it reads the mean input of each position,
    over `reference` or the batch, whose prompts must have one length; `averaged_inputs`). mean: over all tokens (those at `positions` where
    named), for each position, or for each position and label "template". positions: all, each, or a named one ("end").
    With kl the result's facts["top_token"] says which token is the likeliest before, and after each change that makes it another;
    `downstream` shows where attention changes. reference: other prompts, or how many to draw of the task. options: memory, how many changes are measured, and the folder in
    which the result is kept. Raises BadInput, UnknownName.
    """
    options = options or RunOptions()
    triage = options.triage if isinstance(options, SweepOptions) else None
    EDIT.demand(edit)
    MEAN.demand(mean)
    given = prompts_for(model, measured_by(batch, metric), progress, unanswered=kl, settles=True)
    other = _reference(model, given, reference)
    head_sets = head_sets_for(model, heads, "z")
    named_positions = positions_of(side_of(given.batch, head_sets, "z", positions), positions)
    prepare = replacements(model, given.batch, head_sets, edit, mean, positions, other)
    facts = {
        "edit": edit,
        "mean": mean if edit == "mean" else None,
        "positions": positions,
        "site": "z",
        **given.facts,
    }
    sweep = Sweep("ablation", given.batch, given.metric, head_sets, named_positions, "z", prepare, facts=facts)
    more = {"triage": triage, "reference": checkpoint.digest(other)}
    with checkpoint.folder(options.out, model, sweep, more) as kept:
        if kept.result is not None:
            return kept.result
        found = run(
            model, sweep, triage=triage, memory=options.bytes, store=kept.store, step="ablate", progress=progress
        )
        if given.metric is kl:
            found = replace(found, facts={**found.facts, "top_token": top_tokens(model, sweep, found, progress)})
        return kept.finish(found, model, sweep)


def _reference(model: Model, given: MeasuredPrompts, reference: Batch | int | None) -> Batch | None:
    """The prompts that means are taken over, drawn where only their number is given. Raises BadInput."""
    if not isinstance(reference, int):
        return reference
    if given.task is None:
        raise BadInput("--reference draws prompts of a task.", "Give --task NAME, or leave --reference out.")
    return reference_of(given.task, model.tokenizer, reference, given.seed)


def replacements(
    model: Model,
    batch: Batch,
    head_sets: Sequence[HeadSet],
    edit: str,
    mean: str,
    positions: str,
    reference: Batch | None,
) -> Prepare:
    """How the edits of an ablation are made for some examples; see `ablate` for the options. Raises BadInput."""
    everything = sorted({head for head_set in head_sets for head in head_set})
    if edit == "zero":
        return lambda rows: _zero
    if edit == "resample":
        other = batch.counterfactual
        if other is None:
            raise BadInput("These prompts have no counterfactual to take values from.", "Choose --edit mean or zero.")
        demand_aligned(batch, other)

        def resampled(rows: slice) -> Make:
            values = collect(model, other.rows(rows), OnHeads(everything))
            return lambda head_set, at: [Resample(head_set, values, positions=at)]

        return resampled
    if edit == "input":
        read = averaged_inputs(model, everything, batch if reference is None else reference)
        return lambda rows: lambda head_set, at: [Resample(head_set, read.values, positions=at)]
    whole = mean_over(model, everything, batch, mean, positions, reference)

    def averaged(rows: slice) -> Make:
        mine = whole.rows(rows)
        assert isinstance(mine, Mean)
        return lambda head_set, at: [Mean(head_set, mine.values, mine.template, positions=at)]

    return averaged


def _zero(head_set: HeadSet, at: Tensor | None) -> Sequence[Edit]:
    return [Zero(head_set, positions=at)]


def mean_over(
    model: Model, heads: Sequence[HeadId], batch: Batch, mean: str, positions: str, reference: Batch | None
) -> Mean:
    """The means that `batch`'s heads are replaced by; see `ablate`."""
    source = reference or batch.counterfactual or batch
    if reference is None and source is not batch:  # a counterfactual has its prompt's positions and template
        source = replace(
            source, positions={**batch.positions, **source.positions}, labels={**batch.labels, **source.labels}
        )
    if mean == "overall":
        tokens, whole = None, source
        if positions not in ("all", "each"):
            source = side_of(source, [tuple(heads)], "z", positions)
            if positions not in source.positions:
                hint = "Give it one, or take the mean per position."
                raise BadInput(f"The reference has no position '{positions}'.", hint)
            tokens = source.positions[positions].reshape(len(source), -1)
        return Mean.over(model, heads, whole, tokens=tokens)
    template = "template" if mean == "template" else None
    return Mean.over(model, heads, source, per_position=True, template=template, target=batch)


def reference_of(task: Task, tokenizer: Vocabulary, n: int, seed: int) -> Batch:
    """`n` other prompts of a task to take means over: their counterfactuals where the task has them. Raises BadInput."""
    made = task(tokenizer, n, seed + 1)
    return made.counterfactual if made.counterfactual is not None else made


def demand_aligned(batch: Batch, other: Batch) -> None:
    """Raise BadInput unless each prompt is as long as its counterfactual, so that positions mean the same in both."""
    hint = "Values can be put position by position only into prompts of the same length: change the wording."
    mine, theirs = batch.mask.sum(1), other.mask.sum(1)
    apart = (mine != theirs).nonzero().flatten().tolist()
    if apart:
        first = apart[0]
        named = next((name for name in ("line", "row") if name in batch.labels), None)
        where = f"{named.title()} {int(batch.labels[named][first])}" if named is not None else f"Example {first + 1}"
        raise BadInput(
            f"{where}: the prompt has {int(mine[first])} tokens and its counterfactual {int(theirs[first])} "
            f"({len(apart)} such of {len(batch)}).",
            hint,
        )
    if batch.mask.shape != other.mask.shape or not bool((batch.mask == other.mask).all()):
        raise BadInput("The prompts and their counterfactuals are padded differently.", hint)
    if batch.encoder is not None and other.encoder is not None:
        demand_aligned(batch.encoder, other.encoder)
