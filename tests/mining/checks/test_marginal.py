"""Verdicts near the bar are said to be marginal, and free heads above it are leads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headatlas.heads import HeadId, parse_heads
from headatlas.mining.checks.fresh import others_than
from headatlas.mining.checks.records import RemovalEffect, undecided, unproven
from headatlas.report.leads import leads_of
from headatlas.task import Batch
from tests.mining.test_verdicts import OTHER_KIND, Known, judged

NAN = float("nan")


SIZES = {HeadId(0, head): size for head, size in enumerate((0.01, 0.05, 0.06, 0.07, 0.4))}
STRONG = OTHER_KIND.union(parse_heads("1.1 3.1 4.4"))


class Near(Known):
    """Heads whose effects are multiples of the bar, which is about 0.05 here, scattered over examples."""

    def metric_drop(self, heads) -> np.ndarray:
        mine = [head for head in heads if head in SIZES]
        found = super().metric_drop([head for head in heads if head not in SIZES])
        for head in mine:
            scatter = 1 + 0.4 * np.random.default_rng([self.seed, 9, head.head]).normal(size=self.n)
            found = found + SIZES[head] * scatter
        return found


def test_verdicts_that_other_examples_turn_over_are_marginal():
    heads = tuple(SIZES)
    seeds = [judged(*map(str, heads), known=Near(8, seed), labelled=STRONG).heads for seed in range(10)]
    flips = wrong = 0
    for head in heads:
        causal = [found[head].verdict == "causal" for found in seeds]
        if 0 < sum(causal) < len(seeds):
            flips += 1
            # Of clear verdicts on a head that flips no more than one in twenty may be the rarer one.
            rare = sum(causal) < len(seeds) / 2
            wrong += sum(one == rare and not found[head].marginal for one, found in zip(causal, seeds, strict=True))
    assert flips >= 2, "heads at the bar do flip"
    assert wrong <= 0.05 * flips * len(seeds)
    assert not any(found[heads[-1]].marginal for found in seeds), "far above the bar nothing is marginal"
    assert sum(found[heads[0]].marginal for found in seeds) <= 2, "far below it hardly anything"


@pytest.mark.parametrize(
    ("effect", "bars", "smallest", "open_"),
    [
        (RemovalEffect(0.5, 0.4, 0.6), (0.1, 0.2, 0.3), 0.0, False),
        (RemovalEffect(-0.5, -0.6, -0.4), (0.1, 0.2, 0.3), 0.0, False),
        (RemovalEffect(0.3, 0.15, 0.5), (0.1, 0.2, 0.3), 0.0, True),
        (RemovalEffect(0.15, 0.1, 0.2), (0.14, 0.2, 0.3), 0.0, True),
        (RemovalEffect(0.05, 0.0, 0.1), (0.14, 0.2, 0.3), 0.0, False),
        (RemovalEffect(0.5, -0.1, 1.1), (0.1, 0.2, 0.3), 0.0, True),
        (RemovalEffect(0.5, 0.4, 0.6), (0.1, 0.2, 0.3), 0.45, True),
        (RemovalEffect(0.5, 0.4, 0.6), (NAN, NAN, NAN), 0.45, True),
        (RemovalEffect(0.5, NAN, NAN, few=True), (0.1, 0.2, 0.3), 0.0, False),
    ],
)
def test_an_effect_is_undecided_where_its_difference_from_the_bar_may_be_none(effect, bars, smallest, open_):
    low, bar, high = bars
    effect = RemovalEffect(
        effect.effect, effect.low, effect.high, random_effect=bar, few=effect.few, random_low=low, random_high=high
    )
    assert undecided(effect, smallest) is open_


class Scattered(Known):
    """0.0 matters ten times as much as the bar, and so unevenly that eight examples leave its p at about 0.05."""

    def metric_drop(self, heads) -> np.ndarray:
        found = super().metric_drop([head for head in heads if head != HeadId(0, 0)])
        return found + (np.resize([2.5, -1.0, 1.0, -0.5], self.n) if HeadId(0, 0) in heads else 0.0)


def test_an_effect_that_may_be_luck_is_taken_on_more_examples_and_told_where_there_are_none():
    asked = []

    def more(have: int, wanted: int) -> Scattered:
        asked.append(wanted)
        return Scattered(wanted - have, seed=wanted)

    few = judged("0.0", "1.1", known=Scattered(8), labelled=STRONG).heads[HeadId(0, 0)]
    assert few.alone.random_p < 0.05 < few.alone.p
    assert few.marginal
    many = judged("0.0", "1.1", known=Scattered(8), labelled=STRONG, more=more).heads[HeadId(0, 0)]
    assert asked == [16, 32, 64, 128][: len(asked)]
    assert len(asked) > 1
    assert many.alone.p < 0.001
    assert (many.verdict, many.marginal) == ("causal", False)


@pytest.mark.parametrize(
    ("effect", "p", "random_p", "smallest", "luck"),
    [
        (0.5, 0.01, 0.01, 0.1, True), (0.5, 0.0009, 0.01, 0.1, False), (-0.5, 0.01, 0.05, 0.1, True), (0.5, 0.01, 0.06, 0.1, False),
        (0.05, 0.01, 0.01, 0.1, False), (0.5, 0.01, NAN, 0.1, True), (0.5, NAN, 0.01, 0.1, False),
    ],
)  # fmt: skip
def test_an_effect_is_unproven_where_its_size_counts_and_its_p_is_not_small(effect, p, random_p, smallest, luck):
    assert unproven(RemovalEffect(effect, effect, effect, random_p=random_p, p=p), smallest) is luck


def test_free_heads_above_the_bar_are_leads():
    found = judged("1.1", labelled=())
    assert set(found.leads) == OTHER_KIND
    assert set(judged("1.1").leads) == set(parse_heads("3.1 4.4")), "heads of a known kind are none"
    effects = {str(head): effect for head, effect in found.leads.items()}
    detectors = [
        {"name": "one", "task": "a", "heads": [{"layer": 1, "head": 1}], "group": {"leads": effects, "free_heads": 44}},
        {"name": "two", "task": "b", "heads": [{"layer": 1, "head": 4}], "group": None},
    ]
    (told,) = leads_of(detectors)
    assert {head for head, _ in told.heads} == {str(head) for head in OTHER_KIND} - {"1.4"}
    assert str(told).startswith("a: 3 of 44 heads of no known kind (7%): ")


def test_further_examples_are_none_of_those_before():
    def batch(*rows: int) -> Batch:
        tokens = torch.tensor(rows)[:, None].expand(-1, 3)
        return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {}, {}, {})

    found = others_than([batch(1, 2), batch(3)], batch(2, 4, 3, 5, 4, 6), 2)
    assert found is not None
    assert found.tokens[:, 0].tolist() == [4, 5]
    assert others_than([batch(1, 2), batch(3)], batch(3, 1), 2) is None
