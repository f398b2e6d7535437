"""Special tokens and punctuation are two head types: on an encoder in which heads of both are written, and by plain sums."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors.delimiter import THRESHOLD, delimiter
from headatlas.detectors.punctuation import punctuation
from headatlas.lab.construct.words import words
from headatlas.lab.plantings._encoder import LENGTH
from headatlas.lab.plantings._encoder import encoder as written
from headatlas.mining.scan import scan
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.tasks.prose import prose
from tests import toys

SPECIAL, MARK, BESIDE, NOISE = range(4)  # heads of the written layer


@pytest.fixture(scope="module")
def encoder():
    """One layer: a head on the special tokens, one on punctuation, one on the tokens beside the special ones, one at random."""
    vocabulary = words(256)
    keys = {SPECIAL: [vocabulary.bos], MARK: vocabulary.delimiters}
    gains = dict.fromkeys((SPECIAL, MARK, BESIDE), 10.0)
    return written(vocabulary, keys, {BESIDE: [1, LENGTH - 2]}, gains, heads=4, seed=0)


def test_heads_on_special_tokens_and_on_punctuation_are_told_apart(encoder):
    batch = prose(encoder.tokenizer, 16, 0)
    assert bool((batch.positions["special"] == torch.tensor([0, 127])).all())
    scores = scan(encoder, [delimiter, punctuation], batch).scores
    found = {
        name: {line.head.head for line in scores[name].observed(find_detector(name).minimum_effect)} for name in scores
    }
    assert found == {"delimiter": {SPECIAL}, "punctuation": {MARK}}


def test_scores_are_sieve_bias_scores_of_plain_sums():
    batch = prose(toys.smollm2_vocabulary(), 3, 0)
    n, length = batch.tokens.shape
    drawn = torch.rand(n, 2, length, length, generator=torch.Generator().manual_seed(0))
    pattern = drawn / drawn.sum(-1, keepdim=True)
    layer = SyntheticLayer(pattern, valid=batch.mask, causal=False)
    values, control = delimiter.score(layer, batch), delimiter.control(layer, batch)
    for e in range(n):
        special = [int(p) for p in batch.positions["special"][e] if p >= 0]
        beside = [int(p) for p in batch.positions["beside"][e] if p >= 0]
        assert len(special) == len(beside) > 0
        assert not set(special) & set(beside)
        for head in range(2):
            rows = pattern[e, head].numpy()
            sieve = np.mean([row[special].mean() / row.mean() for row in rows])
            assert values[e, head].item() == pytest.approx(sieve * len(special) / length, rel=1e-4)
            expected = max(THRESHOLD * len(special) / length, np.mean([row[beside].sum() for row in rows]))
            assert control[e, head].item() == pytest.approx(expected, rel=1e-4)
