"""Concept vector heads: scores by plain hooks and scipy's correlation, and what a head must not be found for."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from headatlas.detector import find_detector
from headatlas.detectors._measures.seeds import seed_of
from headatlas.detectors.concept_vector import REFERENCES, _task_of
from headatlas.lab.planting import find_planting
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys


def plain_outputs(hf, batch):
    """[example, head, d_value] what goes into o_proj at the last token, prompt after prompt."""
    found = []
    for e in range(len(batch)):
        seen = []
        handles = [
            layer.self_attn.o_proj.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0][0, -1]))
            for layer in hf.model.layers
        ]  # fmt: skip
        with torch.no_grad():
            hf(batch.tokens[e][batch.mask[e]][None])
        for handle in handles:
            handle.remove()
        found.append(torch.cat([z.reshape(hf.config.num_attention_heads, -1) for z in seen]))
    return torch.stack(found).double().numpy()


@pytest.mark.parametrize("name", ["concepts", "concepts-held-out"])
def test_scores_are_those_of_plain_hooks(name: str):
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary().within(256))
    batch = find_task(name)(model.tokenizer, 12, 0)
    found = find_detector("concept-vector").measure(model, batch)
    others = find_task(name)(model.tokenizer, REFERENCES, seed_of(batch))
    for part, beside, values in (
        (batch, others, found.values),
        (batch.counterfactual, others.counterfactual, None),
    ):
        z, known = (plain_outputs(model.hf, one) for one in (part, beside))
        own = np.zeros((12, len(model.heads)))
        for e in range(12):
            chosen = [o for o in range(REFERENCES) if others.labels["format"][o] != batch.labels["format"][e]]
            same = [int(others.labels["concept"][o] == batch.labels["concept"][e]) for o in chosen]
            for h in range(len(model.heads)):
                cosines = [
                    z[e, h] @ known[o, h] / np.linalg.norm(z[e, h]) / np.linalg.norm(known[o, h]) for o in chosen
                ]
                own[e, h] = spearmanr(np.round(cosines, 4), same).statistic
        assert len(chosen) == 32
        assert np.isfinite(own).all()
        if values is None:  # chance, without what is below zero on average
            own, values = own - np.minimum(own.mean(0), 0), found.control
        # A cosine may round the other way, which moves one rank of 32.
        assert np.isclose(values, own, atol=1e-3).mean() > 0.9
        np.testing.assert_allclose(values, own, atol=0.05)


def test_one_mark_for_a_relation_in_all_formats_is_found_and_words_and_formats_are_not():
    made = find_planting("concept-vector").make(0)
    batch = find_task("concepts")(made.model.tokenizer, 24, 0)
    found = find_detector("concept-vector").measure(made.model, batch)
    excess = (found.values - found.control).mean(0)
    (positive,) = made.positives
    assert float(excess[made.model.heads.index(positive)]) > 0.5
    assert max(float(found.control[:, made.model.heads.index(head)].mean()) for head in made.look_alikes) > 0.5  # words
    for head in made.look_alikes:
        assert float(excess[made.model.heads.index(head)]) < 0.05, head


def test_prompts_are_compared_with_others_of_their_own_half_and_family():
    words = toys.smollm2_vocabulary()
    first, held_out = find_task("concepts"), find_task("concepts-held-out")
    for task in (first, held_out, first.second, held_out.second):
        found = _task_of(task(words, 12, 0))
        assert torch.equal(found(words, 12, 1).tokens, task(words, 12, 1).tokens)


def test_heads_that_give_the_same_everywhere_score_nothing():
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary().within(256))
    with torch.no_grad():
        model.hf.model.layers[0].self_attn.v_proj.weight.zero_()
    batch = find_task("concepts")(model.tokenizer, 12, 0)
    found = find_detector("concept-vector").measure(model, batch)
    still = [i for i, head in enumerate(model.heads) if head.layer == 0]
    assert not found.values[:, still].any()
    assert found.values[:, [i for i in range(len(model.heads)) if i not in still]].any()
