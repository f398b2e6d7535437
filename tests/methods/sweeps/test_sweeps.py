"""Ablation and patching of all heads against loops of plain edited runs; statistics, triage, folders."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

import headatlas as ha
from headatlas.edits import Mean, OnHeads, Resample, Swap, Zero, collect
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.options import RunOptions
from headatlas.methods.prompts import Prompts
from headatlas.methods.sweeps.ablation import ablate, reference_of
from headatlas.methods.sweeps.activation_patching import patch
from headatlas.methods.sweeps.effects import HeadEffects, sign_flip_p
from headatlas.methods.sweeps.memory_budget import parse_size
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from headatlas.tasks.ioi import ioi
from tests import toys
from tests.methods.sweeps.test_replay import metric_for, prompts

KINDS = ["gpt2", "llama", "gemma2", "gpt-oss", "falcon-alibi", "lfm2", "jamba", "bert-masked", "bart"]


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


def loop(model, batch, metric, edit_for, *, run_on=None) -> np.ndarray:
    """[example, head] the metric with one whole edited run per head."""
    positions = metric.positions(batch)
    rows = [
        metric.score(model.forward(run_on or batch, edits=[edit_for(head)], logit_positions=positions), batch)
        for head in model.heads
    ]
    return torch.stack(rows, 1).double().numpy()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("positions", ["all", "end"])
def test_ablation_equals_a_loop_of_edited_runs(name: str, positions: str):
    model, batch = attach(FAMILIES[name].build()), prompts(4)
    metric = metric_for(model)
    batch = replace(batch, counterfactual=replace(batch.counterfactual, mask=batch.mask))
    places = None if positions == "all" else batch.positions["end"][:, None]
    zero = ablate(model, Prompts(batch=batch, metric=metric), edit="zero", positions=positions)
    expected = loop(model, batch, metric, lambda head: Zero([head], positions=places))
    np.testing.assert_allclose(zero.values[:, :, 0], expected, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(zero.base, metric_of(model, batch, metric), atol=1e-5)
    mean = ablate(model, Prompts(batch=batch, metric=metric), edit="mean", positions=positions)
    tokens = None if places is None else batch.positions["end"][:, None]
    whole = Mean.over(model, model.heads, batch.counterfactual, tokens=tokens)
    expected = loop(model, batch, metric, lambda head: Mean([head], whole.values, positions=places))
    np.testing.assert_allclose(mean.values[:, :, 0], expected, atol=1e-5, rtol=1e-4)
    other = ablate(model, Prompts(batch=batch, metric=metric), edit="resample", positions=positions)
    values = collect(model, batch.counterfactual, OnHeads(model.heads))
    expected = loop(model, batch, metric, lambda head: Resample([head], values, positions=places))
    np.testing.assert_allclose(other.values[:, :, 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("component", ["z", "q", "k", "v", "pattern"])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_patching_equals_a_loop_of_edited_runs(toy, component: str, direction: str):
    batch = prompts(3)
    other, end = batch.counterfactual, batch.positions["end"][:, None]
    ran, source = (other, batch) if direction == "denoising" else (batch, other)
    found = patch(toy, batch, direction=direction, component=component, positions="end")
    values = collect(toy, source, OnHeads(toy.heads, component=component))

    def edit(head):
        head_set = next(head_set for head_set in found.head_sets if head in head_set)
        gathered = {p: v.gather(1, end[:, :, None, None].expand(-1, -1, *v.shape[2:])) for p, v in values.items()}
        return Swap(head_set, gathered, component=component, positions=end)

    expected = loop(toy, batch, logit_difference, edit, run_on=ran)
    first = [toy.heads.index(head_set[0]) for head_set in found.head_sets]
    np.testing.assert_allclose(found.values[:, :, 0], expected[:, first], atol=1e-5, rtol=1e-4)
    assert len(found.head_sets) == (6 if component in ("k", "v") else 12)
    np.testing.assert_allclose(found.base, metric_of(toy, batch, logit_difference, run_on=ran), atol=1e-5)
    np.testing.assert_allclose(found.other, metric_of(toy, batch, logit_difference, run_on=source), atol=1e-5)


def test_all_heads_patched_together_equal_one_edited_run(toy):
    batch = prompts(3)
    found = patch(toy, batch, [tuple(toy.heads)], direction="denoising")
    values = collect(toy, batch, OnHeads(toy.heads))
    brute = loop(toy, batch, logit_difference, lambda _: Resample(toy.heads, values), run_on=batch.counterfactual)[:, 0]
    np.testing.assert_allclose(found.values[:, 0, 0], brute, atol=1e-5)


def test_every_position_alone(toy):
    batch = prompts(3, length=12)
    found = ablate(toy, batch, [HeadId(1, 2)], edit="zero", positions="each")
    assert found.positions == tuple(map(str, range(12)))
    for position in range(12):
        run = toy.forward(
            batch, edits=[Zero("1.2", positions=[position])], logit_positions=batch.positions["end"][:, None]
        )
        expected = logit_difference.score(run, batch).double().numpy()
        real = batch.mask[:, position].numpy()
        np.testing.assert_allclose(found.values[real, 0, position], expected[real], atol=1e-5)
        assert np.isnan(found.values[~real, 0, position]).all()  # padding is no position
    last = batch.positions["end"].max()
    assert np.isnan(found.values[:, 0, last]).any()


def test_sets_of_heads_and_one_head_agree_with_edits(toy):
    batch = prompts(3)
    head_sets = [(HeadId(0, 1), HeadId(2, 3)), HeadId(1, 0)]
    found = ablate(toy, batch, head_sets, edit="zero")
    run = toy.forward(batch, edits=[Zero("0.1 2.3")], logit_positions=batch.positions["end"][:, None])
    np.testing.assert_allclose(found.values[:, 0, 0], logit_difference.score(run, batch).double().numpy(), atol=1e-5)
    assert found.summary()[0].name == "0.1 2.3"
    grid = found.grid()
    assert grid[0, 1] == grid[2, 3] == pytest.approx(found.effects[:, 0, 0].mean())


def test_few_examples_at_once_give_the_same(toy, monkeypatch):
    batch = prompts(4)
    batch = replace(batch, labels={**batch.labels, "template": torch.tensor([0, 1, 0, 1])})
    runs = [
        ("mean", "overall"),
        ("mean", "position"),
        ("mean", "template"),
        ("zero", "overall"),
        ("resample", "overall"),
    ]
    for edit, mean in runs:
        whole = ablate(toy, batch, edit=edit, mean=mean, positions="middle")
        monkeypatch.setattr("headatlas.methods.sweeps.run.examples_at_once", lambda *_: 3)
        pieces = ablate(toy, batch, edit=edit, mean=mean, positions="middle")
        monkeypatch.undo()
        assert (whole.facts["examples_at_once"], pieces.facts["examples_at_once"]) == (4, 3)
        np.testing.assert_allclose(pieces.values, whole.values, atol=1e-5)


def test_means_over_other_prompts_of_the_task(toy):
    """Each IOI prompt takes the mean at its own wording's positions, over prompts it is not among."""
    vocabulary = toys.smollm2_vocabulary()
    batch, reference = ioi(vocabulary, 4), reference_of(ioi, vocabulary, 120, 0)
    model = attach(toys.llama(vocab_size=49152), tokenizer=vocabulary)
    found = ablate(model, batch, [HeadId(1, 2)], mean="template", reference=reference)
    z = collect(model, reference, OnHeads("1.2"))["decoder", 1]
    kinds = batch.labels["template"]
    own = torch.stack([z[reference.labels["template"] == kind].mean(0) for kind in kinds])
    length = batch.tokens.shape[1]
    padded = torch.nn.functional.pad(own, (0, 0, 0, 0, 0, max(0, length - own.shape[1])))[:, :length]
    expected = loop_one(model, batch, Resample("1.2", {("decoder", 1): padded}))
    np.testing.assert_allclose(found.values[:, 0, 0], expected, atol=1e-5)


def loop_one(model, batch, edit) -> np.ndarray:
    logits = model.forward(batch, edits=[edit], logit_positions=batch.positions["end"][:, None])
    return logit_difference.score(logits, batch).double().numpy()


# ---- triage ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("component", ["z", "q", "k", "v"])
def test_triage_guesses_are_derivatives(toy, component: str):
    """For a change a thousand times smaller the guess must be the effect itself."""
    batch = prompts(3)
    tiny = 1e-3
    other = batch.counterfactual
    clean = collect(toy, batch, OnHeads(toy.heads, component=component))
    far = collect(toy, other, OnHeads(toy.heads, component=component))
    near = {place: clean[place] + tiny * (far[place] - clean[place]) for place in clean}
    found = patch(toy, batch, direction="noising", component=component, triage=1)
    assert int(found.measured.sum()) == 1
    double = attach(FAMILIES["llama"].build(dtype=torch.float64))
    for i, head_set in enumerate(found.head_sets):
        run = double.forward(
            batch,
            edits=[Resample(head_set, near, component=component)],
            logit_positions=batch.positions["end"][:, None],
        )
        base = double.forward(batch, logit_positions=batch.positions["end"][:, None])
        moved = (logit_difference.score(run, batch) - logit_difference.score(base, batch)).mean() / tiny
        assert found.estimate[i, 0] == pytest.approx(float(moved), rel=2e-2, abs=2e-3)


def test_triage_measures_the_highest_guesses_exactly_and_says_what_it_left(toy):
    batch = prompts(4)
    whole = ablate(toy, batch, edit="zero", positions="end")
    some = ablate(toy, batch, edit="zero", positions="end", triage=5)
    order = np.argsort(-np.abs(some.estimate[:, 0]))[:5]
    assert set(np.flatnonzero(some.measured[:, 0])) == set(order)
    np.testing.assert_allclose(some.values[:, order], whole.values[:, order], atol=1e-6)
    assert some.unmeasured == 7
    assert "7 left unmeasured" in repr(some)
    mean = some.effects.mean(0)[order, 0]
    assert some.agreement() == pytest.approx(scipy_stats.spearmanr(some.estimate[order, 0], mean).statistic)
    assert all(np.isnan(line.effect) and np.isnan(line.q) for line in some.summary() if np.isnan(line.p))
    each = ablate(toy, batch, edit="zero", positions="each", triage=6)
    assert int(each.measured.sum()) == 6


def test_triage_lets_go_of_its_gradients(toy):
    """What a backward pass needs is large; it must be gone when the guess is made, without waiting for the collector."""
    sizes, batch = [], prompts(4)
    gc.disable()
    try:
        for _ in range(3):
            ablate(toy, batch, edit="zero", triage=2)
            graphs = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.grad_fn is not None]
            sizes.append(len(graphs))
    finally:
        gc.enable()
    assert sizes[0] == sizes[1] == sizes[2]
    with pytest.raises(BadInput, match="A gradient of one example needs about"):
        ablate(toy, batch, edit="zero", triage=2, options=RunOptions(2000))


def test_triage_needs_gradients(toy):
    batch = prompts(3)
    with pytest.raises(BadInput, match="cannot rank changes of 'pattern'"):
        patch(toy, batch, component="pattern", triage=3)
    with pytest.raises(BadInput, match="would measure nothing"):
        ablate(toy, batch, triage=0)

    numb = replace(logit_difference, score=lambda logits, b: logit_difference.score(logits.detach(), b))
    with pytest.raises(UnsupportedModel, match="No gradient flows"):
        ablate(toy, Prompts(batch=batch, metric=numb), triage=3)


# ---- statistics -----------------------------------------------------------------------------------------------------
def test_sign_flips_count_what_scipy_counts():
    values = np.random.default_rng(0).normal(0.5, 1, size=(8, 3))
    for column, p in enumerate(sign_flip_p(values)):
        reference = scipy_stats.permutation_test(
            (values[:, column],), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert p == pytest.approx(reference.pvalue)
    many = np.random.default_rng(1).normal(0.3, 1, size=(40, 2))
    for column, p in enumerate(sign_flip_p(many)):
        reference = scipy_stats.permutation_test(
            (many[:, column],), np.mean, permutation_type="samples", n_resamples=20000, rng=0
        )
        assert p == pytest.approx(reference.pvalue, abs=0.01)
    assert sign_flip_p(np.full((5, 1), np.nan)).tolist() == pytest.approx([np.nan], nan_ok=True)


def test_sign_flip_p_is_uniform_where_nothing_is_to_be_found():
    p = sign_flip_p(np.random.default_rng(0).normal(size=(20, 2000)))
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_shares_follow_their_definitions():
    values = np.array([[[3.0]], [[5.0]]])
    clean, corrupted = np.array([4.0, 6.0]), np.array([0.0, 2.0])
    one = ((HeadId(0, 0),),)
    denoised = HeadEffects("denoising", one, ("all",), values, corrupted, clean)
    assert denoised.share()[0] == pytest.approx(
        (4.0 - 1.0) / (5.0 - 1.0)
    )  # (patched - corrupted) / (clean - corrupted)
    noised = HeadEffects("noising", one, ("all",), values, clean, corrupted)
    assert noised.share()[0] == pytest.approx((4.0 - 5.0) / (5.0 - 1.0))  # (patched - clean) / (clean - corrupted)
    ablated = HeadEffects("ablation", one, ("all",), values, clean)
    assert ablated.share()[0] == pytest.approx((4.0 - 5.0) / 5.0)
    line = denoised.summary()[0]
    assert (line.effect, line.share) == pytest.approx((3.0, 0.75))
    assert line.share_low <= line.share <= line.share_high


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_wrong_requests_say_what_is_wrong(toy):
    batch = prompts(3)
    bare = replace(batch, counterfactual=None)
    shifted = replace(batch, counterfactual=replace(batch.counterfactual, mask=batch.mask.roll(1, 0)))
    for make, text in [
        (lambda: ablate(toy, batch, edit="melt"), "Unknown ablation 'melt'"),
        (lambda: ablate(toy, batch, mean="median"), "Unknown mean 'median'"),
        (lambda: ablate(toy, batch, positions="s7"), "no position 's7'"),
        (lambda: ablate(toy, batch, [HeadId(9, 0)]), "no attention layer 9"),
        (lambda: ablate(toy, bare, edit="resample"), "no counterfactual"),
        (lambda: ablate(toy, batch, mean="template"), "no label 'template'"),
        (lambda: patch(toy, bare), "needs counterfactual prompts"),
        (lambda: patch(toy, shifted), "Example 1: the prompt has 24 tokens and its counterfactual"),
        (lambda: patch(toy, batch, direction="up"), "Unknown direction 'up'"),
        (lambda: patch(toy, batch, component="mlp"), "not patched at 'mlp'"),
        (lambda: ablate(toy, batch, edit="zero", options=RunOptions(1000)), "One run of 1 examples needs about"),
        (lambda: parse_size("lots"), "not an amount of memory"),
    ]:
        with pytest.raises(BadInput, match=text):
            make()
    assert (parse_size("4GB"), parse_size("1.5 mb"), parse_size("2048")) == (4 << 30, 3 << 19, 2048)
