"""A second family of prompts, and single prompts: what is said of written numbers."""

from __future__ import annotations

import numpy as np

from headatlas.mining.checks import over_prompts, transfer
from headatlas.task import tasks


def test_every_task_names_a_second_family():
    without = [name for name, one in tasks().items() if one.second is None]
    assert without == []
    for one in tasks().values():
        assert one.second.doc
        assert one.second.metric == one.metric
        assert one.second.second is None


def test_score_and_effect_transfer_together_in_part_or_not():
    rng = np.random.default_rng(0)
    spread = 0.05 * rng.normal(size=16)
    assert transfer.held(0.5 + spread, 0.1)[0] == "passed"
    assert transfer.held(0.02 + spread / 5, 0.1)[0] == "failed"
    assert transfer.held(0.1 + spread, 0.1)[0] == "weakened"
    for sign in (1, -1):
        assert transfer.kept(sign * (1 + spread), sign, 0.1, 1.0)[0] == "passed"
        assert transfer.kept(-sign * (1 + spread), sign, 0.1, 1.0)[0] == "failed"
        assert transfer.kept(sign * (0.01 + spread / 10), sign, 0.1, 1.0)[0] == "failed"
    yes, no = ("passed", (1.0, 0.9, 1.1)), ("failed", (0.0, -0.1, 0.1))
    cases = [(yes, yes, "passed"), (yes, no, "weakened"), (no, yes, "failed")]
    for score, effect, outcome in cases:
        assert transfer.together({"score above chance": score, "effect": effect}).outcome == outcome
    assert transfer.together({"effect": no}).note == "does not transfer: effect lost"
    assert transfer.together({}).outcome == "does not apply"


def test_a_head_that_scores_on_one_prompt_only_is_visible():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(32, 40))
    values[:, 3], values[:, 7], values[1:, 9], values[0, 9] = 2.0, -1.0, -1.0, 90.0
    values[5, 3] = np.nan
    always, never, once = (over_prompts.check(values, head) for head in (3, 7, 9))
    assert (always.outcome, always.value, always.note) == ("passed", 1.0, "top ten on 31 of 31 prompts")
    assert (never.outcome, never.value) == ("failed", 0.0)
    assert (once.outcome, once.value, once.parts["score"]) == ("failed", 1 / 32, (-1.0, -1.0, -1.0))
    assert values[:, 9].mean() > np.sort(values.mean(0))[-4], "by its mean it is one of the strongest"
    for head in range(40):
        ranks = [(row[~np.isnan(row)] > row[head]).sum() for row in values if not np.isnan(row[head])]
        assert over_prompts.check(values, head).value == np.mean(np.array(ranks) < 10)
    assert over_prompts.check(values[:, :8], 3).outcome == "does not apply"
