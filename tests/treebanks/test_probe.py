"""The attention-only probe: it finds what is planted in the attention, and no more than distances do where nothing is."""

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.probe import ProbeCounts, _distances

HEADS = tuple(HeadId(layer, head) for layer in range(2) for head in range(2))


class Part:
    def __init__(self, index, one):
        self.sentences, self.index = (one,), (index,)


def probed(make):
    """The probe on maps that `make(sentence, generator)` gives for the four heads."""
    sentences = generated_sentences(60)
    counts, generator = ProbeCounts(HEADS, sentences, causal=False), torch.Generator().manual_seed(0)
    for index, one in enumerate(sentences):
        maps = make(one, generator)
        counts.begin(Part(index, one))
        for layer in range(2):
            counts.add(slice(2 * layer, 2 * layer + 2), maps[None, 2 * layer : 2 * layer + 2])
    return counts.result()


def noise(one, generator):
    n = len(one.words)
    return torch.rand(4, n, n, generator=generator).softmax(-1)


def test_a_head_that_points_to_heads_is_found_by_its_weight():
    def make(one, generator):
        maps = noise(one, generator)
        for i, head in enumerate(one.heads):
            maps[3, i] = torch.nn.functional.one_hot(torch.tensor(max(head, 0)), len(one.words))
        return maps

    found = probed(make)
    assert found.uas > 0.98
    assert found.by_distance < 0.7
    assert np.unravel_index(np.abs(found.weights).argmax(), found.weights.shape) == (3, 0)
    assert found.words > 200


def test_the_other_way_round_as_well():
    def make(one, generator):
        maps = noise(one, generator)
        for i, head in enumerate(one.heads):
            if head >= 0:
                maps[1, head, i] = 5.0
        return maps

    found = probed(make)
    assert found.uas > 0.98
    assert np.unravel_index(np.abs(found.weights).argmax(), found.weights.shape) == (1, 1)


def test_where_nothing_is_there_it_finds_nothing():
    found = probed(noise)
    assert found.uas < found.by_distance - 0.1


def test_distances_are_one_of_seventeen_places():
    places = _distances(20)
    assert places.sum(-1).eq(1).all()
    assert places[3, 4].argmax() == 9
    assert places[3, 19].argmax() == 16
    assert places[19, 0].argmax() == 0


def test_too_few_sentences_are_refused():
    with pytest.raises(BadInput, match="20 or more"):
        ProbeCounts(HEADS, generated_sentences(5), causal=False)
