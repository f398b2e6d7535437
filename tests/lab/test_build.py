"""The parts of planted models keep their promises: words, codes, kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput
from headatlas.lab.construct import positions, targets
from headatlas.lab.construct.codes import token_codes
from headatlas.lab.construct.recipe import rest_level
from headatlas.lab.construct.words import tokenizer, words

TABLE = positions.table_frequencies(8, 256)
THETA, FAST = positions.rotary_base(32, 256)
ROTARY = positions.rotary_frequencies(32, THETA)[:FAST]


@pytest.mark.parametrize("size", [128, 300, 1500])
def test_a_vocabulary_has_the_size_asked_for_and_all_classes(size):
    found = words(size)
    assert len(found) == len(set(found.tokens)) == size
    assert len(found.names) >= 20
    assert {found.tokens[i] for i in found.delimiters} >= {".", ","}
    assert found.tokens[found.sequences[2][0]] == "Monday"
    assert not set(found.names) & set(found.ordinals)


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(BadInput, match="at least 128"):
        words(127)


def test_the_tokenizer_reads_words_digits_and_punctuation():
    hf = tokenizer(words(256), 64)
    ids = hf("Mary, gave 12 xylophones.").input_ids
    assert hf.convert_ids_to_tokens(ids) == ["<bos>", "Mary", ",", "gave", "1", "2", "<unk>", "."]
    assert hf.decode(ids[1:4]) == "Mary , gave"
    assert hf(" Mary", add_special_tokens=False).input_ids == hf("Mary", add_special_tokens=False).input_ids


@pytest.mark.parametrize(("size", "dim", "most"), [(128, 14, 0.35), (256, 20, 0.33), (256, 8, 0.7)])
def test_codes_lie_far_apart(size, dim, most):
    codes = token_codes(size, dim, (), 0)
    overlaps = codes.vectors[1:] @ codes.vectors[1:].T
    assert torch.allclose(overlaps.diagonal(), torch.ones(size - 1, dtype=overlaps.dtype))
    assert not codes.vectors[0].any()
    assert overlaps.fill_diagonal_(-1).max() == pytest.approx(codes.coherence)
    assert codes.coherence < most


def test_one_rotation_leads_through_every_sequence():
    found = words(128)
    codes = token_codes(128, 14, found.sequences, 0)
    for sequence in found.sequences:
        for member, following in itertools.pairwise(sequence):
            assert torch.allclose(codes.vectors[member] @ codes.step, codes.vectors[following])
    assert codes.coherence < 0.45


@pytest.mark.parametrize("frequencies", [TABLE, ROTARY], ids=("table", "rotary"))
def test_a_kernel_is_the_sum_of_its_waves(frequencies):
    kernel = positions.only(5, frequencies, range(len(frequencies)), 256)
    distance = np.arange(256)[:, None] * frequencies
    assert np.allclose(np.cos(distance) @ kernel.cosine - np.sin(distance) @ kernel.sine, kernel.values)


@pytest.mark.parametrize("frequencies", [TABLE, ROTARY], ids=("table", "rotary"))
@pytest.mark.parametrize("offset", [0, 1, 2, 9, 60])
def test_one_distance_stands_out_of_all_others(frequencies, offset):
    values = positions.only(offset, frequencies, range(len(frequencies)), 256).values
    assert values[offset] - np.delete(values, offset).max() > 0.08


@pytest.mark.parametrize("frequencies", [TABLE, ROTARY], ids=("table", "rotary"))
def test_windows_recency_and_holes_have_their_shapes(frequencies):
    waves = range(len(frequencies))
    near = positions.near(8, frequencies, waves, 256).values
    assert near[:8].min() > near[16:].max()
    recent = positions.recent(16, frequencies, waves, 256).values
    assert (np.diff(recent[:12:2]) < 0).all()
    hole = positions.apart(1, 4, frequencies, waves, 256).values
    assert hole[4:128].mean() - hole[0] == pytest.approx(1.0)
    assert hole[4:128].min() - hole[0] > 0.3


def test_the_resting_place_leaves_the_share_asked_for():
    for strength in (0.2, 0.5, 0.9):
        level = rest_level([np.array([3.0])], strength)
        assert np.exp(3.0) / (np.exp(3.0) + np.exp(level)) == pytest.approx(strength, abs=1e-6)


def test_targets_are_said_in_tokens():
    tokens = torch.tensor([[0, 5, 6, 7, 5, 6]])
    assert targets.before(tokens).tolist() == [[-1, -1, 5, 6, 7, 5]]
    assert targets.same(tokens, targets.before(tokens)).nonzero().tolist() == [[0, 4, 2], [0, 5, 3]]
    assert targets.follower(tokens).tolist() == [[-1, -1, -1, -1, 6, 7]]
    assert targets.back(tokens, 1)[0, 1].sum() == 0
