"""Steering: directions and doses against hooks on the plain model, cached generation included."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply import steering
from headatlas.apply.steering import find, generate, measure
from headatlas.cli import main
from headatlas.edits import load_edits, save
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.probing import Labels, labels_of
from headatlas.model import attach
from headatlas.task import Batch, logit_difference, next_token_loss
from tests import toys
from tests.methods.test_probing import LINES, plain_outputs, texts

HEADS = [HeadId(0, 1), HeadId(1, 3)]


@pytest.fixture(params=["gqa", "gpt2", "window"])
def model(request):
    return toys.model(request.param)


def ends(model, batch: Batch, head: HeadId) -> torch.Tensor:
    """z [example, d] of a head at each text's last token, by hooks on the plain model."""
    z = plain_outputs(model, batch, head.layer).unflatten(-1, (4, -1))[:, :, head.head]
    return z[torch.arange(len(batch)), batch.positions["end"]]


@pytest.mark.parametrize("kind", ["mean", "pca", "probe", "random"])
def test_directions_have_length_one_and_alpha_counts_in_standard_deviations(model, kind):
    batch = texts(30)
    y = batch.labels["label"]
    found = find(model, HEADS, batch, y, kind)
    for head in HEADS:
        z, unit = ends(model, batch, head), found.directions[head]
        assert unit.norm().item() == pytest.approx(1, abs=1e-5)
        assert found.spread[head] == pytest.approx((z @ unit).std().item(), rel=1e-3)
        means = z[y == 1].mean(0) - z[y == 0].mean(0)
        if kind == "mean":
            torch.testing.assert_close(unit, means / means.norm(), atol=1e-4, rtol=1e-3)
        if kind == "pca":
            first = torch.linalg.svd(z - z.mean(0)).Vh[0]
            torch.testing.assert_close(unit, first * torch.sign(first @ means), atol=1e-3, rtol=1e-3)
        if kind != "random":
            assert (unit @ means).item() > 0
    assert not torch.allclose(found.random(1).directions[HEADS[0]], found.random(2).directions[HEADS[0]])


def pushed(model, found: steering.Steering, alpha: float, start: int):
    """Hooks on the plain model that add the displacement to z from token `start` on; cached passes see one token."""
    handles, seen = [], {}
    for head in HEADS:

        def hook(_, args, head=head):
            x = args[0].clone()
            begin = seen.get(head, 0)
            seen[head] = begin + x.shape[1]
            z = x.unflatten(-1, (4, -1))
            z[:, max(0, start - begin) :, head.head] += alpha * found.spread[head] * found.directions[head]
            return (z.flatten(-2),)

        handles.append(model.layers[head.layer].projection.register_forward_pre_hook(hook))
    return handles


def test_generation_is_that_of_hooks_on_the_plain_model_with_its_cache(model):
    batch = texts(30)
    found = find(model, HEADS, batch, batch.labels["label"])
    ids, alpha = batch.tokens[:1, :4], 40.0
    positions = range(3, 3 + 12)
    with model.edited([found.add(alpha, positions)]) as hf:
        ours = hf.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    handles = pushed(model, found, alpha, 3)
    real = model.hf.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    for handle in handles:
        handle.remove()
    plain = model.hf.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(ours, real)
    assert not torch.equal(ours, plain)


def pairs(n: int = 12) -> Batch:
    """Prompts with two answers."""
    batch = texts(n)
    labels = {**batch.labels, "answer": torch.arange(20, 20 + n), "wrong": torch.arange(50, 50 + n)}
    return replace(batch, labels=labels)


def test_doses_are_those_of_hooks_on_the_plain_model(model):
    batch = pairs()
    found = find(model, HEADS, texts(30), texts(30).labels["label"])
    doses = measure(model, found, batch, logit_difference, [2.0, -5.0], draws=2)
    for i, alpha in enumerate(doses.alphas):
        for e in range(len(batch)):
            end = int(batch.positions["end"][e])
            handles = pushed(model, found, alpha, end)
            with torch.no_grad():
                logits = model.hf(batch.tokens[e : e + 1, : end + 1]).logits[0, -1]
            for handle in handles:
                handle.remove()
            expected = logits[batch.answer[e]] - logits[batch.wrong[e]]
            assert doses.values[e, i] == pytest.approx(expected.item(), abs=1e-4)
    line = doses.summary()[0]
    assert line.change == pytest.approx((doses.values[:, 0] - doses.base).mean())
    drawn = (doses.random - doses.base[None, :, None]).mean(1)[:, 0]
    assert line.random_reach == pytest.approx(np.abs(drawn).max())
    assert np.isnan(line.harm)


def test_nothing_happens_at_alpha_zero_and_harm_is_the_loss_elsewhere():
    model, batch = toys.model("gqa"), pairs()
    found = find(model, HEADS, texts(30), texts(30).labels["label"])
    other = Batch(batch.tokens, torch.ones_like(batch.mask), {"predict": torch.arange(2, 8).expand(12, -1)})
    doses = measure(model, found, batch, logit_difference, [0.0, 60.0], draws=1, unrelated=(other, next_token_loss))
    np.testing.assert_allclose(doses.values[:, 0], doses.base, atol=1e-5)
    assert doses.summary()[0].harm == pytest.approx(0, abs=1e-5)
    edited = model.forward(other, edits=[found.add(60.0)])
    expected = next_token_loss.score(edited[:, 2:8], other) - next_token_loss.score(model.forward(other)[:, 2:8], other)
    assert doses.summary()[1].harm == pytest.approx(expected.mean().item(), abs=1e-4)


def test_removal_leaves_nothing_along_the_direction_and_layers_can_be_pushed(model):
    batch = texts(30)
    found = find(model, HEADS, batch, batch.labels["label"])
    seen = {}

    def watch(layer):
        seen[layer.index] = layer.z

    model.forward(batch, edits=[found.remove()], watch=watch)
    assert (seen[1][:, :, 3] @ found.directions[HEADS[1]]).abs().max() < 1e-5
    layer = find(model, [1], batch, batch.labels["label"], component="residual")
    assert list(layer.directions) == [("decoder", 1)]
    doses = measure(model, layer, pairs(), logit_difference, [3.0, None], draws=1, everywhere=True)
    assert [line.alpha for line in doses.summary()] == [3.0, None]
    assert np.abs(doses.values - doses.base[:, None]).max() > 1e-3


def test_saved_pushes_do_the_same(tmp_path):
    model, batch = toys.model("gqa"), texts(30)
    found = find(model, HEADS, batch, batch.labels["label"])
    edit = found.add(4.0)
    save([edit], tmp_path / "kept")
    torch.testing.assert_close(
        model.forward(batch, edits=load_edits(tmp_path / "kept")), model.forward(batch, edits=[edit]), atol=0, rtol=0
    )


def test_the_metric_is_counted_for_the_class_that_is_steered_to():
    batch = pairs()
    logits = torch.randn(12, 1, 160, generator=torch.Generator().manual_seed(0))
    plain = logit_difference.score(logits, batch)
    aimed = steering.toward_metric(logit_difference, batch, "label", "1")
    sign = torch.where(batch.labels["label"] == 1, 1.0, -1.0)
    torch.testing.assert_close(aimed.score(logits, batch), plain * sign)
    assert "towards label 1" in aimed.name
    assert steering.toward_metric(next_token_loss, batch, "label", "1") is next_token_loss
    assert steering.toward_metric(logit_difference, batch, "truth", "1") is logit_difference


def test_the_best_heads_are_those_with_the_best_probes():
    model, batch = toys.model("gpt2"), texts(40)
    labels = labels_of(batch)
    best = steering.best_heads(model, batch, labels, 2)
    assert len(best) == 2
    assert set(best) <= set(model.heads)
    assert steering.toward(labels, "0").tolist() == (1 - batch.labels["label"]).tolist()
    assert steering.toward(Labels(labels.y, labels.group, ("good", "bad"))).tolist() == batch.labels["label"].tolist()


def test_wrong_input_is_refused():
    model, batch = toys.model("gqa"), texts(30)
    y = batch.labels["label"]
    with pytest.raises(BadInput, match="Unknown direction 'up'"):
        find(model, HEADS, batch, y, "up")
    with pytest.raises(BadInput, match="does not act on 'q'"):
        find(model, HEADS, batch, y, component="q")
    with pytest.raises(BadInput, match="Unknown class 'blue'"):
        steering.toward(labels_of(batch), "blue")
    for text in ("", "5,x", "inf"):
        with pytest.raises(BadInput, match="not a list of numbers"):
            steering.parse_alphas(text)
    assert steering.parse_alphas("5, -2.5") == [5.0, -2.5]
    with pytest.raises(BadInput, match="one alpha"):
        measure(model, find(model, HEADS, batch, y), pairs(), logit_difference, [])
    with pytest.raises(BadInput, match="does not generate"):
        generate(toys.model("encoder"), "x")


def test_the_command_measures_generates_and_saves(tmp_path, monkeypatch, capsys):
    small = attach(toys.llama(vocab_size=49152, max_position_embeddings=256), tokenizer=toys.smollm2_vocabulary())
    monkeypatch.setattr("headatlas.load", lambda *_, **__: small, raising=False)
    found, measured = tmp_path / "p.jsonl", tmp_path / "m.jsonl"
    found.write_text("\n".join(map(json.dumps, LINES)))
    measured.write_text(json.dumps({"clean": "Paris is a", "answer": " tree", "wrong": " city"}) + "\n" + json.dumps({"clean": "Rome is a", "answer": " tree", "wrong": " city"}))  # fmt: skip
    arguments = [
        "steer",
        "a/any",
        "--prompts",
        str(found),
        "--heads",
        "0.1 1.2",
        "--alpha",
        "2,50",
        "--remove",
        "--draws",
        "2",
    ]
    more = ["--measure", str(measured), "--generate", "Rome is a", "--tokens", "4", "--save", str(tmp_path / "kept")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *more, "--json"])
    assert not ended.value.code
    data = json.loads(capsys.readouterr().out)
    assert [row["alpha"] for row in data["measured"]["doses"]] == [2.0, 50.0, None]
    assert data["generated"]["alpha"] == 50.0
    assert data["toward"] == "tree"
    assert len(load_edits(tmp_path / "kept")) == 1
    with pytest.raises(SystemExit):
        main([*arguments, "--measure", str(measured)])
    assert "loss on" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "nothing to measure" in capsys.readouterr().err
