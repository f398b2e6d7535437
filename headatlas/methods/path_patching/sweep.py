"""Path patching: what one head tells another one, or the logits, directly, with all other heads held as they were.

Wang et al. 2022 (IOI), section 3.1; Goldowsky-Dill et al. 2023. For a sender h and a receiver R: (1) a run on the prompts and
(2) one on their counterfactuals are kept; (3) the prompts are run with h giving what it gave in the other run and all other
heads what they gave in (1), and what enters R is noted; (4) the prompts are run with that put into R, and measured.

Since heads are held in (3), a token's change stays with the token: only the tokens at which something is sent and
received are computed, only in the blocks between sender and receiver, for many senders side by side. (4) is a replayed run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headatlas.choices import DIRECTION, MLPS
from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadSets
from headatlas.methods.former import former_arguments
from headatlas.methods.options import RunOptions
from headatlas.methods.path_patching.frozen_run import demand_tokenwise
from headatlas.methods.path_patching.piece import PathPiece, Paths
from headatlas.methods.path_patching.receivers import Receiver, parse_receivers
from headatlas.methods.prompts import Prompts, prompts_for
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.cached_runs import tokens_a_pass
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.plan import (
    ChunkStore,
    Make,
    Sweep,
    examples_at_once,
    head_sets_for,
    metric_of,
    positions_of,
)
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.progress import Progress, Silent
from headatlas.task.answers import kl


@former_arguments(RunOptions)
def path_patch(
    model: Model,
    batch: Inputs | Prompts,
    senders: HeadSets | None = None,
    receivers: str | Receiver | Sequence[str | Receiver] = ("logits",),
    *,
    direction: str = "noising",
    positions: str = "all",
    mlps: str = "recomputed",
    group: bool = False,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> HeadEffects:
    """The effect of each path from a sender (a head, or heads together; all heads if None) to a receiver.

    receivers: "logits", "mlp:5", or q, k or v of heads that receive together ("q:9.6 9.9"), with "@end" behind for a named
    position of their own; see `Receiver`. group: keys and values may be named by one head of their KV group.
    direction: noising sends the counterfactual's value in the clean run, as the paper does; denoising the clean value in
    the run on the counterfactual. positions: where it is sent and received ("all", or a named one such as "end"): with all
    other heads held, what is sent at a token arrives at that token. mlps: those between are recomputed, as in the
    paper, or frozen, which leaves the direct path alone. The other options are those of `patch`.

    Returns values [example, sender, receiver]; receivers stand in the place of positions, and their names in
    `.positions`. NaN where a sender does not come before a receiver. Raises BadInput, UnsupportedModel.
    """
    options, progress = options or RunOptions(), progress or Silent()
    DIRECTION.demand(direction)
    MLPS.demand(mlps)
    if positions == "each":
        raise BadInput("Paths are not followed for each position at once.", "Choose all, or a named position.")
    given = prompts_for(model, batch, progress, unanswered=kl, settles=True)
    prompts, metric, other = given.batch, given.metric, given.batch.counterfactual
    if other is None:
        raise BadInput("Path patching needs counterfactual prompts.", "Choose a task or prompts that have them.")
    demand_aligned(prompts, other)
    found = parse_receivers(receivers, model, group=group)
    named_positions = {
        one.name: positions_of(prompts, one.position or positions)[one.position or positions] for one in found
    }
    head_sets = head_sets_for(model, senders, "z")
    everything = sorted({head for head_set in head_sets for head in head_set})
    ran, source = (other, prompts) if direction == "denoising" else (prompts, other)
    demand_tokenwise(model, ran, metric.positions(prompts))

    def prepare(rows: slice) -> Make:
        values = collect(model, source.rows(rows), OnHeads(everything))
        return lambda head_set, at: [Resample(head_set, values, positions=at)]

    facts = {
        "method": "path patching",
        "positions": positions,
        "receivers": [one.name for one in found],
        "mlps": mlps,
        **given.facts,
    }
    sweep = Sweep(
        direction,
        prompts,
        metric,
        head_sets,
        named_positions,
        "z",
        prepare,
        other if direction == "denoising" else None,
        facts,
    )
    with checkpoint.folder(options.out, model, sweep, {}) as kept:
        if kept.result is not None:
            return kept.result
        paths = Paths(model, sweep, found, mlps == "frozen", options.bytes)
        unchanged = metric_of(model, prompts, metric, run_on=None if direction == "denoising" else other)
        return kept.finish(replace(_measured(paths, kept.store, progress), other=unchanged), model, sweep)


def _measured(paths: Paths, store: ChunkStore, progress: Progress) -> HeadEffects:
    """Every pair on every example, in pieces of examples and of senders that fit into the memory."""
    began, sweep, receivers = time.perf_counter(), paths.sweep, paths.receivers
    n, size = len(sweep.batch), examples_at_once(paths.model, sweep, paths.memory)
    values = np.full((n, len(sweep.head_sets), len(receivers)), np.nan)
    base = np.full(n, np.nan)
    forwards, notes = 0.0, list[str]()
    bands = _bands(paths, size)
    total = len(sweep.head_sets) * len(receivers) * len(range(0, n, size))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        names = [f"{start}-{rows.stop}.{band[0]}-{band[-1]}" for band in bands]
        known, clean = [store.get(name) for name in names], store.get(f"{start}-{rows.stop}.base")
        piece: PathPiece | None = None
        if clean is None or any(found is None for found in known):
            piece = PathPiece(paths, rows)
            clean = piece.cached.clean
            store.put(f"{start}-{rows.stop}.base", clean)
        base[rows] = clean
        for band, name, found in zip(bands, names, known, strict=True):
            if found is None:
                assert piece is not None
                found = piece.measure(band)
                store.put(name, found)
            values[rows, band[0] : band[-1] + 1] = found
            progress.advance("path", len(band) * len(receivers), of=total)
        if piece is not None:
            forwards += piece.forwards * (rows.stop - rows.start) / n
            notes += [note for note in piece.cached.notes if note not in notes]
    facts = {
        **sweep.facts,
        "examples_at_once": size,
        "forwards": round(forwards, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "notes": notes,
    }
    values, base = (sweep.metric.settled(one, sweep.batch) for one in (values, base))
    return HeadEffects(
        sweep.kind, sweep.head_sets, tuple(one.name for one in receivers), values, base, None, None, facts
    )


def _bands(paths: Paths, n_examples: int) -> list[list[int]]:
    """Numbers of the senders in runs of neighbours that fill a pass."""
    length = paths.sweep.batch.tokens.shape[1]
    width = max(
        positions.shape[1] if positions is not None else 1 if one.kind == "logits" else length
        for one, positions in zip(paths.receivers, paths.sweep.positions.values(), strict=True)
    )
    step = max(8, tokens_a_pass(paths.model) // (width * n_examples))
    numbers = list(range(len(paths.sweep.head_sets)))
    return [numbers[start : start + step] for start in range(0, len(numbers), step)]
