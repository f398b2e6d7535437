"""Concept induction heads: against plain eager attention weighed by plain values, and where there is nothing to find."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys

NAME = "concept-induction"


@pytest.mark.parametrize("groups", [4, 2])
def test_scores_are_those_of_plain_attention_weighed_by_plain_values(groups: int):
    words = toys.smollm2_vocabulary().within(160)
    hf = toys.llama(vocab_size=49152, num_key_value_heads=groups)  # the same weights twice
    model = attach(toys.llama(vocab_size=49152, num_key_value_heads=groups), tokenizer=words)
    hf.set_attn_implementation("eager")
    batch = find_task("repeated-words")(words, 6, 0)
    found = scan(model, [find_detector(NAME)], batch).scores[NAME]
    values: list[torch.Tensor] = []
    for layer in hf.model.layers:
        layer.self_attn.v_proj.register_forward_hook(lambda module, given, value: values.append(value.detach()))
    with torch.no_grad():
        maps = hf(batch.tokens, output_attentions=True).attentions
    heads, size = hf.config.num_attention_heads, hf.config.head_dim
    assert found.values.shape == (6, len(maps) * heads)
    for at, (weights, value) in enumerate(zip(maps, values, strict=True)):
        for head in range(heads):
            group = head * groups // heads
            for e in range(len(batch)):
                lengths = value[e, :, group * size : (group + 1) * size].pow(2).sum(-1).sqrt()

                def share(query: int, key: int, row=weights[e, head], lengths=lengths) -> float:
                    return float(row[query, key] * lengths[key] / (row[query] * lengths).sum())

                def between(what: str, e: int = e, share=share) -> float:
                    pairs = zip(batch.positions[f"{what}_query"][e], batch.positions[f"{what}_last"][e], strict=True)
                    return float(np.mean([share(int(query), int(key)) for query, key in pairs]))

                rest = [int(query) for query in batch.positions["rest"][e] if query >= 0]
                elsewhere = np.mean(
                    [share(query, int(key)) for query in rest for key in batch.positions["word_last"][e]]
                )
                assert found.values[e, at * heads + head] == pytest.approx(between("word"), abs=1e-5)
                assert found.control[e, at * heads + head] == pytest.approx(max(between("run"), elsewhere), abs=1e-5)


def test_an_untrained_model_has_none():
    words, detector = toys.smollm2_vocabulary().within(160), find_detector(NAME)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    found = scan(model, [detector], find_task("repeated-words")(words, 16, 0)).scores[NAME]
    assert not found.observed(detector.minimum_effect)
