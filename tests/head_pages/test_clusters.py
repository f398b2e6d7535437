"""Two behaviours planted in one head are told apart; a head that does one thing keeps one."""

import numpy as np
import pytest
import torch

from headatlas.heads import HeadId
from headatlas.pages.clusters import FEWEST, behaviours, name_of
from headatlas.pages.corpus import read_corpus
from headatlas.pages.kinds import PAIRS, PARTITION
from headatlas.pages.run import PageOptions, head_pages
from headatlas.pages.sources import documents

PLANTED = HeadId(1, 2)


class Plant:
    """An edit of one head's pattern: queries at even positions attend to the token before, the others where `other` says.

    A tenth of each row stays as the model had it.
    """

    component, heads, layers = "pattern", (PLANTED,), frozenset({("decoder", 1)})

    def __init__(self, other):
        self.other = other

    def __repr__(self):
        return f"Plant({self.other})"

    def __call__(self, layer, x):
        places = torch.arange(x.shape[2])
        odd = places % 2 == 1
        keys = torch.where(odd & (self.other == "self"), places, (places - 1).clamp(min=0))
        aim = torch.nn.functional.one_hot(keys, x.shape[3]).to(x.dtype)
        if self.other == "rest":
            aim[odd] = torch.nn.functional.one_hot(torch.zeros_like(places), x.shape[3]).to(x.dtype)[odd]
        changed = x.clone()
        changed[:, PLANTED.head] = 0.1 * x[:, PLANTED.head] + 0.9 * aim
        return changed


@pytest.fixture(scope="module")
def corpus():
    return [one.text for one, _ in zip(documents(), range(4), strict=False)]


def planted(opened, corpus, other):
    options = PageOptions(tokens=1200, length=120, every=2)
    return head_pages(opened["gqa"], corpus, [PLANTED], causal=False, options=options, edits=[Plant(other)])


def test_two_behaviours_planted_in_one_head_are_separated(opened, corpus):
    found = planted(opened, corpus, "self")
    groups = found.page(PLANTED).behaviours.groups
    assert {group.name for group in groups} == {"previous", "self"}
    positions = found.counts.pool_event[np.argsort(found.counts.pool_draw, kind="stable")][:, 1]
    right = 0
    for group in groups:
        odd = positions[group.members] % 2 == 1
        right += max(odd.sum(), (~odd).sum())
    members = sum(len(group.members) for group in groups)
    assert members > 300
    assert right / members >= 0.9
    assert all(0.2 < group.share < 0.7 for group in groups)


@pytest.mark.parametrize("other", ["previous", "rest"])
def test_a_head_that_does_one_thing_keeps_one_behaviour(opened, corpus, other):
    found = planted(opened, corpus, other).page(PLANTED).behaviours
    (only,) = found.groups
    assert only.name == "previous"
    assert only.reads["previous"] > 0.8
    assert found.resting == pytest.approx(0.5 if other == "rest" else 0.0, abs=0.15)


def made(rng, parts, noise=0.1):
    """Events whose attention falls on parts of the partition (names), with noise; (pool, rest)."""
    pool = np.zeros((len(parts), len(PARTITION) + len(PAIRS)))
    for i, name in enumerate(parts):
        share = np.clip(rng.normal(0.9, noise / 2), 0.5, 1.0)
        pool[i, PARTITION.index(name)] = share
        pool[i, 1 : len(PARTITION)] += rng.dirichlet(np.full(len(PARTITION) - 1, 0.3)) * (1 - share)
        if name in PAIRS:
            pool[i, len(PARTITION) + list(PAIRS).index(name)] = share
    return pool, np.zeros(len(parts))


@pytest.mark.parametrize("seed", range(3))
def test_groups_do_not_hang_on_the_seed(seed):
    rng = np.random.default_rng(0)
    parts = ["previous"] * 150 + ["follows-same"] * 90 + ["elsewhere: number"] * 60
    found = behaviours(*made(rng, parts), np.zeros(len(PAIRS)), seed=seed)
    assert [(group.name, len(group.members)) for group in found.groups] == [
        ("previous", 150),
        ("follows-same", 90),
        ("unnamed", 60),
    ]
    assert found.agreement == 1.0


def test_groups_that_are_too_small_or_events_that_are_too_few_make_none():
    rng = np.random.default_rng(0)
    found = behaviours(*made(rng, ["previous"] * 290 + ["self"] * 10), np.zeros(len(PAIRS)))
    assert len(found.groups) == 1
    few = behaviours(*made(rng, ["previous"] * 15 + ["self"] * 15), np.zeros(len(PAIRS)))
    assert len(few.groups) == 1
    assert str(FEWEST) in few.note
    pool, rest = made(rng, ["previous"] * 50)
    idle = behaviours(pool * 0, rest + 1, np.zeros(len(PAIRS)))
    assert (idle.resting, idle.groups) == (1.0, ())


def test_a_kind_that_chance_explains_lends_no_name():
    kinds = np.zeros(len(PAIRS))
    kinds[-1] = 0.6
    assert name_of(kinds, np.zeros(len(PAIRS))) == "delimiter"
    assert name_of(kinds, np.full(len(PAIRS), 0.5)) == "unnamed"


def test_the_sample_is_the_same_for_all_heads_and_no_larger_than_asked(opened, corpus):
    options = PageOptions(tokens=800, length=80, every=2, sample=64)
    found = head_pages(opened["gqa"], corpus, "0.0", causal=False, options=options)
    assert found.counts.pool.shape[:2] == (len(opened["gqa"].heads), 64)
    assert read_corpus(opened["gqa"].tokenizer, corpus, tokens=800, length=80).n_tokens == found.facts["tokens"]
