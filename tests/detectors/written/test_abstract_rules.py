"""Symbol abstraction and symbolic induction: scores by plain hooks, the prompts they compare, and where there is nothing to find."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors._measures.abstract_rules import exchanged, mediated
from headatlas.detectors.symbol_abstraction import PROMPTS
from headatlas.lab.plantings._rules import rules
from headatlas.model import attach
from headatlas.task import find_task, logit_difference
from tests import toys


def plain_logits(hf, tokens, patch=None):
    """Last logits of one prompt; patch: (layer, columns, positions, values) written into what goes into o_proj."""

    def put(module, inputs):
        _, columns, positions, values = patch
        changed = inputs[0].clone()
        changed[0, positions, columns] = values[positions, columns]
        return (changed,)

    handles = []
    if patch is not None:
        handles.append(hf.model.layers[patch[0]].self_attn.o_proj.register_forward_pre_hook(put))
    with torch.no_grad():
        logits = hf(tokens[None]).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


def plain_z(hf, tokens):
    found = []
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0][0].clone()))
        for layer in hf.model.layers
    ]
    with torch.no_grad():
        hf(tokens[None])
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("place", ["end", "third"])
def test_scores_are_those_of_plain_hooks(place: str):
    made = rules(2)  # the noisiest; it does the task, so that something is defined
    model, hf = made.model, made.model.hf
    batch = find_task("identity-rules")(model.tokenizer, 4, 0)
    found = mediated(model, batch, place)
    width, lines = hf.config.head_dim, batch.positions[place].reshape(len(batch), -1)

    def difference(logits, e):
        return float(logits[batch.answer[e]] - logits[batch.wrong[e]])

    clean = [difference(plain_logits(hf, batch.tokens[e]), e) for e in range(4)]
    assert min(clean) > 0
    for source, values in ((batch.counterfactual, found.values), (exchanged(batch), None)):
        own = np.zeros((4, len(model.heads)))
        for e in range(4):
            z = plain_z(hf, source.tokens[e])
            for i, head in enumerate(model.heads):
                columns = slice(head.head * width, (head.head + 1) * width)
                patched = plain_logits(hf, batch.tokens[e], (head.layer, columns, lines[e].tolist(), z[head.layer]))
                own[e, i] = (clean[e] - difference(patched, e)) / np.mean(clean)
        if values is None:  # chance, without what is below zero on average
            own, values = own - np.minimum(own.mean(0), 0), found.control
        np.testing.assert_allclose(values, own, atol=1e-4)
        if source is batch.counterfactual or place == "end":  # words at the lines' ends alone move nothing here
            assert np.abs(own).max() > 0.5


def test_a_head_brings_the_rule_and_another_the_word():
    made = rules(0)
    batch = find_task("identity-rules")(made.model.tokenizer, 12, 0)
    found = mediated(made.model, batch, "end")
    score, chance = found.values.mean(0), found.control.mean(0)
    at = {name: made.model.heads.index(getattr(made, name)) for name in ("induction", "retrieval")}
    assert score[at["induction"]] > 1
    assert abs(chance[at["induction"]]) < 0.1
    assert abs(score[at["retrieval"]]) < 0.1
    assert chance[at["retrieval"]] > 1


def test_exchanged_prompts_keep_the_rule_and_move_every_word():
    words = toys.smollm2_vocabulary()
    batch = find_task("identity-rules")(words, 8, 0)
    moved = exchanged(batch)
    for e in range(8):

        def line(part, i, e=e):
            return [int(part.tokens[e, part.positions[name][e, i]]) for name in ("first", "second", "third")]

        for i in range(4):
            (a, b, c), (x, y, z) = line(batch, i), line(moved, i)
            assert (x, y) == (b, a)
            assert (z == x) == (c == a)
            assert z != c
        ends = [[int(part.tokens[e, part.positions[name][e]]) for name in ("left", "right")] for part in (batch, moved)]
        assert ends[0] == ends[1][::-1]
        used = torch.cat(
            [batch.positions[name][e].reshape(-1) for name in ("first", "second", "third", "left", "right")]
        )
        rest = torch.ones(batch.tokens.shape[1], dtype=torch.bool)
        rest[used] = False
        assert torch.equal(batch.tokens[e, rest], moved.tokens[e, rest])


def test_prompts_count_that_are_right_under_both_rules():
    made = rules(0)
    batch = find_task("identity-rules")(made.model.tokenizer, 24, 0)
    turned = batch.labels["answer"].clone()
    turned[0], wrong = batch.wrong[0], batch.wrong.clone()
    wrong[0] = batch.answer[0]
    batch = type(batch)(**{**batch.__dict__, "labels": {**batch.labels, "answer": turned, "wrong": wrong}})
    found = mediated(made.model, batch, "end")
    assert bool(found.values[0].isnan().all())
    assert bool(found.values[1:].isfinite().all())


@pytest.mark.parametrize("name", ["symbolic-induction", "symbol-abstraction"])
def test_nothing_is_defined_where_the_model_does_not_do_the_task(name: str):
    words = toys.smollm2_vocabulary().within(256)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    detector = find_detector(name)
    batch = detector.task(words, PROMPTS + 2, 0)
    with torch.no_grad():
        clean = logit_difference.score(
            model.forward(batch, logit_positions=batch.positions["end"].reshape(-1, 1)), batch
        )
    assert float(clean.mean()) < 2 * float(clean.std()) / len(clean) ** 0.5
    found = detector.measure(model, batch)
    assert found.values.shape[1] == len(model.heads)
    assert bool(found.values.isnan().all())
