"""Which heads of a model are others in a second one, judged on paired examples and counted over all heads and detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import t

from headatlas.heads import HeadId
from headatlas.mining.comparison.runs import FinishedRun, Measurement, demand_comparable
from headatlas.ops import stats
from headatlas.ops.types import Array

SCHEMA = "headatlas/comparison/1"
LEVEL = 0.01  # of q, as for observed heads
OUTCOMES = ("lost", "weakened", "gained", "strengthened")
# Facts of run.json in which a model and what was made of it may differ; those that differ are told.
_MODEL_FACTS = (
    "sha256",
    "dtype",
    "attention_path",
    "adapters",
    "buffers",
    "modules",
    "configuration",
    "tokenizer",
    "bos",
)


@dataclass(frozen=True)
class Change:
    """One head under one detector in both runs.

    score_a, score_b: mean scores; chance_a, chance_b: what they would be without the structure. change: by how much the score
    above chance is higher in B, mean over paired examples, with its 95% interval [low, high]. p: of "it changed by at most the
    detector's minimum effect"; q: over all heads and detectors of the comparison. outcome: lost, weakened, gained,
    strengthened; "" where no change is shown, or where neither run observes the head. verdict_a, verdict_b: None where a run
    does not observe the head.
    """

    detector: str
    head_type: str
    head: HeadId
    score_a: float
    score_b: float
    chance_a: float
    chance_b: float
    change: float
    low: float
    high: float
    p: float
    q: float
    outcome: str
    verdict_a: str | None
    verdict_b: str | None

    @property
    def data(self) -> dict[str, Any]:
        """As JSON has it."""
        place = {"id": str(self.head), "stack": self.head.stack, "layer": self.head.layer, "head": self.head.head}
        return {**vars(self), **place}


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side: every head under every detector that both asked. left_out: other detectors, with the reason."""

    a: FinishedRun
    b: FinishedRun
    detectors: tuple[str, ...]
    left_out: Mapping[str, str]
    rows: tuple[Change, ...]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What was lost, weakened, gained and strengthened, in this order, the clearest first."""
        found = [row for row in self.rows if row.outcome]
        return tuple(sorted(found, key=lambda row: (OUTCOMES.index(row.outcome), row.q, -abs(row.change))))

    @cached_property
    def heads(self) -> tuple[HeadId, ...]:
        """The heads that changed under at least one detector."""
        return tuple(sorted({row.head for row in self.changes}))

    @cached_property
    def other_verdicts(self) -> tuple[Change, ...]:
        """Heads that both runs observe, with verdicts that differ. Not tested: verdicts keep no numbers by example."""
        return tuple(row for row in self.rows if row.verdict_a and row.verdict_b and row.verdict_a != row.verdict_b)

    @property
    def counts(self) -> dict[str, int]:
        """How many changes of each kind, a head counted once for each detector."""
        return {outcome: sum(row.outcome == outcome for row in self.changes) for outcome in OUTCOMES}

    @property
    def data(self) -> dict[str, Any]:
        """All but the rows without a change, as plain data."""
        differs = [name for name in _MODEL_FACTS if self.a.facts.get(name) != self.b.facts.get(name)]
        unobserved = [row.data for row in self.rows if row.q < LEVEL and not row.outcome]
        return {
            "schema": SCHEMA,
            "a": _told(self.a),
            "b": _told(self.b),
            "n": self.a.facts.get("n"),
            "seed": self.a.facts.get("seed"),
            "headatlas": self.a.facts.get("headatlas"),
            "models_differ_in": differs,
            "detectors": list(self.detectors),
            "left_out": dict(self.left_out),
            "level": LEVEL,
            "tests": int(sum(not np.isnan(row.q) for row in self.rows)),
            "undefined": int(sum(np.isnan(row.q) for row in self.rows)),
            "counts": self.counts,
            "heads": [str(head) for head in self.heads],
            "changes": [row.data for row in self.changes],
            "other_verdicts": [row.data for row in self.other_verdicts],
            "changed_but_not_observed": unobserved,
        }

    def __repr__(self) -> str:
        told = ", ".join(f"{number} {outcome}" for outcome, number in self.counts.items())
        return f"Comparison({self.a.model['name']}, {self.b.model['name']}: {len(self.heads)} heads changed; {told})"


def compare_runs(a: FinishedRun, b: FinishedRun, detectors: Sequence[str] | None = None) -> Comparison:
    """Every head of two runs under every detector (or those named) that both asked. Raises BadInput, UnknownName.

    A change counts where it is larger than the detector's minimum effect at q < 0.01 (Benjamini & Hochberg 1995), counted
    over all heads and detectors of the comparison.
    """
    chosen, left = demand_comparable(a, b, detectors)
    both = [(a.measured[name], b.measured[name]) for name in chosen]
    pairs = [(first.beside(second), second.beside(first)) for first, second in both]
    p = [changed_p(*pair) for pair in pairs]
    q = np.split(stats.false_discovery(np.concatenate(p)), np.cumsum([len(part) for part in p])[:-1])
    rows = [row for pair, *tested in zip(pairs, p, q, strict=True) for row in _rows(*pair, *tested)]
    return Comparison(a, b, tuple(chosen), left, tuple(rows))


def changed_p(a: Measurement, b: Measurement) -> Array:
    """Two-sided p [head] that a head changed by at most the minimum effect; NaN with fewer than three paired examples.

    Twice the smaller of two paired t-tests, up and down. In each, both the score and the score above chance must have moved:
    the larger of their p-values holds (an intersection-union test, Berger 1982). The score above chance is what makes a head
    observed; but some chance levels are one number for all examples, an estimate whose scatter the examples do not show, and
    a change of such a number alone is none of the head.
    """
    score, excess = b.values - a.values, (b.values - b.control) - (a.values - a.control)
    least = np.full_like(score, a.minimum_effect)
    sides = [
        np.maximum(stats.paired_p(sign * score, least), stats.paired_p(sign * excess, least)) for sign in (1.0, -1.0)
    ]
    found: Array = np.minimum(1.0, 2.0 * np.minimum(*sides))
    return found


def _rows(a: Measurement, b: Measurement, p: Array, q: Array) -> list[Change]:
    excess = (b.values - b.control) - (a.values - a.control)  # [example, head]
    low, high = _interval(excess)
    means = (stats.mean(part) for part in (a.values, b.values, a.control, b.control, excess))
    columns = dict(zip(("score_a", "score_b", "chance_a", "chance_b", "change"), means, strict=True))
    columns |= {"low": low, "high": high, "p": p, "q": q}
    found = []
    for i, head in enumerate(a.heads):
        numbers = {name: float(column[i]) for name, column in columns.items()}
        verdict_a, verdict_b = (one.observed[head]["verdict"] if head in one.observed else None for one in (a, b))
        outcome = _outcome(numbers["change"], numbers["q"], in_a=head in a.observed, in_b=head in b.observed)
        found.append(
            Change(a.name, a.head_type, head, **numbers, outcome=outcome, verdict_a=verdict_a, verdict_b=verdict_b)
        )
    return found


def _interval(excess: Array) -> tuple[Array, Array]:
    """Student's 95% interval (low, high) of the mean over examples of [example, head], which goes with the t-test of `changed_p`.

    The studentised bootstrap of scores has no end where all examples but one or two differ by nearly the same, as they do
    where a head is lost: resamples without the one have next to no spread.
    """
    count, centre = (~np.isnan(excess)).sum(0), stats.mean(excess)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.nansum((excess - centre) ** 2, 0) / (count - 1))
        reach = t.ppf(0.975, np.maximum(count - 1, 1)) * spread / np.sqrt(count)
    return centre - reach, centre + reach


def _outcome(change: float, q: float, *, in_a: bool, in_b: bool) -> str:
    """What became of a head. One that is observed in one run only, and shows no change, is merely near the bar in both."""
    if not q < LEVEL or not (in_a or in_b):
        return ""
    if change < 0:
        return "weakened" if in_b else "lost"
    return "strengthened" if in_a else "gained"


def _told(run: FinishedRun) -> dict[str, Any]:
    facts: Mapping[str, Any] = run.facts
    names = ("id", "sha256", "revision", "dtype", "verdict")
    return {"model": run.model["name"], "run": str(run.folder), **{name: facts.get(name) for name in names}}
