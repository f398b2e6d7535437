"""Forerunner heads: against plain eager attention, and where there is nothing to find."""

import numpy as np
import torch

from headatlas.detector import find_detector
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys


def test_scores_are_those_of_plain_attention():
    words = toys.smollm2_vocabulary().within(256)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    hf = toys.llama(vocab_size=49152)  # the same weights
    hf.set_attn_implementation("eager")
    batch = find_task("foo-bar")(words, 4, 0)
    found = scan(model, [find_detector("forerunner")], batch.padded(right=3)).scores["forerunner"]
    for e in range(len(batch)):
        ids = batch.tokens[e][batch.mask[e]]
        labels = batch.positions["label"][e].tolist()
        assert {words.decode([int(ids[p])]) for p in labels} == {" foo", " bar"}
        with torch.no_grad():
            maps = hf(ids[None], output_attentions=True).attentions
        others = [i for i in range(2, len(ids)) if i not in labels]
        for head, pattern in enumerate(torch.cat([one[0] for one in maps]).tolist()):
            before = np.array([0.0, *(pattern[i][i - 1] for i in range(1, len(ids)))])
            behind = np.mean([pattern[i + 1][i - 1] for i in labels])
            np.testing.assert_allclose(found.values[e, head], before[labels].mean(), atol=1e-5)
            np.testing.assert_allclose(found.control[e, head], max(before[others].mean(), behind), atol=1e-5)


def test_an_untrained_model_has_none():
    words = toys.smollm2_vocabulary().within(256)
    detector = find_detector("forerunner")
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    found = scan(model, [detector], find_task("foo-bar")(words, 16, 0)).scores[detector.name]
    assert not found.observed(detector.minimum_effect)
