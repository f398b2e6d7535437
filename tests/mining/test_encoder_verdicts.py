"""Verdicts of models that read both ways, beside the model's own masked-language-model loss and plain hooks."""

import functools

import numpy as np
import pytest
import torch
import transformers as T

from headatlas.detector import find_detector
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import metric_on, prepared
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.checks.records import unranked
from headatlas.mining.scan import scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import Tokenizer, attach
from headatlas.model.sources.resolve import resolve
from headatlas.progress import Silent
from headatlas.task import Batch, find_task
from headatlas.task.encoders import masked, masked_token_loss, pooled_change

PROSE = find_task("prose")


@functools.cache
def words() -> Tokenizer:
    return Tokenizer.load(resolve("minilm-l6").folder, causal=False, context=64, vocab_size=30522)


@functools.cache
def model(kind: str):
    """A tiny BERT with large random weights, so that heads do something; one head writes nothing."""
    torch.manual_seed(1)
    config = T.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    hf = getattr(T, kind)(config).eval()
    with torch.no_grad():
        hf.base_model.encoder.layer[1].attention.output.dense.weight[:, 8:16] = 0.0
    return attach(hf, tokenizer=words())


def bare(hf, tokens, mask, off=()):
    """The model's own output with z of heads replaced by given vectors, by plain hooks: off = ((layer, head, vector), ...)."""
    handles = []
    for layer, head, vector in off:

        def replace(module, inputs, head=head, vector=vector):
            z = inputs[0].clone()
            z[..., head * 8 : head * 8 + 8] = vector
            return (z, *inputs[1:])

        handles.append(hf.base_model.encoder.layer[layer].attention.output.dense.register_forward_pre_hook(replace))
    with torch.no_grad():
        found = hf(input_ids=tokens, attention_mask=mask.long())
    for handle in handles:
        handle.remove()
    return found


def test_masking_depends_on_the_text_alone_and_spares_start_and_end():
    batch = PROSE(words(), 5)
    found = masked(batch, words(), words().mask)
    order = torch.tensor([3, 1, 4, 0, 2])
    again = masked(batch.rows(order), words(), words().mask)
    assert torch.equal(again.tokens, found.tokens[order])
    for row, before, at, ids in zip(
        found.tokens, batch.tokens, found.positions["masked"], found.labels["masked"], strict=True
    ):
        at = at[at >= 0].tolist()
        assert len(at) == round(0.15 * 62)
        assert 0 not in at
        assert 63 not in at
        assert [i for i in range(64) if row[i] != before[i] or row[i] == words().mask] == at
        assert before[at].tolist() == ids.tolist()
    assert found.control is not None
    assert "masked" in found.control.labels


def test_texts_of_different_lengths_are_masked_in_place():
    tokens = torch.tensor([[101, 5, 6, 7, 8, 102, 0, 0], [101, 9, 102, 0, 0, 0, 0, 0]])
    found = masked(Batch(tokens, tokens > 0), words(), 103)
    assert (found.tokens == 103).sum(1).tolist() == [1, 1]
    assert found.tokens[1].tolist() == [101, 103, 102, 0, 0, 0, 0, 0]


def test_the_loss_is_the_models_own():
    one = model("BertForMaskedLM")
    batch = prepared(one, masked_token_loss, PROSE(words(), 4))
    labels = torch.full_like(batch.tokens, -100).scatter(1, batch.positions["masked"], batch.labels["masked"])
    own = [one.hf(batch.tokens[i : i + 1], labels=labels[i : i + 1]).loss.item() for i in range(4)]
    at = one.forward(batch, logit_positions=batch.positions["masked"])
    np.testing.assert_allclose(masked_token_loss.score(at, batch).numpy(), own, rtol=1e-4)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertModel"])
def test_effects_are_those_of_plain_hooks(kind):
    one = model(kind)
    metric = metric_on(one, PROSE)
    batch = prepared(one, metric, PROSE(words(), 4))
    scan = scan_task(one, PROSE, [find_detector("delimiter")], PROSE(words(), 4))
    removal = ablated(one, batch, metric, scan.mean_z)

    def value(off=()):
        out = bare(one.hf, batch.tokens, batch.mask, off)
        if kind == "BertForMaskedLM":
            at = batch.positions["masked"][..., None].expand(-1, -1, 30522)
            return masked_token_loss.score(out.logits.gather(1, at), batch).numpy()
        vectors = out.last_hidden_state.mean(1)
        clean = bare(one.hf, batch.tokens, batch.mask).last_hidden_state.mean(1)
        return 1 - torch.cosine_similarity(vectors, clean).numpy()

    for layer, head in ((0, 2), (1, 3)):
        off = ((layer, head, scan.mean_z["encoder", layer][head]),)
        expected = value(off) - value()
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(removal.metric_drop([HeadId(layer, head, "encoder")]), expected, atol=2e-5)
    assert not removal.metric_drop([HeadId(1, 1, "encoder")]).any(), "a head that writes nothing changes nothing"


def test_a_change_of_the_vector_has_no_slope_to_rank_heads_by():
    one = model("BertModel")
    batch = prepared(one, pooled_change, PROSE(words(), 4))
    with pytest.raises(BadInput, match="no slope"):
        ablated(one, batch, pooled_change, {}).estimates(one.heads)


def test_a_sentence_vector_model_gets_verdicts_named_by_its_metric():
    one = model("BertModel")
    detector = find_detector("delimiter")
    scan = scan_task(one, PROSE, [detector], PROSE(words(), 8))
    assert scan.baseline.metric == "pooled-vector change"
    assert scan.baseline.value == 0
    assert scan.baseline.able
    from dataclasses import replace

    made = replace(scan, detectors=(replace(scan.detectors[0], observed=(one.heads[0], one.heads[5])),))
    judged = judge_task(one, PROSE, [detector], made, n=8, seed=0, progress=Silent(), checks=("removals", "transfer"))
    found = judged.detectors["delimiter"]
    assert found.metric == "pooled-vector change"
    # Of a handful of free heads none can be said to be rarer than one in twenty.
    loud = found.heads[one.heads[0]]
    assert unranked(loud.alone, found.smallest)
    assert loud.verdict == "untested"
    assert found.heads[one.heads[5]].alone.effect == 0, "the silent head"
    assert found.verdicts[one.heads[5]] == "refuted"
