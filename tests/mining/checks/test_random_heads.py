"""The bar that random heads set: as rare as it says, hardly moved by which heads are measured, and not by dead ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from headatlas.heads import HeadId
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.checks import random_heads
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.random_heads import LARGEST, LOUDEST, OTHERS, SAMPLE, controls
from headatlas.mining.checks.tail import Tail
from headatlas.mining.scan import scan_task
from tests.mining import echo


@pytest.mark.parametrize("n", [6, 12, 30, 60, 250])
def test_a_random_effect_is_as_rare_as_the_tail_says(n: int):
    rng = np.random.default_rng(n)
    p = []
    for _ in range(400):
        sizes = np.exp(rng.normal(-4.0, 1.5, n + 1))
        tail = Tail.of([np.array([size]) for size in sizes[1:]])
        assert tail is not None
        p.append(tail.p(float(sizes[0])))
    assert np.mean(np.array(p) < 0.05) <= 0.08
    assert np.mean(np.array(p) < 0.01) <= 0.03


@pytest.mark.parametrize("n", [3, 7, 39, 40, 300])
def test_sizes_and_chances_belong_together(n: int):
    tail = Tail(np.random.default_rng(0).normal(0.0, 1.0, n), np.zeros(n))
    sizes = np.exp(np.linspace(-4, 6, 60))
    chances = [tail.p(float(size)) for size in sizes]
    assert chances == sorted(chances, reverse=True)
    for p in (0.05, 0.01):
        assert tail.p(tail.size_at(p)) == pytest.approx(p, rel=1e-6)
    assert Tail.of([np.zeros(3), np.ones(3), np.ones(3)]) is None


@pytest.mark.parametrize("n", [3, 8, 10, 26, 39])
def test_a_rare_size_is_seldom_called_ordinary_however_few_heads_there_are(n: int):
    rng = np.random.default_rng(n)
    rare = float(np.exp(-4.0 + 1.5 * norm.isf(0.05)))  # as 5% of all heads have it
    ordinary, bars = [], []
    for _ in range(2000):
        tail = Tail.of_sizes(np.exp(rng.normal(-4.0, 1.5, n)))
        assert tail is not None
        ordinary.append(tail.ordinary(0.05))
        bars.append(tail.size_at(0.05))
    assert np.mean(np.array(ordinary) >= rare) <= 0.06
    assert (np.array(ordinary) <= np.array(bars)).all()
    assert np.mean(ordinary) > 0


def test_what_is_ordinary_is_what_a_few_of_few_heads_reach():
    tail = Tail.of_sizes(np.arange(1.0, 11.0))
    # Of ten heads of which each is rare with 5%, two or more are so with 8.6%, three or more with 1.2%.
    assert tail is not None
    assert tail.ordinary(0.05) == pytest.approx(8.0)
    many = Tail.of_sizes(np.random.default_rng(0).lognormal(size=60))
    assert many is not None
    assert many.ordinary(0.05) == many.size_at(0.05), "enough heads tell"
    none = Tail(np.zeros(1), np.zeros(1))
    assert none.ordinary(0.05) == pytest.approx(min(1.0, none.size_at(0.05)))


class Lognormal:
    """250 heads with lognormal effects, a fifth of which write nothing."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.heads = [HeadId(i // 10, i % 10) for i in range(250)]
        self.sizes = {head: float(np.exp(rng.normal(-4.0, 1.5))) * (head.head > 1) for head in self.heads}
        self.guesses = {head: size * float(np.exp(rng.normal(0.3, 0.8))) for head, size in self.sizes.items()}
        self.model, self.asked = SimpleNamespace(heads=tuple(self.heads)), set()

    def metric_drop(self, heads) -> np.ndarray:
        self.asked |= set(heads)
        return np.full(8, sum(self.sizes[head] for head in heads)) * np.linspace(0.9, 1.1, 8)


@pytest.mark.parametrize("seed", range(4))
def test_measuring_the_largest_by_estimate_gives_about_the_bar_of_all(seed: int, monkeypatch: pytest.MonkeyPatch):
    removal = Lognormal(seed)
    live = [head for head in removal.heads if removal.sizes[head] > 0]
    every = Tail.of([removal.metric_drop([head]) for head in live])
    removal.asked.clear()
    monkeypatch.setattr(
        random_heads, "_estimates", lambda removal, heads: np.array([removal.guesses[head] for head in heads])
    )
    found = controls(removal, removal.heads)
    assert found.heads == tuple(live)
    assert found.measured == len(removal.asked) == LARGEST + OTHERS
    assert every is not None and found.tail is not None  # noqa: PT018
    assert found.tail.size_at(0.05) == pytest.approx(every.size_at(0.05), rel=0.35)


def test_without_estimates_heads_are_drawn_alike_for_every_seed_and_dead_ones_left_out():
    removal = Lognormal(0)
    found = controls(removal, removal.heads)
    assert len(removal.asked) == SAMPLE
    assert found.measured == sum(removal.sizes[head] > 0 for head in removal.asked)
    assert len(found.tail.logs) == found.measured


class Scattered(Lognormal):
    """The same, scattered over examples as much as effects are large."""

    def __init__(self, seed: int, first: int, n: int) -> None:
        super().__init__(seed)
        self.first, self.n = first, n

    def metric_drop(self, heads) -> np.ndarray:
        self.asked |= set(heads)
        rows = [np.random.default_rng([7, *self.at(head)]).normal(1.0, 1.0, 128) * self.sizes[head] for head in heads]
        return np.sum(rows, 0)[self.first : self.first + self.n]

    @staticmethod
    def at(head: HeadId) -> tuple[int, int]:
        return head.layer, head.head


def test_the_loudest_are_taken_on_further_examples_and_the_bar_moves_less():
    first, further = Scattered(0, 0, 8), Scattered(0, 8, 24)
    before = controls(first, first.heads)
    found = before.on_further(further)
    loudest = sorted(before.sizes, key=before.sizes.get)[-LOUDEST:]
    assert further.asked == set(loudest)
    assert {head for head, drop in found.drops.items() if len(drop) == 32} == set(loudest)
    whole = Scattered(0, 0, 32)
    for head in loudest:
        assert found.sizes[head] == pytest.approx(abs(whole.metric_drop([head]).mean()), rel=1e-12)
    assert 0 < found.tail.error < before.tail.error
    assert before.tail.error == controls(first, first.heads).tail.error, "what was measured before stays as it was"


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_head_is_compared_with_does_not_hang_on_the_heads_asked_before_it(order: int):
    def more(have: int, wanted: int) -> Scattered:
        return Scattered(0, have, wanted - have)

    near = sorted(Scattered(0, 0, 8).heads, key=lambda head: Scattered(0, 0, 64).sizes[head])[-24:]
    alone = {
        head: Bench(Scattered(0, 0, 8), set(Lognormal(0).heads) - set(near), more=more).alone(head, 0.0)
        for head in near
    }
    shared = Bench(Scattered(0, 0, 8), set(Lognormal(0).heads) - set(near), more=more)
    assert {head: shared.alone(head, 0.0) for head in near[::order]} == alone
    assert len({one.examples for one in alone.values()}) > 2, "some are clear at once, some are not"


def test_estimates_are_of_the_removal_that_is_measured():
    model = echo.model()
    detectors = [one for one in echo.DETECTORS.values() if one.task is echo.echo]
    batch = echo.echo(model.tokenizer, 12, 3)
    scan = scan_task(model, echo.echo, detectors, batch)
    removal = ablated(model, batch, echo.echo.metric, scan.mean_z)
    estimates = removal.estimates(model.heads)
    measured = np.array([removal.metric_drop([head]).mean() for head in model.heads])
    assert np.corrcoef(estimates, measured)[0, 1] > 0.7
    assert np.sign(estimates[np.abs(measured).argmax()]) == np.sign(measured[np.abs(measured).argmax()])
