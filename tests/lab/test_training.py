"""The training loop: checkpoints on a log scale, killed trainings that end in the same bits, and heads changed on the way."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM

import headatlas as ha
from headatlas.errors import BadInput, HeadAtlasError, StoreError
from headatlas.heads import HeadId
from headatlas.lab.construct.transformer import save
from headatlas.lab.measure import attend
from headatlas.lab.toy.probes import back, matching, next_token_loss
from headatlas.lab.training.interventions import Intervention, in_force, wanted_pattern, weights_of
from headatlas.lab.training.loop import train
from headatlas.lab.training.models import small_gpt2, small_llama
from headatlas.lab.training.options import TrainOptions
from tests import pages

VOCAB, LENGTH = 12, 10
OPTIONS = TrainOptions(12, learning_rate=1e-2, warmup=4, per_decade=2, keep_every=5)
MAKERS = {"gpt2": small_gpt2, "llama": small_llama}
FIRST, SECOND = (HeadId(0, 1),), (HeadId(1, 0),)


def tokens(generator):
    return torch.randint(0, VOCAB, (4, LENGTH), generator=generator)


def objective(model, generator):
    return next_token_loss(model, tokens(generator))


def made(kind="gpt2", **options):
    return MAKERS[kind](VOCAB, LENGTH, 16, 2, **options)


def trained(kind="gpt2", interventions=(), **more):
    return train(made(kind), objective, OPTIONS, interventions=interventions, **more)


def same(a, b):
    return all(torch.equal(one, two) for one, two in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_checkpoints_are_even_on_a_log_scale():
    steps = TrainOptions(1000, per_decade=4).checkpoints
    assert steps == (0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000)
    assert TrainOptions(1).checkpoints == (0, 1)


def test_the_rate_rises_and_falls_as_it_is_told():
    rates = [TrainOptions(100, learning_rate=1.0, warmup=10, decay="cosine").rate(step) for step in (0, 4, 9, 50, 100)]
    assert rates == pytest.approx([0.1, 0.498, 0.982, 0.55, 0.1], abs=2e-3)
    with pytest.raises(BadInput, match="cannot fall by 'steps'"):
        TrainOptions(10, decay="steps")


def killed(folder, at):
    """A child that is killed as by kill -9 in the middle of a step."""
    steps = []

    def deadly(model, generator):
        steps.append(1)
        if model.training and sum(steps) > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return objective(model, generator)

    child = os.fork()
    if not child:
        try:
            train(made(mlp=8), deadly, OPTIONS, seed=3, folder=folder, save=save)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process of its own")
def test_a_killed_training_ends_in_the_same_bits(tmp_path):
    whole = train(made(mlp=8), objective, OPTIONS, seed=3, folder=tmp_path / "whole", save=save)
    for at in (5, 4, 3):
        killed(tmp_path / "killed", at)
    resumed = train(made(mlp=8), objective, OPTIONS, seed=3, folder=tmp_path / "killed", save=save)
    assert same(whole.model, resumed.model)
    assert whole.points == resumed.points
    names = [[path.name for path in sorted((tmp_path / one / "checkpoints").iterdir())] for one in ("whole", "killed")]
    assert names[0] == names[1] == [f"step-{step:07d}" for step in OPTIONS.checkpoints]
    for step in OPTIONS.checkpoints:
        place = f"checkpoints/step-{step:07d}/model.safetensors"
        assert (tmp_path / "whole" / place).read_bytes() == (tmp_path / "killed" / place).read_bytes()
    last = tmp_path / "killed" / "checkpoints" / names[0][-1]
    assert same(whole.model, AutoModelForCausalLM.from_pretrained(last))


def test_a_finished_training_is_read_and_another_one_refused(tmp_path):
    first = trained(folder=tmp_path)
    assert trained(folder=tmp_path).points == first.points
    with pytest.raises(BadInput, match="state of another training"):
        train(made(), objective, TrainOptions(13), folder=tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        trained(folder=tmp_path)


def test_a_loss_that_is_no_number_ends_it():
    with pytest.raises(HeadAtlasError, match="no longer a number at step 0"):
        train(made(), lambda model, chance: objective(model, chance) * float("nan"), OPTIONS)


def test_clamped_patterns_say_where_a_head_would_look():
    text = torch.tensor([[3, 5, 3, 7, 3, 3]])
    wanted = wanted_pattern("induction", text)[0]
    assert torch.equal(wanted.sum(-1), torch.ones(6))
    # What followed an earlier 3: position 1; then 1 and 3; then also the 3 itself that follows one.
    assert wanted[2].tolist() == [0, 1, 0, 0, 0, 0]
    assert wanted[4].tolist() == [0, 0.5, 0, 0.5, 0, 0]
    assert wanted[5].tolist() == pytest.approx([0, 1 / 3, 0, 1 / 3, 0, 1 / 3])
    assert wanted[1].tolist() == [1, 0, 0, 0, 0, 0]  # no earlier 5: the first token
    assert torch.equal(matching(text)[0, 4], torch.tensor([False, True, False, True, False, False]))
    previous = wanted_pattern("previous-token", text)
    assert torch.equal(previous[0, 1:], back(text)[0, 1:].float())
    assert previous[0, 0].tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_clamped_head_attends_as_told_and_the_rest_learns(kind):
    model, batch = made(kind), tokens(torch.Generator().manual_seed(5))
    own, clean = attend(model, batch)
    half = [Intervention(FIRST, "clamp", strength=0.5)]
    with in_force(model, half, 0):
        said = model(batch, output_attentions=True)
    wanted = 0.5 * own[0][:, 1] + 0.5 * wanted_pattern("previous-token", batch)
    torch.testing.assert_close(said.attentions[0][:, 1], wanted)
    torch.testing.assert_close(said.attentions[0][:, 0], own[0][:, 0])
    assert not torch.allclose(said.logits, clean)
    assert torch.equal(attend(model, batch)[1], clean)
    with in_force(model, [Intervention(FIRST, "clamp", start=1)], 0):
        assert torch.equal(attend(model, batch)[1], clean)
    changed = trained(kind, [Intervention(FIRST, "clamp")]).model
    views = dict(zip("qkvo", [*weights_of(changed, FIRST[0])[:3], weights_of(changed, FIRST[0])[-1]], strict=True))
    start = dict(zip("qkvo", [*weights_of(model, FIRST[0])[:3], weights_of(model, FIRST[0])[-1]], strict=True))
    # A head whose attention is fixed gets no gradient on queries and keys: only decay moves them.
    assert (views["q"] - start["q"]).norm() < 0.01 * (views["v"] - start["v"]).norm()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_frozen_head_keeps_its_weights_while_it_is(kind):
    start = weights_of(made(kind), SECOND[0])
    model = trained(kind, [Intervention(SECOND, "freeze")]).model
    assert all(torch.equal(one, two) for one, two in zip(weights_of(model, SECOND[0]), start, strict=True))
    other = zip(weights_of(model, FIRST[0]), weights_of(made(kind), FIRST[0]), strict=True)
    assert not any(torch.equal(one, two) for one, two in other)
    late = trained(kind, [Intervention(SECOND, "freeze", start=8)]).model
    early = train(made(kind), objective, OPTIONS, interventions=[Intervention(SECOND, "freeze", stop=8)]).model
    assert not any(torch.equal(one, two) for one, two in zip(weights_of(late, SECOND[0]), start, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(weights_of(early, SECOND[0]), start, strict=True))


def test_nothing_differs_before_an_intervention_begins():
    control = trained()
    for how in ("clamp", "ablate", "freeze", "regularise"):
        points = trained(interventions=[Intervention(SECOND, how, start=6)]).points
        assert points[:3] == control.points[:3]
        assert points[-1] != control.points[-1]


def test_an_ablated_head_learns_nothing_and_a_regularised_one_writes_less():
    def size(model):
        found = []
        hook = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(
            lambda _, inputs: found.append(inputs[0][..., :8])
        )
        model(tokens(torch.Generator().manual_seed(1)))
        hook.remove()
        return float(found[0].detach().square().mean())

    off = trained(interventions=[Intervention(SECOND, "ablate")]).model
    drift = weights_of(off, SECOND[0])[0] / weights_of(made(), SECOND[0])[0]
    torch.testing.assert_close(drift, torch.full_like(drift, float(drift.mean())), atol=1e-4, rtol=0)  # decay alone
    assert size(trained(interventions=[Intervention(SECOND, "regularise", strength=100.0)]).model) < 0.5 * size(
        trained().model
    )


def test_wrong_interventions_are_refused():
    for wrong, said in (
        ({"how": "pinch"}, "by 'pinch'"),
        ({"how": "clamp", "pattern": "nowhere"}, "clamped to 'nowhere'"),
        ({"how": "clamp", "strength": 0.0}, "clamped by 0"),
        ({"how": "ablate", "start": 5, "stop": 5}, "Steps 5 to 5"),
    ):
        with pytest.raises(BadInput, match=said):
            Intervention(FIRST, **wrong)
    with pytest.raises(BadInput, match=r"no head 4\.0"):
        trained(interventions=[Intervention((HeadId(4, 0),), "ablate")])


def test_a_toy_is_trained_with_its_control_beside_it(tmp_path):
    found = ha.clamp(
        "markov", ha.Intervention((HeadId(0, 0),), "clamp", start=2, stop=3), steps=4, out=tmp_path / "out"
    )
    control, changed = found.runs["control"], found.runs["changed"]
    assert control.points[:2] == changed.points[:2]
    assert control.points[-1] != changed.points[-1]
    assert found.rows[0]["number"] == "loss"
    for name in found.runs:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name / "checkpoints" / "step-0000004")
        assert same(model, found.runs[name].model)
        assert not (tmp_path / "out" / name / "state.safetensors").exists()
    assert "steps 2 to 3" in (tmp_path / "out" / "clamp.svg").read_text()
    with pytest.raises(BadInput, match="begins after the last step"):
        ha.clamp("markov", ha.Intervention((HeadId(0, 0),), "ablate", start=9), steps=4)
    with pytest.raises(StoreError, match="exists already"):
        ha.clamp("markov", ha.Intervention((HeadId(0, 0),), "clamp", start=2, stop=3), steps=4, out=tmp_path / "out")


def test_the_page_trains_a_model_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = pages.text("toys.md").split("```python\n")[-1].split("```")[0]
    names = {}
    exec(block, names)
    assert len(names["run"].series("loss")) == len(names["run"].points) > 5
    assert (tmp_path / "training" / "checkpoints" / "step-0000020" / "config.json").is_file()


def test_a_head_that_a_toy_lacks_is_named_before_its_control_is_trained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headatlas.lab.toy.study.Variant.train", lambda *rest, **named: pytest.fail("trained"))
    with pytest.raises(BadInput, match=r"no head 9\.9"):
        ha.clamp("repeated", ha.Intervention((ha.HeadId(9, 9),), "ablate"))
