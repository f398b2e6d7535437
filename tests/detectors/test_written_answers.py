"""Retrieval while the model writes, relation indices, and thoughts: each against plain loops over plain runs."""

from __future__ import annotations

import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors.faithfulness import _untold
from headatlas.detectors.retrieval_generated import _copied, _recall
from headatlas.methods import relation_index
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary().within(128))


def patterns(tokens: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Eager attention [example, head, query, key] and normed inputs of each layer, of the same weights."""
    hf = toys.llama(vocab_size=49152)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = hf(tokens, output_attentions=True, output_hidden_states=True)
    return list(found.attentions), [
        layer.input_layernorm(x) for layer, x in zip(hf.model.layers, found.hidden_states, strict=False)
    ]


def test_tokens_copied_while_writing_are_counted_by_plain_loops(model):
    batch = find_task("needle")(model.tokenizer, 4, 0)
    for row in range(4):
        needle = [p for p in batch.positions["needle"][row].tolist() if p >= 0]
        start = int(batch.positions["predict"][row, 0]) + 1
        text, own = batch.tokens[row, :start].tolist(), batch.tokens[row, needle].tolist() * 2
        maps, _ = patterns(torch.tensor([[*text, *own]]))
        found = _copied(model, text, own, list(range(start)), len(set(own)))
        for i, head in enumerate(model.heads):
            copied = set()
            for step, token in enumerate(own):
                key = int(maps[head.layer][0, head.head, start + step - 1].argmax())
                if key < start and text[key] == token:
                    copied.add(token)
            assert float(found[i]) == pytest.approx(len(copied) / len(set(own)))


def test_the_recall_of_words_counts_each_as_often_as_it_stands_there(model):
    own, wanted = (model.tokenizer.encode(text) for text in (" a red red house.", " red house by the red sea"))
    assert _recall(model, own, wanted) == pytest.approx(3 / 6)


@torch.no_grad()
def test_relation_indices_are_those_of_plain_weights(model, monkeypatch):
    monkeypatch.setattr(relation_index, "LEAST", 1 / 15)  # about what an untrained head gives each key
    batch = find_task("semantic-relations")(model.tokenizer, 6, 0)
    found = find_detector("semantic-induction").measure(model, batch)
    maps, inputs = patterns(batch.tokens)
    hf = model.hf
    size = hf.config.head_dim
    groups = hf.config.num_attention_heads // hf.config.num_key_value_heads
    seen = 0
    for i, head in enumerate(model.heads):
        block = hf.model.layers[head.layer].self_attn
        for row in range(len(batch)):
            key = int(batch.positions["head_last"][row])
            length = int(batch.mask[row].sum())
            group = head.head // groups
            v = block.v_proj.weight[group * size : (group + 1) * size] @ inputs[head.layer][row, key]
            write = block.o_proj.weight[:, head.head * size : (head.head + 1) * size] @ v
            ids = sorted(set(batch.tokens[row, :length].tolist()))
            logits = {one: float(hf.lm_head.weight[one] @ (hf.model.norm.weight * write)) for one in ids}
            mean = sum(logits.values()) / len(logits)
            raised = {one: max(0.0, value - mean) for one, value in logits.items()}
            looked = float(maps[head.layer][row, head.head, key + 1 : length, key].max()) >= relation_index.LEAST
            share = {one: value / sum(raised.values()) * looked for one, value in raised.items()}
            seen += looked
            tail, others = batch.positions["tail"][row], batch.positions["other"][row].tolist()
            assert float(found.values[row, i]) == pytest.approx(share[int(batch.tokens[row, tail])], abs=1e-4)
            wanted = sum(share[int(batch.tokens[row, p])] for p in others) / len(others)
            assert float(found.control[row, i]) == pytest.approx(wanted, abs=1e-4)
    assert 0 < seen < len(model.heads) * len(batch)


def test_a_prompt_without_its_thought_is_the_question_and_its_end(model):
    batch = find_task("thoughts")(model.tokenizer, 4, 0)
    told, untold = (
        [model.tokenizer.decode(row[mask].tolist()) for row, mask in zip(part.tokens, part.mask, strict=True)]
        for part in (batch, _untold(batch))
    )
    for one, other in zip(told, untold, strict=True):
        front, rest = one.split("\nThought:")
        assert other == front + rest[rest.index("\nSo") :]
