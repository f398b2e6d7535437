"""What probes give where there is nothing to read: shuffled labels that scatter as the real ones do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.methods.labels import shuffled
from headatlas.methods.probing import CrossValidation, Labels, probe
from headatlas.ops import stats
from headatlas.task import Batch
from tests import toys

GROUPS, EACH, DRAWS = 16, 8, 30


def about_groups(seed: int) -> Batch:
    """Texts of random words that end on the name of their group."""
    tokens = torch.randint(60, 90, (GROUPS * EACH, 6), generator=torch.Generator().manual_seed(seed))
    tokens[:, -1] = 10 + torch.arange(len(tokens)) // EACH
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return Batch(tokens, mask, {"end": torch.full((len(tokens),), 5)}, facts={"bos": None})


def labels_by_group(rng: np.random.Generator, within: np.ndarray | None = None) -> Labels:
    group = np.arange(GROUPS * EACH) // EACH
    return Labels((rng.permutation(GROUPS) % 2)[group], group, ("no", "yes"), within)


@pytest.mark.parametrize("shuffles", [2, 4])
def test_labels_that_only_say_which_group_it_is_are_found_no_oftener_than_by_luck(shuffles: int):
    """Against labels that were shuffled text by text, or by the scatter of groups that are nearly all right, p is too small."""
    model, rng, p = toys.model("gpt2"), np.random.default_rng(0), []
    half = np.arange(GROUPS * EACH) % 2  # something that is in every group, and has nothing to do with the label
    for draw in range(DRAWS):
        how = CrossValidation(folds=5, shuffles=shuffles, test=0, seed=draw)
        found = probe(model, about_groups(draw), labels_by_group(rng, half), validation=how).scores
        p.extend(stats.paired_p(found.values, found.control).tolist())
    p = np.array(p)
    assert len(p) == DRAWS * len(model.heads)
    assert np.mean(p < 0.05) < 0.08
    assert np.mean(p < 0.01) < 0.025
    assert np.mean(p < 0.5) > 0.3  # and not so careful that nothing could be found


def test_a_label_that_is_told_by_group_is_still_found():
    model, batch, rng = toys.model("gpt2"), about_groups(0), np.random.default_rng(0)
    labels = labels_by_group(rng)
    words = torch.randint(0, 6, batch.tokens.shape, generator=torch.Generator().manual_seed(0))
    batch = replace(batch, tokens=words + torch.from_numpy(np.where(labels.y == 1, 10, 100))[:, None])
    found = probe(model, batch, labels, validation=CrossValidation(folds=5, shuffles=4, test=0))
    best, _ = found.top(1)[0]
    assert best.score > 0.95
    assert best.q < 0.01


def test_shuffled_labels_stay_alike_within_groups_and_within_kinds():
    rng = np.random.default_rng(1)
    everything = np.arange(GROUPS * EACH)
    half = everything % 2
    labels = labels_by_group(rng, half)
    mixed = [shuffled(labels, everything, 5, rng) for _ in range(20)]
    for own in mixed:
        assert all(len(np.unique(own[labels.group == group])) == 1 for group in range(GROUPS))
        assert own.sum() == labels.y.sum()
    assert len({tuple(own) for own in mixed}) > 10
    # A kind that gives its labels away does so afterwards: here the label is the kind, in groups that each have their own mixture.
    kind = (everything * 7 % 5 < 2).astype(np.int64)
    told = Labels(kind, labels.group, ("no", "yes"), kind)
    assert np.array_equal(shuffled(told, everything, 5, rng), kind)


def test_texts_that_are_groups_of_their_own_change_places_within_their_kind():
    rng = np.random.default_rng(2)
    y, kind = rng.integers(0, 2, 40), np.arange(40) % 2
    labels = Labels(y, np.arange(40), ("no", "yes"), kind)
    own = shuffled(labels, np.arange(40), 5, rng)
    assert not np.array_equal(own, y)
    assert all(own[kind == one].sum() == y[kind == one].sum() for one in (0, 1))


def test_a_rare_label_is_in_enough_groups_after_shuffling_too():
    rng = np.random.default_rng(3)
    group = np.arange(GROUPS * EACH) // EACH
    y = ((np.arange(len(group)) % EACH == 0) & (group < 6)).astype(np.int64)  # once in six groups
    labels = Labels(y, group, ("no", "yes"), np.arange(len(group)) % EACH % 3)
    for _ in range(30):
        own = shuffled(labels, np.arange(len(group)), 5, rng)
        assert len(np.unique(group[own == 1])) >= 5
