"""Sentiment summarizers and summary readers: against changed runs of the plain model, and where there is nothing to find."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors._measures import sentiment
from headatlas.lab.controls import untrained
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import find_task, logit_difference
from tests import toys

MINE = [find_detector("sentiment-summarizer"), find_detector("summary-reader")]


def batch_of(n=12):
    return find_task("movie-review")(toys.smollm2_vocabulary(), n, 0)


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152))


class Plain:
    """The same weights in a plain eager model: z and attention by layer, and the metric with z of a head put in."""

    def __init__(self, batch):
        self.hf, self.batch = toys.llama(vocab_size=49152), batch
        self.hf.set_attn_implementation("eager")
        self.d = self.hf.config.head_dim

    def seen(self, tokens):
        kept, handles = {}, []
        for i, block in enumerate(self.hf.model.layers):
            take = lambda _, args, i=i: kept.update({("z", i): args[0]})  # noqa: E731
            handles.append(block.self_attn.o_proj.register_forward_pre_hook(take))
            give = lambda _, __, out, i=i: kept.update({("v", i): out})  # noqa: E731
            handles.append(block.self_attn.v_proj.register_forward_hook(give))
        with torch.no_grad():
            out = self.hf(tokens, attention_mask=self.batch.mask.long(), output_attentions=True)
        for handle in handles:
            handle.remove()
        return kept, out.attentions, self.metric(out.logits)

    def metric(self, logits):
        at = logits[torch.arange(len(logits)), self.batch.positions["end"]][:, None]
        return logit_difference.score(at, self.batch).double().numpy()

    def put(self, head, places, values):
        """The metric with values [example, d] as z of a head at places [example]."""

        def change(_, args):
            z = args[0].clone()
            z[torch.arange(len(z)), places, head.head * self.d : (head.head + 1) * self.d] = values
            return (z,)

        handle = self.hf.model.layers[head.layer].self_attn.o_proj.register_forward_pre_hook(change)
        with torch.no_grad():
            logits = self.hf(self.batch.tokens, attention_mask=self.batch.mask.long()).logits
        handle.remove()
        return self.metric(logits)


def test_effects_are_those_of_changed_runs_of_the_plain_model(model, monkeypatch):
    monkeypatch.setattr(sentiment, "MINIMUM_ATTENTION", 0.0)  # so that every head is measured
    batch = batch_of()
    plain, d = Plain(batch), model.hf.config.head_dim
    own, attention, clean = plain.seen(batch.tokens)
    other, _, exchanged = plain.seen(batch.counterfactual.tokens)
    unit = np.abs(clean - exchanged).mean()
    each, at, end = torch.arange(len(batch)), batch.positions["summary"], batch.positions["end"]
    outputs, values = sentiment.output_effects(model, batch), sentiment.value_effects(model, batch)
    kinds = list(zip(batch.labels["template"].tolist(), batch.labels["positive"].tolist(), strict=True))
    partner = [
        next(((i + s) % 12 for s in range(1, 12) if kinds[(i + s) % 12] == kind), -1) for i, kind in enumerate(kinds)
    ]
    assert max(partner) >= 0
    for i, head in enumerate(model.heads):
        mine, group = slice(head.head * d, (head.head + 1) * d), slice(head.head // 2 * d, (head.head // 2 + 1) * d)
        z, v = own["z", head.layer], own["v", head.layer]
        from_other = plain.put(head, at, other["z", head.layer][each, at, mine])
        np.testing.assert_allclose(outputs.effect[:, i], (clean - from_other) / unit, rtol=1e-3, atol=1e-4)
        weight = attention[head.layer][each, head.head, end, at]
        read = z[each, end, mine] + weight[:, None] * (other["v", head.layer] - v)[each, at, group]
        np.testing.assert_allclose(
            values.effect[:, i], (clean - plain.put(head, end, read)) / unit, rtol=1e-3, atol=1e-4
        )
        same = (clean - plain.put(head, at, z[partner, at, mine])) / unit
        same[[one < 0 for one in partner]] = np.nan
        np.testing.assert_allclose(outputs.control[:, i], same, rtol=1e-3, atol=1e-4)


def test_heads_that_attend_elsewhere_are_not_measured(model, monkeypatch):
    monkeypatch.setattr(sentiment, "MINIMUM_ATTENTION", 1.1)
    batch = batch_of()
    for found in (sentiment.output_effects(model, batch), sentiment.value_effects(model, batch)):
        assert not found.effect.any()


def test_removal_exchanges_what_is_read_and_nothing_else(model):
    batch = batch_of(6)
    plain, d, head = Plain(batch), model.hf.config.head_dim, model.heads[6]
    own, attention, clean = plain.seen(batch.tokens)
    other = plain.seen(batch.counterfactual.tokens)[0]
    each, at, end = torch.arange(6), batch.positions["summary"], batch.positions["end"]
    moved = (other["v", head.layer] - own["v", head.layer])[each, at, head.head // 2 * d : (head.head // 2 + 1) * d]
    read = own["z", head.layer][each, end, head.head * d : (head.head + 1) * d]
    read = read + attention[head.layer][each, head.head, end, at][:, None] * moved
    found = MINE[1].removal(model, batch, logit_difference).metric_drop([head])
    np.testing.assert_allclose(found, clean - plain.put(head, end, read), atol=1e-5)


def test_an_untrained_model_has_none(monkeypatch):
    monkeypatch.setattr(sentiment, "MINIMUM_ATTENTION", 0.0)
    model = attach(untrained(toys.llama(vocab_size=49152, num_hidden_layers=3).config, seed=1))
    found = scan(model, MINE, batch_of(24)).scores
    assert not any(found[d.name].observed(d.minimum_effect) for d in MINE)
