"""What a model does on one text: attention maps, predictions, and what a head's removal does downstream."""

import math
import re

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.methods.attribution import edge_graph
from headatlas.model import attach
from tests import toys

TEXT = "The capital of France is"
WORDS = toys.smollm2_vocabulary()
IDS = torch.tensor([[WORDS.bos, *WORDS.encode(TEXT)]])


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152), tokenizer=WORDS)


def eager(model: ha.Model, edits=()) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Logits and attention weights that transformers itself gives."""
    hf = toys.llama(vocab_size=49152)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = hf(input_ids=IDS, output_attentions=True)
    return found.logits[0], found.attentions


def test_weights_are_those_that_transformers_gives(model):
    _, attentions = eager(model)
    found = model.attention(TEXT, "*.*")
    assert found.weights.shape == (8, 6, 6)
    for head, weights in zip(found.heads, found.weights, strict=True):
        assert np.allclose(weights, attentions[head.layer][0, head.head].numpy(), atol=1e-5)
    expected = torch.special.entr(torch.as_tensor(found.weights).double()).sum(-1)
    assert np.allclose(found.entropy, expected, atol=1e-5)
    assert found.tokens == ("<|im_start|>", "The", " capital", " of", " France", " is")
    best = int(found.of("1.2")[-1].argmax())
    position, token, weight = found.looks(k=1)["1.2"][0]
    assert (position, token) == (best, found.tokens[best])
    assert math.isclose(weight, found.of((1, 2))[-1].max(), rel_tol=1e-6)


def test_value_weighted_is_the_length_of_what_each_pair_writes(model):
    found = model.attention(TEXT, "1.*")
    seen = {}
    model.forward(TEXT, watch=lambda layer: seen.setdefault(layer.index, (layer.v.clone(), layer.W_O.clone())))
    v, out = seen[1]
    for i, head in enumerate(found.heads):
        written = v[0, head.head // 2] @ out[head.head]  # two heads share a group
        assert np.allclose(found.value_weighted[i], found.weights[i] * written.norm(dim=-1).numpy(), atol=1e-5)


def test_predictions_are_the_plain_models(model):
    logits, _ = eager(model)
    chances = logits[-1].softmax(-1)
    found = model.predict(TEXT, 3)
    assert found.ids[0].tolist() == chances.topk(3).indices.tolist()
    assert torch.allclose(found.probabilities[0], chances.topk(3).values, atol=1e-6)
    both = model.predict([TEXT, "Oh"], 2)
    assert both.ids.shape == (2, 2)
    assert both.ids[0].tolist() == found.ids[0, :2].tolist()


def test_pictures_say_what_they_draw(model, tmp_path):
    one, layer = model.attention(TEXT, "1.2"), model.attention(TEXT, "1.*")
    for found in (one, layer):
        for kind in ("html", "svg", "png"):
            assert found.save(tmp_path / f"a.{kind}").stat().st_size > 500
        svg = (tmp_path / "a.svg").read_text()
        said = re.search(r"([\d,]+) of ([\d,]+) arcs drawn", svg)
        drawn = len(re.findall(r"M[\d.]+ [\d.]+C", svg))
        assert int(said[1].replace(",", "")) == drawn
        assert int(said[2].replace(",", "")) == int((found.weights > 0).sum())
        assert "France" in svg
    assert "<svg" in one._repr_html_()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ha.HeadAtlasError, match="no kind of picture"):
        one.save(tmp_path / "a.pdf")
    assert "1.2" in repr(one)
    assert "AttentionMap" in repr(one)


def test_a_long_text_is_drawn_with_a_bounded_number_of_arcs(tmp_path):
    long = attach(toys.llama(max_position_embeddings=4096), tokenizer=None)
    ids = torch.randint(3, 160, (4096,), generator=torch.Generator().manual_seed(0))
    found = long.attention(ids, "1.2")
    assert found.weights.shape == (1, 4096, 4096)
    assert np.allclose(found.weights.sum(-1), 1, atol=1e-3)
    svg = found.save(tmp_path / "a.svg").read_text()
    assert "2,000 of 8,390,656 arcs drawn" in svg
    assert len(svg) < 500_000


def test_tokens_that_are_markup_are_text(model, tmp_path):
    page = model.attention("<script>alert(1)</script>", "0.0").save(tmp_path / "a.html").read_text()
    assert "<script" not in page


def test_downstream_is_what_two_plain_runs_differ_by(model):
    found = ha.downstream(model, TEXT, [("0.1", "0.2")], edit="zero", k=3)
    logits, rows = {}, {}
    for name, edits in (("clean", []), ("without", [ha.Zero("0.1 0.2")])):
        seen = {}
        logits[name] = model.forward(
            TEXT, edits=edits, watch=lambda layer, seen=seen: seen.setdefault(layer.index, layer.pattern.clone())
        )[0, -1].double()
        rows[name] = seen[1][0, :, -1]
    clean, changed = logits["clean"].log_softmax(-1), logits["without"].log_softmax(-1)
    assert np.isclose(found.kl[0], float((clean.exp() * (clean - changed)).sum()), rtol=1e-2, atol=1e-7)
    assert [token for token, _ in found.after[0]] == WORDS.pieces(changed.topk(3).indices.tolist())
    distance = 0.5 * (rows["clean"] - rows["without"]).abs().sum(-1)
    assert {one.head.layer for one in found.moved} == {1}
    for one in found.moved:
        assert np.isclose(one.change, float(distance[one.head.head]), atol=1e-6)
    assert "without 0.1 0.2" in repr(found)


def test_what_cannot_be_looked_at_is_refused(model):
    with pytest.raises(ha.HeadAtlasError, match="One prompt is read at a time"):
        model.attention([TEXT, TEXT], "0.1")
    with pytest.raises(ha.HeadAtlasError, match=r"no head 0\.9"):
        model.attention(TEXT, "0.9")
    with pytest.raises(ha.HeadAtlasError, match="gives no token logits"):
        toys.model("encoder").predict([1, 5, 6])


def test_what_methods_give_says_what_it_is_in_a_line(model):
    rows = [{"prompt": f"{i} {TEXT}", "answer": " Paris", "wrong": " Rome"} for i in range(4)]
    batch = ha.prompts(model, rows)
    effects = ha.ablate(model, batch, "0.*", edit="zero")
    circuit = ha.find_circuit(model, batch, largest=1)
    task, detector = ha.find_task("ioi"), find_detector("induction")
    things = {
        "HeadEffect(0.": effects.top(1)[0],
        "FoundCircuit(Circuit(": circuit,
        "CircuitTest(Circuit(0.*": ha.test_circuit(model, "0.*", batch, criteria="none"),
        "Asked(1 prompts of": ha.ask(model, TEXT),
        "Task(ioi v": task,
        "Metric(logit difference in logits": task.metric,
        "LayerDetector(induction v": detector,
        "Tokenizer(": model.tokenizer,
        "AttentionLayer(decoder 0: ": model.layers[0],
        "HeadScores(8 heads": ha.copy_scores(model, torch.arange(40))[0],
        "Graph(": edge_graph.Graph(model),
    }
    for begins, thing in things.items():
        assert repr(thing).startswith(begins)
        assert len(repr(thing)) < 250, repr(thing)
