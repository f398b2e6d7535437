"""Query-focused retrieval heads: against plain attention of two plain runs, and where there is nothing to find."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.ops.patterns import without_dips
from headatlas.task import find_task
from tests import toys


def attended(hf, ids, queries):
    """[head, key] attention from these queries, averaged over them, as the model itself gives it."""
    with torch.no_grad():
        maps = hf(torch.tensor([ids]), output_attentions=True).attentions
    return torch.cat([one[0] for one in maps])[:, queries].mean(1).double().numpy()


def test_scores_are_those_of_plain_attention_with_the_question_and_with_none():
    words = toys.smollm2_vocabulary().within(256)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    hf = toys.llama(vocab_size=49152)  # the same weights
    hf.set_attn_implementation("eager")
    batch = find_task("documents")(words, 4, 0)
    found = scan(model, [find_detector("query-retrieval")], batch).scores["query-retrieval"]

    for e in range(len(batch)):
        ids = batch.tokens[e][batch.mask[e]].tolist()
        asked = sorted(int(p) for name in ("query", "asked") for p in batch.positions[name][e] if p >= 0)
        assert asked == list(range(asked[0], asked[-1] + 1))  # all of the question, and nothing else
        assert words.decode([ids[p] for p in asked]).strip().endswith("?")
        nothing = words.encode(" N/A")
        start = asked[0]
        own, without = (
            attended(hf, ids, asked),
            attended(hf, [*ids[:start], *nothing], list(range(start, start + len(nothing)))),
        )
        scores = []
        for number in range(1, 7):
            span = [int(p) for p in batch.positions[f"doc_{number}"][e] if p >= 0]
            gain = own[:, span] - without[:, span]
            floor = gain.mean(1, keepdims=True) - 2 * gain.std(1, ddof=1, keepdims=True)
            scores.append(np.where(gain >= floor, gain, 0).sum(1))
        gold = int(batch.labels["gold"][e])
        np.testing.assert_allclose(found.values[e], scores[gold], atol=1e-5)
        np.testing.assert_allclose(found.control[e], np.delete(scores, gold, 0).mean(0), atol=1e-5)


def test_an_untrained_model_has_none():
    words = toys.smollm2_vocabulary().within(256)
    detector = find_detector("query-retrieval")
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    found = scan(model, [detector], find_task("documents")(words, 16, 0)).scores[detector.name]
    assert not found.observed(detector.minimum_effect)


def test_values_far_below_the_others_are_left_out_of_the_sum():
    values = torch.tensor([[0.1] * 9 + [-5.0], [0.3, 0.1] + [9.0] * 8, [0.2] + [9.0] * 9])
    there = torch.tensor([[True] * 10, [True] * 2 + [False] * 8, [True] + [False] * 9])
    assert without_dips(values, there).tolist() == pytest.approx([0.9, 0.4, 0.2])
