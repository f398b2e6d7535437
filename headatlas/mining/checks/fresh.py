"""Examples on which verdicts rest: others than those that heads were found on, short, and few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headatlas.errors import UnfitTask
from headatlas.model import Model
from headatlas.task import Batch, Task, fitting, held_out

EXAMPLES = 8  # held-out examples on which heads are ablated, more where they are shorter than
CONTEXT = 48  # tokens, their longest length where the task allows it: a verdict costs hundreds of runs
LONGER = 72  # where it does not allow that
LOSSES = 16  # positions per example at which a loss is read
TOKENS = 32_768  # of all examples together, at least four: their keys and values are kept in memory
SEED = 1_000_003


def fresh(model: Model, task: Task, n: int, seed: int, examples: int | None = None, *, whole: bool = False) -> Batch:
    """Examples for verdicts: of the task's other half where it has one, short where it can be; about as many tokens always.

    n: no more than these. examples: exactly so many, or what the task has. whole: with every position at which the task reads
    a loss, which detectors need.
    """
    other, seed = held_out(task) or task, seed + SEED
    for words in (model.tokenizer.within(CONTEXT), model.tokenizer.within(LONGER), model.tokenizer):
        try:
            if examples is not None:
                found = fitting(other, words, examples, seed)
                return found if whole else thinned(found)
            few = other(words, min(n, EXAMPLES), seed)
        except UnfitTask:
            continue
        count = EXAMPLES * CONTEXT // few.tokens.shape[1]
        if count <= len(few):
            return thinned(few.rows(slice(0, max(4, TOKENS // few.tokens.shape[1]))))
        return thinned(fitting(other, words, min(n, count), seed))
    return thinned(fitting(other, model.tokenizer, min(n, EXAMPLES), seed))


def others_than(known: Sequence[Batch], drawn: Batch, n: int) -> Batch | None:
    """Up to `n` examples of `drawn` that are in none of `known`, and fit into memory; None without any."""
    seen = {_tokens(batch, i) for batch in known for i in range(len(batch))}
    fits = max(1, TOKENS // drawn.tokens.shape[1])
    new = {_tokens(drawn, i): i for i in reversed(range(len(drawn)))}
    rows = sorted(i for text, i in new.items() if text not in seen)[: min(n, fits)]
    return drawn.rows(rows) if rows else None


def _tokens(batch: Batch, i: int) -> tuple[int, ...]:
    return tuple(batch.tokens[i][batch.mask[i]].tolist())


def thinned(batch: Batch) -> Batch:
    """The batch with the loss read at no more than about LOSSES positions per example: logits cost much memory and time."""
    positions = batch.positions.get("predict")
    if positions is None or positions.shape[1] <= LOSSES:
        return batch
    return replace(batch, positions={**batch.positions, "predict": positions[:, :: positions.shape[1] // LOSSES]})
