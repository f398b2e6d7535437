"""Models that give one output a text, or other outputs than logits: opened as what they are, or refused in a line."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from headatlas.errors import UnsupportedModel
from headatlas.model import attach

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
BERT, LLAMA = hf.BertConfig(**SHAPE), hf.LlamaConfig(**SHAPE, pad_token_id=0)
GPT2 = hf.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=1)
CASES = [
    (hf.BertForSequenceClassification, BERT, False),
    (hf.BertForNextSentencePrediction, BERT, False),
    (hf.BertForTokenClassification, BERT, False),
    (hf.BertForPreTraining, BERT, False),
    (hf.GPT2ForSequenceClassification, GPT2, True),
    (hf.LlamaForSequenceClassification, LLAMA, True),
    (hf.LlamaForTokenClassification, LLAMA, True),
]


@pytest.mark.parametrize(("kind", "config", "causal"), CASES, ids=lambda one: getattr(one, "__name__", None))
def test_a_classifier_is_opened_as_the_model_below_it(kind, config, causal: bool):
    torch.manual_seed(0)
    plain = kind(config).eval()
    model = attach(plain)
    assert {layer.causal for layer in model.layers} == {causal}
    assert model.kind == ("decoder" if causal else "encoder")
    tokens, seen = torch.tensor([[5, 6, 7, 8, 9, 10]]), {}
    found = model.forward(tokens, watch=lambda layer: seen.setdefault(layer.index, layer.pattern.clone()))
    kept = plain(tokens, output_attentions=True)
    expected = kept.prediction_logits if kind is hf.BertForPreTraining else kept.logits
    assert torch.allclose(found, expected, atol=1e-5)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = plain(tokens, output_attentions=True).attentions
    for index, one in enumerate(attentions):
        assert torch.allclose(seen[index], one, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_an_encoder_of_small_random_weights_is_none_that_reads_one_way(seed: int):
    torch.manual_seed(seed)  # its first token sees about a thousandth of what the last one does
    assert attach(hf.BertForTokenClassification(BERT).eval()).kind == "encoder"


def test_outputs_that_are_no_logits_are_refused_by_name():
    with pytest.raises(UnsupportedModel, match="QuestionAnsweringModelOutput has neither logits nor hidden states"):
        attach(hf.LlamaForQuestionAnswering(LLAMA).eval())
