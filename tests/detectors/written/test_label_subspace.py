"""Task recognition and task learning: scores by plain hooks and least squares, in a model of random weights and in written ones."""

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.lab.plantings._classes import classes
from headatlas.methods.attribution.label_subspace import label_subspace
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys


def plain_writes(hf, tokens):
    """[layer, head, d_model] what each head adds at the last token, [d_model] the stream there, and the final norm's scale."""
    seen, last = [], []
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0, -1].double()))
        for layer in hf.model.layers
    ]
    handles.append(hf.model.norm.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0][0, -1])))
    with torch.no_grad():
        hf(tokens[None])
    for handle in handles:
        handle.remove()
    heads = hf.config.num_attention_heads
    writes = [
        torch.einsum("hd,mhd->hm", z.reshape(heads, -1), layer.self_attn.o_proj.weight.double().reshape(-1, heads, len(z) // heads))
        for z, layer in zip(seen, hf.model.layers, strict=True)
    ]  # fmt: skip
    stream = last[0].double()
    scale = float((stream.pow(2).mean() + hf.config.rms_norm_eps).rsqrt())
    return torch.stack(writes).detach().numpy(), stream.numpy(), scale


def projected(write, span):
    """The part of a write [d_model] within the rows of `span`, by least squares."""
    return np.linalg.lstsq(span.T, write, rcond=None)[0] @ span


def model_of(kind):
    if kind == "written":
        return classes(2).model
    hf = toys.llama(vocab_size=49152)
    with torch.no_grad():
        hf.model.norm.weight.copy_(torch.linspace(0.5, 2.0, len(hf.model.norm.weight)))
    return attach(hf, tokenizer=toys.smollm2_vocabulary().within(256))


@pytest.mark.parametrize("kind", ["written", "random"])
def test_scores_are_those_of_plain_hooks(kind: str):
    model = model_of(kind)
    hf = model.hf
    batch = find_task("classification")(model.tokenizer, 6, 0)
    recognition, learning = (
        find_detector(name).measure(model, batch) for name in ("task-recognition", "task-learning")
    )
    gain, unembedding = (x.detach().double().numpy() for x in (hf.model.norm.weight, hf.lm_head.weight))
    unembedding = unembedding - unembedding.mean(0)
    lengths, streams, cosines = {}, [], {}
    for name, part in (("own", batch), ("other", batch.counterfactual), ("loose", batch.control)):
        lengths[name], cosines[name] = np.zeros((6, len(model.heads))), np.zeros((6, len(model.heads)))
        for e in range(6):
            span = unembedding[[int(batch.answer[e]), *batch.wrong[e].tolist()]] * gain
            toward = span[0] - span[1:].mean(0)
            writes, stream, scale = plain_writes(hf, part.tokens[e][part.mask[e]])
            if name == "own":
                streams.append(scale * np.linalg.norm(projected(stream, span)))
            for i, head in enumerate(model.heads):
                inside = projected(writes[head.layer, head.head], span)
                lengths[name][e, i] = scale * np.linalg.norm(inside)
                margin = np.mean([writes[head.layer, head.head] @ (span[0] - other) for other in span[1:]])
                cosines[name][e, i] = margin / (np.linalg.norm(inside) * np.linalg.norm(toward))
    np.testing.assert_allclose(recognition.values, lengths["own"] / np.mean(streams), atol=1e-4)
    np.testing.assert_allclose(recognition.control, lengths["other"] / np.mean(streams), atol=1e-4)
    mean = lengths["own"].mean(0)
    counts = mean > 0.02 * mean.max()
    assert counts.any()
    np.testing.assert_allclose(learning.values, cosines["own"] * counts, atol=1e-3)
    loose = cosines["loose"] * counts
    np.testing.assert_allclose(learning.control, loose - np.minimum(loose.mean(0), 0), atol=1e-3)


def test_one_head_raises_all_labels_and_another_the_right_one():
    made = classes(0)
    batch = find_task("classification")(made.model.tokenizer, 12, 0)
    at = {name: made.model.heads.index(getattr(made, name)) for name in ("recognition", "learning")}
    recognition, learning = (
        find_detector(name).measure(made.model, batch) for name in ("task-recognition", "task-learning")
    )
    excess = (recognition.values - recognition.control).mean(0)
    assert float(excess[at["recognition"]]) > 0.2
    assert abs(float(learning.values[:, at["recognition"]].mean())) < 0.1
    assert float(learning.values[:, at["learning"]].mean()) > 0.6
    assert float(learning.control[:, at["learning"]].mean()) < 0.2
    for head in made.knowing:  # whatever the examples show
        i = made.model.heads.index(head)
        assert abs(float(excess[i])) < 0.01
        assert float((learning.values - learning.control)[:, i].mean()) < 0.1


def test_the_verdict_on_recognition_asks_for_any_label():
    """Removal of the head that raises all labels, by plain hooks."""
    made = classes(0)
    model, hf, head = made.model, made.model.hf, made.recognition
    batch = find_task("classification")(model.tokenizer, 4, 0)
    detector = find_detector("task-recognition")
    found = detector.removal(model, batch, detector.task.metric).metric_drop([head])
    width = hf.config.head_dim

    def silence(module, inputs):
        changed = inputs[0].clone()
        changed[0, -1, head.head * width : (head.head + 1) * width] = 0.0
        return (changed,)

    def lead(e):
        labels = [int(batch.answer[e]), *batch.wrong[e].tolist()]
        with torch.no_grad():
            logits = hf(batch.tokens[e][batch.mask[e]][None]).logits[0, -1]
        best = logits[labels].max()
        logits[labels] = -torch.inf
        return float(best - logits.max())

    clean = [lead(e) for e in range(4)]
    handle = hf.model.layers[head.layer].self_attn.o_proj.register_forward_pre_hook(silence)
    silenced = [lead(e) for e in range(4)]
    handle.remove()
    for e in range(4):
        assert found[e] == pytest.approx(clean[e] - silenced[e], abs=1e-3)
        assert found[e] > 0.3


def test_labels_that_are_one_token_twice_span_no_more_than_they_do_once():
    model = classes(0).model
    batch = find_task("classification")(model.tokenizer, 3, 0)
    once = torch.stack([batch.answer, batch.wrong[:, 0]], 1)
    twice = torch.cat([once, batch.wrong[:, :1]], 1)
    np.testing.assert_allclose(
        label_subspace(model, batch, once).lengths, label_subspace(model, batch, twice).lengths, atol=1e-4
    )
