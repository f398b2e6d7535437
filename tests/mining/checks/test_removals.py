"""Three removals are what the plain model gives, and a verdict that depends on which is said to."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from headatlas.heads import HeadId
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.removals import Removals, three
from headatlas.model import Model
from tests.mining import echo
from tests.mining.checks.plain import logit_difference, replaced, z_of


def test_the_three_removals_are_what_the_plain_model_gives(model: Model):
    batch = echo.echo_swapped(model.tokenizer, 6, 1)
    ways = three(ablated(model, batch, echo.echo.metric, {}))
    assert list(ways) == ["zero", "mean", "resample"]
    clean = logit_difference(model, batch)
    for head in (HeadId(0, 0), HeadId(1, 1)):
        z = z_of(model, head, batch)
        other = z_of(model, head, batch.counterfactual)
        news = {"zero": torch.zeros_like(z), "mean": z.mean((0, 1)).expand_as(z), "resample": other}
        for kind, new in news.items():
            with replaced(model, head, lambda z, new=new: new):
                expected = clean - logit_difference(model, batch)
            assert np.allclose(ways[kind].metric_drop([head]), expected, atol=1e-4), (kind, head)
            assert np.abs(expected).max() > 1e-3


def test_without_other_prompts_each_example_takes_the_next_of_its_length(model: Model):
    batch = echo.echo(model.tokenizer, 5, 2)
    head = HeadId(1, 1)
    way = three(
        ablated(
            model,
            batch,
            echo.echo.metric,
            dict.fromkeys(((s.stack, s.index) for s in model.layers), torch.zeros(4, 16)),
        )
    )
    z = z_of(model, head, batch).roll(-1, 0)
    with replaced(model, head, lambda _: z):
        expected = logit_difference(model, batch)
    assert np.allclose(way["resample"].metric_drop([head]), logit_difference(model, batch) - expected, atol=1e-4)


class Written:
    """Three removals whose effects are written down: 0.0 agrees, 0.1 is lost to zeros alone, 0.2 is near the bar, others little."""

    SIZES: ClassVar = {(0, 0): (2.0, 1.9, 2.1), (0, 1): (1.5, 0.0, 0.0), (0, 2): (0.32, 0.27, 0.29)}

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def prepare(self, sets, progress=None) -> None:
        pass

    def metric_drop(self, heads) -> np.ndarray:
        (head,) = heads
        size = self.SIZES.get(tuple(head[:2]), (0.01 + 0.01 * head.head,) * 3)[self.kind]
        return size * (1 + 0.2 * np.random.default_rng([*head[:2]]).normal(size=16))


def test_a_verdict_that_depends_on_the_removal_is_said_to(model: Model, monkeypatch: pytest.MonkeyPatch):
    own = ablated(model, echo.echo_swapped(model.tokenizer, 16, 1), echo.echo.metric, {})
    free = [HeadId(2, i) for i in range(4)]
    bench = Bench(own, free)
    asked = Removals(bench)
    asked.ways = {kind: Written(i) for i, kind in enumerate(("zero", "mean", "resample"))}  # type: ignore[assignment]
    monkeypatch.setattr("headatlas.mining.checks.removals._bars", lambda drops, *_: dict.fromkeys(drops, 0.28))
    found = asked.check([HeadId(0, 0), HeadId(0, 1), HeadId(0, 2)], 0.1)
    assert {str(head): one.outcome for head, one in found.items()} == {
        "0.0": "passed",
        "0.1": "failed",
        "0.2": "weakened",
    }
    assert "zero only" in found[HeadId(0, 1)].note
    assert found[HeadId(0, 1)].parts["mean"] == (0.0, 0.0, 0.0)
    one = found[HeadId(0, 0)]
    assert one.low <= one.value <= one.high <= 1.0
