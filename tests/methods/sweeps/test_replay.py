"""SetAblation runs against one whole edited run each, on every family of the verified matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.edits import Add, Block, Mean, OnHeads, Resample, Scale, Temper, Zero, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import Batch, Metric, logit_difference
from tests.recorder import Recorder

LENGTH = 24
TEXT = [name for name, family in FAMILIES.items() if name not in ("vit", "deit", "dinov2", "whisper")]


def prompts(n: int = 3, length: int = LENGTH, seed: int = 0) -> Batch:
    """Prompts of different lengths, padded on the right, each with a counterfactual."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, 150, (n, length), generator=generator)
    other = torch.randint(5, 150, (n, length), generator=generator)
    lengths = torch.tensor([length, length - 3, length - 1, length - 2][:n])
    mask = torch.arange(length) < lengths[:, None]
    labels = {
        "answer": torch.tensor([[7, 9], [20, -1], [30, 31], [8, 8]])[:n],
        "wrong": torch.tensor([11, 12, 13, 14])[:n],
    }
    at = {"end": lengths - 1, "middle": lengths // 2}
    return Batch(tokens, mask, at, labels=labels, counterfactual=Batch(other, mask, at))


def brute(model: ha.Model, batch: Batch, metric: Metric, runs) -> np.ndarray:
    """One whole forward for each list of edits."""
    positions = metric.positions(batch)
    rows = [metric.score(model.forward(batch, edits=edits, logit_positions=positions), batch) for edits in runs]
    return torch.stack(rows).double().numpy()


def state_at_end(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    return states[torch.arange(len(states)), batch.positions["end"], 3]


def metric_for(model: ha.Model) -> Metric:
    """The logit difference; for models without token logits, which give all hidden states, one number at the end."""
    if model.has_logits:
        return logit_difference
    return Metric("state", lambda batch: batch.positions["end"][:, None], state_at_end, True, "")


def runs_for(model: ha.Model, batch: Batch) -> list[list[OnHeads]]:
    """Every head zeroed everywhere and at the end, and other edits at other places."""
    end, middle = batch.positions["end"][:, None], batch.positions["middle"][:, None]
    runs: list[list[OnHeads]] = [[]]
    for head in model.heads:
        runs += [[Zero([head])], [Zero([head], positions=end)]]
    assert batch.counterfactual is not None
    for layer in (model.layers[0], model.layers[-1]):
        head = layer.heads[1]
        other = Resample.over(model, [head], batch.counterfactual)
        both = torch.cat([end, middle], 1)
        runs += [
            [other],
            [Resample([head], other.values, positions=both)],
            [Mean.over(model, [head], batch, per_position=True, positions=middle)],
            [Scale([head], 3.0, component="q", positions=middle), Scale(layer.heads, 0.5, positions=end)],
            [Zero(layer.heads, component="k", positions=middle), Zero(layer.heads, component="v", positions=end)],
        ]
        if layer.pattern_editable:
            runs += [[Block([head], keys=middle, queries=end)], [Temper([head], 0.5, positions=end)]]
        place = (layer.stack, layer.index)
        if model.restarts:
            step = torch.ones(collect(model, batch, OnHeads(place, component="residual"))[place].shape[-1])
            runs.append([Add(place, step, component="residual", positions=end), Zero([head], positions=end)])
    return runs


@pytest.mark.parametrize("name", TEXT)
def test_replayed_runs_equal_whole_runs(name: str):
    # T5 does not scale its attention scores: with weights spread that far, rounding alone would decide the softmax.
    family = replace(FAMILIES[name], gain=1.0) if "t5" in name else FAMILIES[name]
    model, batch = attach(family.build()), prompts()
    metric, runs = metric_for(model), runs_for(model, batch)
    replay = CachedRuns(model, batch, metric)
    found, expected = replay.measure(runs), brute(model, batch, metric, runs)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-5)
    assert np.ptp(expected, axis=0).min() > 0, "the edits changed nothing"
    # Told where changes act, it keeps less and says the same.
    near = [i for i, edits in enumerate(runs) if edits and all(edit.positions is not None for edit in edits)]
    within = torch.stack([batch.positions["end"], batch.positions["middle"]], 1)
    less = CachedRuns(model, batch, metric, within=within)
    found = less.measure([runs[i] for i in near])
    np.testing.assert_allclose(found, expected[near], atol=1e-5 * scale, rtol=1e-5)


def test_a_replay_told_where_changes_act_keeps_less_and_refuses_others(toy):
    batch = prompts()
    end = batch.positions["end"][:, None]
    whole, less = CachedRuns(toy, batch, logit_difference), CachedRuns(toy, batch, logit_difference, within=end)
    streams = [sum(x.numel() for x in one._cached.residuals.values()) for one in (whole, less)]
    assert streams[1] == streams[0] * 2 / LENGTH  # the end, and one token before it
    for edits in ([], [Zero(["0.1"])], [Zero(["0.1"], positions=batch.positions["middle"][:, None])]):
        with pytest.raises(BadInput, match="needs tokens before those kept"):
            less.measure([edits])


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["gemma3"].build())


def test_end_only_runs_compute_one_token_a_prompt(toy):
    batch = prompts()
    replay = CachedRuns(toy, batch, logit_difference)
    assert replay.notes == []
    before, end = replay.forwards, batch.positions["end"][:, None]
    replay.measure([[Zero([head], positions=end)] for head in toy.heads])
    # Three layers of four heads: blocks from the edited one on, one token of 24 each.
    assert replay.forwards - before == pytest.approx(4 * (1 + 2 / 3 + 1 / 3) / LENGTH)
    before = replay.forwards
    replay.measure([[Zero([head])] for head in toy.heads])
    assert replay.forwards - before == pytest.approx(4 * (1 + 2 / 3 + 1 / 3))


@pytest.mark.parametrize("left", [False, True])
def test_padding_does_not_change_results(toy, left: bool):
    batch = prompts()
    plain = CachedRuns(toy, batch, logit_difference)
    padded = CachedRuns(toy, batch.padded(left=5 * left, right=4 * (not left)), logit_difference)
    np.testing.assert_allclose(padded.clean, plain.clean, atol=2e-5)
    for head in (HeadId(0, 1), HeadId(2, 3)):
        for name in ("end", "middle"):
            first = plain.measure([[Zero([head], positions=plain.batch.positions[name][:, None])]])
            second = padded.measure([[Zero([head], positions=padded.batch.positions[name][:, None])]])
            np.testing.assert_allclose(second, first, atol=2e-5)


def test_memory_bounds_how_many_runs_go_side_by_side(toy):
    batch = prompts()
    runs = [[Zero([head])] for head in toy.heads]
    large, passes = CachedRuns(toy, batch, logit_difference), Recorder()
    expected = large.measure(runs, progress=passes)
    kept, row = large._cached.bytes, next(v for (kind, _), v in large._row_bytes.items() if kind == "restart")
    assert max(passes.amounts) == 4
    small, fewer = CachedRuns(toy, batch, logit_difference, memory=int(kept + 2.5 * row * len(batch))), Recorder()
    np.testing.assert_allclose(small.measure(runs, progress=fewer), expected, atol=1e-6)
    assert max(fewer.amounts) == 2
    tiny = CachedRuns(toy, batch, logit_difference, memory=kept + 10)
    with pytest.raises(BadInput, match="One run of 3 examples needs about"):
        tiny.measure(runs)


def test_a_model_whose_masks_depend_on_what_it_computes_is_run_in_full():
    """Doge masks by the values of tokens, so late tokens cannot be computed from kept keys and values alone."""
    model, batch = attach(FAMILIES["doge"].build()), prompts()
    replay = CachedRuns(model, batch, logit_difference)
    assert any("late tokens cannot be computed alone" in note for note in replay.notes)


def test_wrong_edits_are_refused_before_anything_runs(toy):
    replay = CachedRuns(toy, prompts(), logit_difference)
    before = replay.forwards
    with pytest.raises(BadInput, match=r"no head 0\.9"):
        replay.measure([[Zero("0.0")], [Zero("0.9")]])
    assert replay.forwards == before


def test_the_model_is_as_it_was_after_replays_also_after_a_failure(toy):
    batch = prompts()
    plain = toy.forward(batch)

    class Fail(Zero):
        def change(self, layer, x, index):
            raise RuntimeError("planned")

    replay = CachedRuns(toy, batch, logit_difference)
    with pytest.raises(RuntimeError, match="planned"):
        replay.measure([[Fail("1.1", positions=batch.positions["end"][:, None])]])
    assert torch.equal(toy.forward(batch), plain)
    assert "forward" not in toy.hf.lm_head.__dict__
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in toy.hf.modules())


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral", "gpt-neox", "bloom", "gpt2"])
def test_long_texts_run_a_few_at_a_time_and_give_the_same(name: str, monkeypatch):
    model, batch = attach(FAMILIES[name].build()), prompts(4)
    full = replace(batch, mask=batch.mask.clone())
    full.mask[2:] = True  # so that pieces with and without padding meet
    end = full.positions["end"][:, None]
    runs = [[Zero([head], positions=end)] for head in model.heads]
    expected = brute(model, full, logit_difference, runs)
    seen = []
    forward = type(model).forward
    monkeypatch.setattr("headatlas.model.runs.cached_run.AT_ONCE", 2 * LENGTH)
    monkeypatch.setattr("headatlas.methods.sweeps.cached_runs.AT_ONCE", 2 * LENGTH)
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, given, **more: seen.append(len(given.tokens)) or forward(self, given, **more),
    )
    found = CachedRuns(model, full, logit_difference, within=end)
    assert seen.count(2) >= 3
    assert 4 not in seen, "no pass over the whole batch"
    np.testing.assert_allclose(found.measure(runs), expected, atol=1e-5 * max(1.0, np.abs(expected).max()), rtol=1e-5)
