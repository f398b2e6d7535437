"""When heads pass a detector: births, deaths, the first pass with an interval on the step, and what their roles become."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from headatlas.heads import HeadId
from headatlas.ops import stats
from headatlas.ops.types import Array

LEVEL = 0.01  # of q, as for observed heads
DRAWS = 400
_RISE, _RISEN = 0.2, 0.8  # of the whole way of a metric: where its drop begins, and where it is over


@dataclass(frozen=True)
class Series:
    """One detector over the checkpoints. values, control: [checkpoint, example, head], NaN where undefined."""

    detector: str
    head_type: str
    task: str
    minimum_effect: float
    values: Array
    control: Array

    @property
    def excess(self) -> Array:
        """[checkpoint, head] mean score above chance."""
        return np.stack([stats.mean(a - b) for a, b in zip(self.values, self.control, strict=True)])

    @property
    def p(self) -> Array:
        """[checkpoint, head] of "the score exceeds chance by at most the minimum effect", as in a run."""
        least = self.control + self.minimum_effect
        return np.stack([stats.paired_p(a, b) for a, b in zip(self.values, least, strict=True)])


@dataclass(frozen=True)
class Drop:
    """The steps between which a task's metric got better: from a fifth of its whole way to four fifths.

    Each end lies between two checkpoints; begins and ends are the outer ones.
    """

    task: str
    metric: str
    begins: int
    ends: int


@dataclass(frozen=True)
class Life:
    """A head from when it passes a detector to when it no longer does.

    born: the step of the first checkpoint at which it passes; after: of the checkpoint before, None where there is none,
    so that the head formed between the two. low, high: 95% interval of the forming over draws of examples, from the
    checkpoint before the earliest pass to the latest one; high None: in some draws it never passes. died: the first step at
    which the mean score is no longer above the minimum effect; None: it lives at the end. against_drop: "before", "during"
    or "after" the task's metric got better, by the interval; "" where the metric did not.
    """

    head: HeadId
    detector: str
    head_type: str
    after: int | None
    born: int
    low: int
    high: int | None
    died: int | None
    against_drop: str


@dataclass(frozen=True)
class RoleChange:
    """A head that got a second role. how: "becomes" where the first is gone by then or goes later, "adds" where it stays.

    step: the first checkpoint at which it passes as `to`.
    """

    head: HeadId
    before: str
    to: str
    how: str
    step: int


def false_discovery(series: Sequence[Series]) -> list[Array]:
    """[checkpoint, head] of q for each detector, counted over all heads, detectors and checkpoints (Benjamini & Hochberg 1995)."""
    p = [one.p for one in series]
    q = stats.false_discovery(np.concatenate([part.ravel() for part in p]))
    return [
        part.reshape(one.shape)
        for part, one in zip(np.split(q, np.cumsum([one.size for one in p])[:-1]), p, strict=True)
    ]


def bar_of(q: Sequence[Array]) -> float:
    """The p below which a single test counts, when `false_discovery` gave these q: LEVEL times the share of tests that pass."""
    every = np.concatenate([part.ravel() for part in q])
    return float(LEVEL * (every < LEVEL).sum() / max(np.isfinite(every).sum(), 1))


def alive(q: Array, excess: Array, minimum_effect: float) -> Array:
    """[checkpoint, head] whether a head passes: from q < LEVEL on until its mean is no longer above the minimum effect.

    A head near the bar would be born and die at every other checkpoint otherwise.
    """
    state = np.zeros(q.shape, bool)
    now = np.zeros(q.shape[1], bool)
    for number, (certain, above) in enumerate(zip(q < LEVEL, excess > minimum_effect, strict=True)):
        now = (now & above) | certain
        state[number] = now
    return state


def lives(
    one: Series, q: Array, bar: float, heads: Sequence[HeadId], steps: Sequence[int], drops: Mapping[str, Drop]
) -> list[Life]:
    """Every life of every head under one detector, in the order of births. bar: see `bar_of`."""
    state = alive(q, one.excess, one.minimum_effect)
    found = []
    for column, head in enumerate(heads):
        for number, (born, died) in enumerate(_stretches(state[:, column])):
            low, high = _interval(one, column, bar, steps) if not number else (_before(born, steps), steps[born])
            found.append(
                Life(
                    head, one.detector, one.head_type, steps[born - 1] if born else None, steps[born],
                    low, high, None if died is None else steps[died], _against(low, high, drops.get(one.task)),
                )
            )  # fmt: skip
    return sorted(found, key=lambda life: (life.born, life.head))


def _stretches(state: Array) -> list[tuple[int, int | None]]:
    """(first, first after it or None) of each run of True."""
    edges = np.diff(np.concatenate([[0], state.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(a), int(b) if b < len(state) else None) for a, b in zip(starts, ends, strict=True)]


def _before(number: int, steps: Sequence[int]) -> int:
    return steps[max(number - 1, 0)]


def _interval(one: Series, column: int, bar: float, steps: Sequence[int]) -> tuple[int, int | None]:
    """95% interval of the step at which a head forms: examples are drawn anew, the same for all checkpoints."""
    off = one.values[:, :, column] - one.control[:, :, column] - one.minimum_effect  # [checkpoint, example]
    n = off.shape[1]
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)  # [draw, example]
    known = ~np.isnan(off)
    filled = np.where(known, off, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = weights @ known.T  # [draw, checkpoint]
        centre = weights @ filled.T / count
        spread = np.sqrt(np.maximum(weights @ (filled**2).T / count - centre**2, 0.0) * count / (count - 1))
        t = np.where(spread > 1e-12, centre / (spread / np.sqrt(count)), np.sign(centre) * np.inf)
    passes = (count >= 3) & (student.sf(t, np.maximum(count - 1, 1)) <= bar)
    first = np.where(passes.any(1), passes.argmax(1), len(steps))
    low, high = np.quantile(first, [0.025, 0.975], method="nearest").astype(int)
    return _before(min(low, len(steps) - 1), steps), steps[high] if high < len(steps) else None


def _against(low: int, high: int | None, drop: Drop | None) -> str:
    if drop is None:
        return ""
    if high is not None and high <= drop.begins:
        return "before"
    return "after" if low >= drop.ends else "during"


def drop_of(task: str, metric: str, values: Array, steps: Sequence[int]) -> Drop | None:
    """The steps in which a task's metric, [checkpoint, example] with higher better, went most of its way up; None where it did not.

    It did where its best checkpoint is better than the first, by a paired t-test at 0.01.
    """
    means = np.array([stats.mean(one[:, None])[0] for one in values])
    if not np.isfinite(means).any():
        return None
    best = int(np.nanargmax(means))
    if not stats.paired_p(values[best][:, None], values[0][:, None])[0] < LEVEL:
        return None
    way = (means - means[0]) / (means[best] - means[0])
    first, last = (int(np.argmax(way >= share)) for share in (_RISE, _RISEN))
    return Drop(task, metric, _before(first, steps), steps[last])


def role_changes(found: Sequence[Life]) -> list[RoleChange]:
    """Heads that pass as one head type and at a later checkpoint as another: what was there before, and whether it stays."""
    changes = []
    for head in sorted({life.head for life in found}):
        born: dict[str, Life] = {}
        for life in found:
            if life.head == head:
                born.setdefault(life.head_type, life)
        gone = {
            kind: max(_end(life) for life in found if life.head == head and life.head_type == kind) for kind in born
        }
        for kind, first in born.items():
            for other, later in born.items():
                if later.born > first.born:
                    how = "becomes" if gone[kind] < gone[other] else "adds"
                    changes.append(RoleChange(head, kind, other, how, later.born))
    return changes


def _end(life: Life) -> float:
    return math.inf if life.died is None else life.died
