"""Retrieval heads: against plain attention, in a model in which they are planted, and where there is nothing to find."""

import dataclasses

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors.retrieval_generated import _copied, _recall
from headatlas.heads import HeadId
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import Batch, find_task, logit_difference
from tests import toys

ALL = [find_detector(name) for name in ("retrieval", "retrieval-needle", "semantic-retrieval")]


def batch_of(n=6):
    return find_task("needle")(toys.smollm2_vocabulary().within(128), n, 0)


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152))


def test_scores_are_those_of_plain_attention(model):
    batch = batch_of()
    hf = toys.llama(vocab_size=49152)  # the same weights
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        maps = hf(batch.tokens, attention_mask=batch.mask.long(), output_attentions=True).attentions
    found = scan(model, ALL, batch).scores
    for i, head in enumerate(model.heads):
        for e in range(len(batch)):
            rows = maps[head.layer][e, head.head]
            span = [int(p) for p in batch.positions["needle"][e] if p >= 0]
            hits, masses, others = [], [], []
            until = min(int(p) for p in batch.positions["asked"][e] if p >= 0)
            text = [p for p in range(1, until) if p not in span]
            for place in (int(p) for p in batch.positions["answer"][e] if p >= 0):
                key = int(rows[place - 1].argmax())
                masses.append(float(rows[place - 1][span].sum()))
                others.append(float(rows[place - 1][text].mean()) * len(span))
                hits.append(key in span and int(batch.tokens[e, key]) == int(batch.tokens[e, place]))
            row = rows[int(batch.positions["end"][e])]
            scores = found["retrieval-needle"]
            assert found["retrieval"].values[e, i] == pytest.approx(np.mean(hits))
            assert scores.values[e, i] == pytest.approx(float(row[span].sum()), abs=1e-5)
            assert scores.control[e, i] == pytest.approx(float(row[text].mean()) * len(span), abs=1e-5)
            assert found["semantic-retrieval"].values[e, i] == pytest.approx(np.mean(masses), abs=1e-5)
            assert found["semantic-retrieval"].control[e, i] == pytest.approx(np.mean(others), abs=1e-5)


def test_an_untrained_model_has_none(model):
    found = scan(model, ALL, batch_of(16)).scores
    assert not any(found[d.name].observed(d.minimum_effect) for d in ALL)


def planted_batch(tokens, length=40, far=60):
    """Made of plain words: filler, a key and its needle, filler, the key again, and the needle as its answer."""
    generator = torch.Generator().manual_seed(0)
    n, words = 16, len(tokens)
    order = torch.stack([torch.randperm(words - 60, generator=generator)[: length + far] + 55 for _ in range(n)])
    prompt, needle = order.clone(), 10 + torch.arange(n) % 10
    each, asked = torch.arange(n), length + far - 2
    prompt[:, asked] = prompt[each, needle - 1]
    prompt[:, asked + 1] = prompt[each, needle]
    full = torch.cat([torch.full((n, 1), 1), prompt], 1)  # the start token
    place, ask = needle + 1, asked + 1
    at = {
        "needle": place[:, None], "answer": torch.full((n, 1), ask + 1), "predict": torch.full((n, 1), ask),
        "end": torch.full((n,), ask), "asked": torch.full((n, 1), ask), "city": place[:, None] - 1,
    }  # fmt: skip
    mask = torch.ones_like(full, dtype=torch.bool)
    other = full.clone()
    other[each, place] = order[:, -1]  # the last filler word, which nothing else uses
    labels = {"answer": full[each, place], "wrong": other[each, place]}
    changed = Batch(other, mask, at, labels=labels)
    return Batch(full, mask, at, labels=labels, control=changed, counterfactual=changed)


def test_a_planted_retrieval_head_is_found_and_its_removal_is_felt():
    spec = PlantSpec((Head(0, 0, "previous"), Head(0, 1, "duplicate"), Head(1, 2, "retrieval")))
    made = plant(spec, context=128)
    model = attach(made.model)
    batch = planted_batch(made.words.tokens)
    found = scan(model, ALL, batch).scores
    for detector in ALL:
        assert [line.head for line in found[detector.name].observed(detector.minimum_effect)] == [HeadId(1, 2)]
        removal = detector.removal(model, batch, logit_difference)
        assert removal.metric_drop([HeadId(1, 2)]).mean() > 1.0
        assert abs(removal.metric_drop([HeadId(1, 0)]).mean()) < 0.1
    shuffled = dataclasses.replace(batch.control, control=batch.control.rows(torch.randperm(len(batch))))
    nothing = scan(model, ALL[:1], shuffled).scores["retrieval"]
    assert not nothing.observed(ALL[0].minimum_effect), "a needle that says something else is not copied"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_retrieval_in_a_trained_model():
    import headatlas

    trained = headatlas.load("smollm2-135m")
    found = scan(trained, ALL, find_task("needle")(trained.tokenizer, 32, 0), size=4).scores
    heads = {str(line.head) for line in found["retrieval"].observed(ALL[0].minimum_effect)}
    assert {"18.6", "23.2"} <= heads


def test_tokens_copied_while_writing_are_counted_by_plain_loops(model):
    batch = batch_of(4)
    hf = toys.llama(vocab_size=49152)  # the same weights
    hf.set_attn_implementation("eager")
    for row in range(4):
        needle = [p for p in batch.positions["needle"][row].tolist() if p >= 0]
        start = int(batch.positions["predict"][row, 0]) + 1
        text, own = batch.tokens[row, :start].tolist(), batch.tokens[row, needle].tolist() * 2
        with torch.no_grad():
            maps = hf(torch.tensor([[*text, *own]]), output_attentions=True).attentions
        found = _copied(model, text, own, list(range(start)), len(set(own)))
        for i, head in enumerate(model.heads):
            copied = set()
            for step, token in enumerate(own):
                key = int(maps[head.layer][0, head.head, start + step - 1].argmax())
                if key < start and text[key] == token:
                    copied.add(token)
            assert float(found[i]) == pytest.approx(len(copied) / len(set(own)))


def test_the_recall_of_words_counts_each_as_often_as_it_stands_there():
    reader = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    own, wanted = (reader.tokenizer.encode(text) for text in (" a red red house.", " red house by the red sea"))
    assert _recall(reader, own, wanted) == pytest.approx(3 / 6)
