"""Does a head carry the answer? Its output is put in from a prompt with another answer, and from one with the same answer.

What carries the answer changes the outcome in the first case and not in the second. A head that matters in both does something
that every prompt needs done in its own way: it keeps the run on its course (`trajectory`; 2606.08292), and putting it back after
an ablation restores the answer without its having carried it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import OnHeads, Swap, collect
from headatlas.errors import UnfitTask
from headatlas.heads import HeadId
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.random_heads import scale_of
from headatlas.mining.checks.records import SAME_ANSWER, Check, RemovalEffect
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Task, fitting, held_out

POOL, POOL_TOKENS = 256, 262_144  # prompts, and tokens of all, among which some with the same answer are looked for
MOST = 24  # prompts into which is swapped
FEWEST = 4
TOKENS = 16_384  # of the prompts swapped into, and of as many that are swapped from
SHARE = 0.5  # of what another answer changes; the same answer must change less


class SameAnswer:
    """The control on a task's held-out prompts, which are drawn once for all of its detectors.

    Outputs are swapped at the last position, where the answer is read: prompts of other lengths have no other in common.
    """

    def __init__(self, model: Model, task: Task, metric: Metric, seed: int) -> None:
        self.model, self.task, self.metric, self.seed = model, task, metric, seed

    @cached_property
    def reason(self) -> str:
        """Why the control does not apply to the task; "" where it does."""
        if not self.metric.compares:
            return "the task asks for no answer"
        try:
            pool = self._pool
        except UnfitTask as error:
            return str(error)
        if not {"answer", "wrong"} <= pool.labels.keys() or "end" not in pool.positions:
            return "the task asks for no answer"
        if len(self._donors[0]) < FEWEST:
            return "too few of its prompts share an answer"
        return ""

    @cached_property
    def _pool(self) -> Batch:
        task, words = held_out(self.task) or self.task, self.model.tokenizer
        length = fitting(task, words, 4, self.seed).tokens.shape[1]
        return fitting(task, words, max(4, min(POOL, POOL_TOKENS // length)), self.seed)

    @cached_property
    def _donors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the prompts swapped into, of those with the same answer, and of those with another."""
        most = min(MOST, max(FEWEST, TOKENS // self._pool.tokens.shape[1]))
        found = donors(self._pool, most)
        return found[:, 0], found[:, 1], found[:, 2]

    @cached_property
    def _swaps(self) -> tuple[SetAblation, SetAblation]:
        """Swaps from the same answer, and from another; they share the clean run."""
        rows, same, other = self._donors
        pool, model = self._pool, self.model
        batch, at = pool.rows(rows), pool.positions["end"].reshape(-1, 1)

        def outputs(index: Tensor) -> dict[tuple[str, int], Tensor]:
            return collect(model, pool.rows(index), OnHeads(model.heads), positions=at[index])

        from_same, from_other = outputs(same), outputs(other)
        first = SetAblation(
            model, batch, self.metric, lambda heads: Swap(heads, from_same, positions=at[rows]), at[rows]
        )
        return first, first.instead(lambda heads: Swap(heads, from_other, positions=at[rows]))

    def check(self, heads: Sequence[HeadId], progress: Progress | None = None) -> dict[HeadId, Check]:
        """By head: the share of what another answer changes that the same answer changes, and whether it is small."""
        if self.reason:
            return dict.fromkeys(heads, Check(SAME_ANSWER, "does not apply", note=self.reason))
        same, other = self._swaps
        for way in (same, other):
            way.prepare([[head] for head in heads], progress)
        scale = scale_of(same)
        return {head: compared(same.metric_drop([head]), other.metric_drop([head]), scale, self.seed) for head in heads}


def compared(same: Array, other: Array, scale: float, seed: int = 0) -> Check:
    """The control's outcome, from what both swaps change per example, [example] each.

    Passed where half of the other answer's mean change certainly exceeds the size of the same answer's, failed where it is
    certainly exceeded; the value is the share with a bootstrap interval, negative where the same answer changes the other way.
    """
    both = {"same answer": effect_of(same, scale, None, seed), "another answer": effect_of(other, scale, None, seed)}
    parts = {name: (one.effect, one.low, one.high) for name, one in both.items()}
    whole = both["another answer"]
    if not whole.certain:
        note = "swaps at the last position change nothing for certain"
        return Check(SAME_ANSWER, "does not apply", note=note, parts=parts)
    share = _share(same, other, seed)
    # The same answer may change the metric either way: both signs must stay below half, or either one be above it.
    left = [effect_of(whole.sign * (SHARE * other + sign * same), scale, None, seed) for sign in (1, -1)]
    outcome, note = "weakened", "it is not certain that the same answer changes less than half"
    if all(_above(one) for one in left):
        outcome, note = "passed", "carries the answer"
    elif any(one.high < 0 for one in left):
        outcome, note = "failed", "trajectory: a prompt with the same answer changes as much as any"
    return Check(SAME_ANSWER, outcome, *share, note, parts)  # type: ignore[arg-type]


def _above(effect: RemovalEffect) -> bool:
    return effect.low > 0


def _share(same: Array, other: Array, seed: int) -> tuple[float, float, float]:
    n = len(same)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=1000) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ same) / (weights @ other)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(same.mean() / other.mean()), float(low), float(high)


def donors(pool: Batch, most: int) -> Tensor:
    """[prompt, (itself, one with the same answer, one with another)]: rows of a pool, of prompts that have both.

    The two have as many other labels in common as the pool allows (wording, who is named first ...): nothing but the answer
    is to tell them apart.
    """
    answers = [tuple(sorted({a for a in row if a >= 0})) for row in pool.answer.reshape(len(pool), -1).tolist()]
    texts = [tuple(row[keep].tolist()) for row, keep in zip(pool.tokens, pool.mask, strict=True)]
    names = sorted(name for name, value in pool.labels.items() if name not in ("answer", "wrong") and value.ndim == 1)
    kinds = torch.stack([pool.labels[name] for name in names], 1) if names else torch.zeros(len(pool), 0)
    found = []
    for i, (answer, text) in enumerate(zip(answers, texts, strict=True)):
        turn = [(i + step) % len(pool) for step in range(1, len(pool))]
        same = [j for j in turn if answers[j] == answer and texts[j] != text]
        other = [j for j in turn if not set(answers[j]) & set(answer)]
        if not same or not other:
            continue
        alike = (kinds[same][:, None] == kinds[other]).sum(2)
        j, k = divmod(int(alike.argmax()), len(other))
        found.append((i, same[j], other[k]))
        if len(found) == most:
            break
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)
