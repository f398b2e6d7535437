"""Contrastive retrieval heads: against a softmax over plain eager attention, written out in loops, and where there is nothing to find."""

import math

import numpy as np

from headatlas.detector import find_detector
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys
from tests.detectors.written.test_query_retrieval import attended


def test_scores_are_those_of_a_softmax_over_plain_attention():
    words = toys.smollm2_vocabulary().within(256)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    hf = toys.llama(vocab_size=49152)  # the same weights
    hf.set_attn_implementation("eager")
    batch = find_task("documents")(words, 4, 0)
    found = scan(model, [find_detector("contrastive-retrieval")], batch).scores["contrastive-retrieval"]
    for e in range(len(batch)):
        asked = [int(p) for name in ("query", "asked") for p in batch.positions[name][e] if p >= 0]
        by_key = attended(hf, batch.tokens[e][batch.mask[e]].tolist(), asked)
        gold = int(batch.labels["gold"][e])
        for head, row in enumerate(by_key):
            given = []
            for number in range(1, 7):
                span = [int(p) for p in batch.positions[f"doc_{number}"][e] if p >= 0]
                given.append(math.exp(10 * sum(row[p] for p in span)))
            np.testing.assert_allclose(found.values[e, head], given[gold] / sum(given), atol=1e-5)
            others = [one / sum(given) for i, one in enumerate(given) if i != gold]
            np.testing.assert_allclose(found.control[e, head], sum(others) / 5, atol=1e-5)


def test_an_untrained_model_has_none():
    words = toys.smollm2_vocabulary().within(256)
    detector = find_detector("contrastive-retrieval")
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    found = scan(model, [detector], find_task("documents")(words, 16, 0)).scores[detector.name]
    assert not found.observed(detector.minimum_effect)
