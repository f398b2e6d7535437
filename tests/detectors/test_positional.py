"""Positional heads, neighbours included: scores against plain loops over every offset, on one-way and two-way patterns."""

import numpy as np
import pytest
import torch

from headatlas.detectors.positional import REACH, positional
from headatlas.model.synthetic_view import SyntheticLayer


def patterns(causal: bool, examples: int = 4, length: int = 40) -> torch.Tensor:
    """[example, head, query, key] random rows; heads 0 to 2 lean to one back, one ahead and three back."""
    drawn = torch.rand(examples, 4, length, length, generator=torch.Generator().manual_seed(0)) + 1e-3
    for head, offset in enumerate((1, -1, 3)):
        for i in range(length):
            if 0 <= i - offset < length:
                drawn[:, head, i, i - offset] += 30.0
    drawn = drawn.tril() if causal else drawn
    return drawn / drawn.sum(-1, keepdim=True)


def plain(pattern: np.ndarray, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """(score, chance) [head] on the examples that are scored, by loops."""
    examples, heads, length, _ = pattern.shape
    offsets = [k for k in range(-REACH if not causal else 1, REACH + 1) if k]
    means = np.zeros((examples, heads, len(offsets)))
    for e in range(examples):
        for h in range(heads):
            for n, k in enumerate(offsets):
                queries = range(REACH if causal else 0, length)
                cells = [pattern[e, h, i, i - k] for i in queries if 0 <= i - k < length]
                means[e, h, n] = np.mean(cells)
    best = means[::2].mean(0).argmax(-1)
    score, chance = np.zeros(heads), np.zeros(heads)
    for h in range(heads):
        rivals = [n for n, k in enumerate(offsets) if abs(k - offsets[best[h]]) >= 2]
        rival = max(rivals, key=lambda n: means[::2, h, n].mean())
        score[h], chance[h] = means[1::2, h, best[h]].mean(), means[1::2, h, rival].mean()
    return score, chance


@pytest.mark.parametrize("causal", [True, False])
def test_scores_are_those_of_plain_loops_over_offsets(causal: bool):
    pattern = patterns(causal)
    layer = SyntheticLayer(pattern, valid=torch.ones(4, 40, dtype=torch.bool), causal=causal)
    found = positional.settle(positional.score(layer, None))
    score, chance = plain(pattern.numpy(), causal)
    np.testing.assert_allclose(found.values.nanmean(0), score, atol=1e-5)
    np.testing.assert_allclose(found.control.nanmean(0), chance, atol=1e-5)
    seen = score - chance > positional.minimum_effect
    assert seen.tolist() == ([True, False, True, False] if causal else [True, True, True, False])
