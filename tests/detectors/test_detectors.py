"""The contract that every detector keeps, whoever wrote it."""

import numpy as np
import pytest
import torch

from headatlas import catalogue
from headatlas.detector import Detector, LayerDetector, detectors
from headatlas.mining.scan import scan
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.task import Batch
from tests import toys

ALL = [found for found in detectors().values() if isinstance(found, LayerDetector)]


# Their chance is a rule that knows no attention, or several times what even attention gives: that may well lie below.
RULED = ("alignment", "alignment-copy", "coreference", "spanning-tree", "syntactic-sieve")


@pytest.fixture(params=ALL, ids=lambda d: d.name)
def detector(request) -> Detector:
    return request.param


def batch_for(detector: Detector, n: int = 6) -> Batch:
    return detector.task(toys.vocabulary_for(detector), n, seed=3)


def uniform(batch: Batch) -> torch.Tensor:
    """Every query spreads evenly over the keys it sees: those before it, or a whole source."""
    n, length = batch.tokens.shape
    if batch.encoder is not None:
        seen = batch.encoder.mask[:, None].float().expand(-1, length, -1)
    else:
        seen = torch.ones(length, length).tril().expand(n, length, length)
    return seen / seen.sum(-1, keepdim=True)


def imagine(batch: Batch, *patterns: torch.Tensor, copies: tuple[bool, ...] = ()) -> SyntheticLayer:
    flags = torch.tensor(list(copies) + [True] * (len(patterns) - len(copies)))
    sources = batch.encoder.mask if batch.encoder is not None else None
    return SyntheticLayer(
        torch.stack(patterns, 1), valid=batch.mask, tokens=batch.tokens, copies=flags, sources=sources
    )


def measure(
    detector: Detector, batch: Batch, *patterns: torch.Tensor, copies: tuple[bool, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and chance level per imagined head."""
    layer = imagine(batch, *patterns, copies=copies)
    if detector.settle is not None:
        found = detector.settle(detector.score(layer, batch))
        return found.values.nanmean(0), found.control.nanmean(0)
    score = detector.score(layer, batch).nanmean(0)
    if detector.control is not None:
        return score, detector.control(layer, batch).nanmean(0)
    assert batch.control is not None
    return score, detector.score(imagine(batch.control, *patterns, copies=copies), batch.control).nanmean(0)


def test_planted_head_scores_near_one_and_is_observed(detector: Detector):
    batch = batch_for(detector)
    planted = detector.planted(batch)
    score, _ = measure(detector, batch, planted.pattern, copies=(planted.copies is not False,))
    assert score.item() > 0.9


def test_uniform_attention_scores_near_chance(detector: Detector):
    batch = batch_for(detector)
    score, chance = measure(detector, batch, uniform(batch))
    excess = score.item() - chance.item()
    assert (excess if detector.name in RULED else abs(excess)) < detector.minimum_effect / 2


def test_look_alike_stays_below_the_minimum_effect(detector: Detector):
    batch = batch_for(detector)
    other = detector.look_alike(batch)
    score, chance = measure(detector, batch, other.pattern, copies=(other.copies is not False,))
    assert score.item() - chance.item() < detector.minimum_effect


def test_shape_range_and_undefined_values(detector: Detector):
    batch = batch_for(detector)
    found = detector.score(imagine(batch, uniform(batch), detector.planted(batch).pattern), batch)
    assert found.shape[:2] == (len(batch), 2)
    assert (found.ndim == 3) == (detector.settle is not None)
    known = found[~found.isnan()]
    assert len(known) > 0
    assert bool((known >= 0).all())
    assert bool((known <= 1 + 1e-5).all())


def test_inputs_are_not_changed(detector: Detector):
    batch = batch_for(detector)
    pattern = uniform(batch).clone()
    before = (batch.tokens.clone(), {name: value.clone() for name, value in batch.positions.items()}, pattern.clone())
    measure(detector, batch, pattern)
    assert torch.equal(batch.tokens, before[0])
    assert all(torch.equal(batch.positions[name], value) for name, value in before[1].items())
    assert torch.equal(pattern, before[2])


def test_examples_are_scored_independently(detector: Detector):
    batch = batch_for(detector)
    pattern = detector.planted(batch).pattern
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    whole = detector.score(imagine(batch, pattern), batch)
    mixed = detector.score(imagine(batch.rows(order), pattern[order]), batch.rows(order))
    torch.testing.assert_close(mixed, whole[order], equal_nan=True)


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "gpt2", "window", "softcap", "encoder"])
def test_runs_on_toys_whatever_padding_and_batch_size(detector: Detector, kind: str):
    model = toys.model(kind)
    if "unembedding" in detector.needs and model.unembedding is None:
        pytest.skip("needs token logits; this toy is an encoder without them")
    batch = toy_batch(detector, model)
    whole = scan(model, [detector], batch, size=4).scores[detector.name]
    one = scan(model, [detector], batch, size=1).scores[detector.name]
    right = scan(model, [detector], batch.padded(right=5), size=2).scores[detector.name]
    fits = detector.causal if model.kind == "decoder" else detector.encoder
    assert bool(np.isnan(whole.values).all()) != fits
    for other in (
        (one, right)
        if model.left_padding is None
        else (one, right, scan(model, [detector], batch.padded(left=4), size=4).scores[detector.name])
    ):
        np.testing.assert_allclose(other.values, whole.values, atol=2e-5)
        np.testing.assert_allclose(other.control, whole.control, atol=2e-5)


def toy_batch(detector: Detector, model) -> Batch:
    """A batch of the detector's task with its ids folded into the toy's small vocabulary."""
    batch = detector.task(toys.vocabulary_for(detector).within(128), 4, seed=1)  # toys read 160 tokens

    def fold(part: Batch) -> Batch:
        return Batch(
            part.tokens % 150 + 5,
            part.mask,
            part.positions,
            part.marks,
            part.labels,
            part.facts,
            control=fold(part.control) if part.control else None,
            encoder=fold(part.encoder) if part.encoder else None,
        )

    return fold(batch)


def test_same_seed_same_batch_and_other_seed_other_batch(detector: Detector):
    vocabulary = toys.vocabulary_for(detector)
    first, again, other = (detector.task(vocabulary, 3, seed) for seed in (5, 5, 6))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)


def test_is_described_and_linked_to_the_catalogue(detector: Detector):
    words = detector.about
    assert words["formula"], "the docstring says 'Formula: ...'"
    assert words["chance"], "the docstring says 'Chance: ...'"
    assert "0 " in words["range"], "the first sentence says what 0 and 1 mean"
    assert catalogue.head_type(detector.head_type).id == detector.head_type
    assert 0 < detector.minimum_effect < 1
