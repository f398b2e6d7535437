"""Path patching against the paper's four runs on the plain model, on every kind of block; refusals; folders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput, StoreError, UnsupportedModel
from headatlas.heads import HeadId, parse_heads
from headatlas.methods.options import RunOptions
from headatlas.methods.path_patching.receivers import Receiver
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.sweeps import effects_io
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from tests.methods.literal_paths import Plain, path_patched
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder

# Separate and shared keys, a sliding window, post-norms, parallel blocks, a residual multiplier, learned positions.
KINDS = ["gpt2", "llama", "gemma", "mistral", "gemma2", "gemma3", "olmo2", "gpt-neox", "phi", "gptj", "granite", "opt"]
SENDERS = parse_heads("0.1 0.3 1.2")


def batches(n: int = 3):
    batch = prompts(n)
    return replace(batch, counterfactual=replace(batch.counterfactual, mask=batch.mask))


def receivers_of(plain: Plain, groups: int) -> dict[str, list]:
    """Receivers as they are written, and where they are in the plain model."""
    size = 4 // groups
    members = " ".join(f"2.{head}" for head in range(size))
    return {
        "logits": None,
        "q:1.0 2.3": [plain.input("q", 1, 0), plain.input("q", 2, 3)],
        f"k:{members}": [plain.input("k", 2, 0)],
        f"v:{members}": [plain.input("v", 2, 0)],
        "mlp:0": [(plain.mlp(0), False, slice(None))],
        "mlp:1": [(plain.mlp(1), False, slice(None))],
        "mlp:2": [(plain.mlp(2), False, slice(None))],
    }


def literal(plain, batch, receivers, positions, direction, *, hold_mlps=False) -> np.ndarray:
    """[example, sender, receiver] by the four runs of each pair."""
    other = batch.counterfactual.tokens
    ran, source = (batch.tokens, other) if direction == "noising" else (other, batch.tokens)
    where = torch.ones_like(batch.mask)
    if positions != "all":
        where = torch.arange(batch.tokens.shape[1])[None] == batch.positions[positions][:, None]
    found = []
    for sender in SENDERS:
        for taps in receivers.values():
            logits = path_patched(
                plain, ran, source, batch.mask, (sender.layer, sender.head), taps, where, hold_mlps=hold_mlps
            )
            rows = logits[torch.arange(len(batch)), batch.positions["end"]][:, None]
            found.append(logit_difference.score(rows, batch))
    return torch.stack(found, 1).unflatten(1, (len(SENDERS), -1)).double().numpy()


@pytest.mark.parametrize("name", KINDS)
def test_paths_equal_the_four_runs_of_the_paper(name: str):
    model, plain, batch = attach(FAMILIES[name].build()), Plain(FAMILIES[name].build(), name), batches()
    receivers = receivers_of(plain, FAMILIES[name].groups)
    cases = [("noising", "all", "recomputed"), ("noising", "end", "frozen"), ("denoising", "middle", "recomputed")]
    moved = []
    for direction, positions, mlps in cases:
        found = path_patch(model, batch, SENDERS, tuple(receivers), direction=direction, positions=positions, mlps=mlps)
        expected = literal(plain, batch, receivers, positions, direction, hold_mlps=mlps == "frozen")
        measured = ~np.isnan(found.values)
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found.values[measured], expected[measured], atol=1e-4 * scale, err_msg=positions)
        # Where no path leads from sender to receiver nothing is measured, and the four runs change nothing.
        unchanged = np.broadcast_to(found.base[:, None, None], expected.shape)
        np.testing.assert_allclose(expected[~measured], unchanged[~measured], atol=1e-4 * scale)
        assert [(i, j) for i, j in np.argwhere(np.isnan(found.values).all(0))] == [(2, 4)]  # 1.2 comes after mlp:0
        moved.append(np.abs(expected - unchanged).max((0, 1)))
    felt = np.max(moved, 0) > 1e-3
    # In a parallel block the MLP reads what the block's heads read, and hears nothing of them.
    assert felt.tolist() == [True] * 4 + [name not in ("gpt-neox", "phi", "gptj"), True, True]


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


def test_senders_that_send_together_are_one_path(toy):
    """All heads of the last layer sent together to the logits: what the run with all of them changed gives."""
    batch = batches()
    last = tuple(toy.layer(2).heads)
    found = path_patch(toy, batch, [last], positions="end")
    values = collect(toy, batch.counterfactual, OnHeads(last))
    logits = toy.forward(
        batch,
        edits=[Resample(last, values, positions=batch.positions["end"][:, None])],
        logit_positions=batch.positions["end"][:, None],
    )
    np.testing.assert_allclose(found.values[:, 0, 0], logit_difference.score(logits, batch).double(), atol=1e-5)


def test_many_senders_in_small_pieces_give_the_same(toy, monkeypatch):
    batch = batches()
    receivers = ["logits", "q:2.1", "v:2.0 2.1", "mlp:1"]
    whole = path_patch(toy, batch, receivers=receivers, positions="all")
    assert whole.values.shape == (3, 12, 4)
    for module in ("sweep", "piece"):
        monkeypatch.setattr(f"headatlas.methods.path_patching.{module}.tokens_a_pass", lambda _: 80)
    monkeypatch.setattr("headatlas.methods.path_patching.sweep.examples_at_once", lambda *_: 2)
    told = Recorder()
    pieces = path_patch(toy, batch, receivers=receivers, positions="all", progress=told)
    np.testing.assert_allclose(pieces.values, whole.values, atol=1e-5)
    assert (told.done, told.sizes[-1]) == (96, 96)
    assert len(told.amounts) == 4


@pytest.mark.parametrize("left", [False, True])
def test_padding_does_not_change_paths(toy, left: bool):
    batch = batches()
    receivers = ["logits", "q:2.1", "v:2.0 2.1", "mlp:1"]
    plain = path_patch(toy, batch, SENDERS, receivers)
    padded = path_patch(toy, batch.padded(left=5 * left, right=4 * (not left)), SENDERS, receivers)
    np.testing.assert_allclose(padded.values, plain.values, atol=2e-5)


def test_receivers_may_stand_at_positions_of_their_own(toy):
    batch = batches()
    both = path_patch(toy, batch, SENDERS, ["q:2.1@end", "q:2.1@middle", "q:2.1"])
    assert both.positions == ("q:2.1@end", "q:2.1@middle", "q:2.1")
    for j, positions in enumerate(["end", "middle", "all"]):
        alone = path_patch(toy, batch, SENDERS, ["q:2.1"], positions=positions)
        np.testing.assert_allclose(both.values[:, :, j], alone.values[:, :, 0], atol=1e-6)


def test_examples_without_the_position_are_left_out(toy):
    batch = batches()
    batch = replace(batch, positions={**batch.positions, "odd": torch.tensor([5, -1, 7])})
    found = path_patch(toy, batch, SENDERS, ["q:2.1@odd"])
    assert np.isnan(found.values[1]).all()
    assert not np.isnan(found.values[[0, 2]]).any()


def test_keys_and_values_belong_to_whole_groups(toy):
    batch = batches()
    with pytest.raises(BadInput, match=r"2\.1 has no v of its own, it is shared with 2\.0.*group=True, --group"):
        path_patch(toy, batch, SENDERS, ["v:2.1"])
    found = path_patch(toy, batch, SENDERS, ["v:2.1"], group=True)
    assert found.positions == ("v:2.0 2.1",)
    named = path_patch(toy, batch, SENDERS, ["v:2.0 2.1"])
    np.testing.assert_array_equal(found.values, named.values)


def test_receivers_read_as_written():
    for text in ("logits", "mlp:5", "q:9.6 9.9", "v:7.3@s2", "mlp:0@end"):
        assert Receiver.parse(text).name == text
    assert Receiver.parse("k: L5H1, 6.2 @ end").name == "k:5.1 6.2@end"
    for text in ("", "q", "q:", "mlp", "mlp:x", "z:9.9", "logits:3", "logits@end", "mlp:5 6"):
        with pytest.raises(BadInput):
            Receiver.parse(text)


def test_results_are_kept_and_an_interrupted_run_goes_on(toy, tmp_path, monkeypatch):
    batch = batches()
    for module in ("sweep", "piece"):
        monkeypatch.setattr(f"headatlas.methods.path_patching.{module}.tokens_a_pass", lambda _: 8)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    given = {"receivers": ["logits", "q:2.1"], "positions": "end"}
    with pytest.raises(KeyboardInterrupt):
        path_patch(toy, batch, **given, options=RunOptions(out=tmp_path / "run"), progress=Recorder(stop))
    assert (tmp_path / "run.partial" / "0-3.0-7.npy").exists()
    again = path_patch(toy, batch, **given, options=RunOptions(out=tmp_path / "run"))
    whole = path_patch(toy, batch, **given)
    np.testing.assert_allclose(again.values, whole.values, atol=1e-6)
    assert again.facts["forwards"] < whole.facts["forwards"]
    read = effects_io.load(tmp_path / "run")
    np.testing.assert_array_equal(read.values, again.values)
    assert (read.positions, read.facts["mlps"], read.facts["method"]) == (
        ("logits", "q:2.1"),
        "recomputed",
        "path patching",
    )
    with pytest.raises(StoreError, match="holds another run"):
        path_patch(toy, batch, receivers=["logits"], positions="end", options=RunOptions(out=tmp_path / "run"))


def test_bases_are_the_metric_of_both_runs(toy):
    batch = batches()
    for direction, ran, source in (("noising", None, "other"), ("denoising", "other", None)):
        found = path_patch(toy, batch, SENDERS, direction=direction)
        runs = {None: None, "other": batch.counterfactual}
        np.testing.assert_allclose(found.base, metric_of(toy, batch, logit_difference, run_on=runs[ran]), atol=1e-5)
        np.testing.assert_allclose(found.other, metric_of(toy, batch, logit_difference, run_on=runs[source]), atol=1e-5)
        assert found.kind == direction


@pytest.mark.parametrize("name", ["bert-masked", "bart", "jamba", "lfm2", "falcon-h1"])
def test_models_whose_tokens_mix_without_heads_are_refused(name: str):
    model = attach(FAMILIES[name].build())
    with pytest.raises(UnsupportedModel, match=r"headatlas patch|so paths between heads"):
        path_patch(model, batches(), [model.heads[0]])


def test_the_model_is_as_it_was(toy):
    batch = batches()
    before = toy.forward(batch)
    path_patch(toy, batch, SENDERS, ["logits", "q:2.1", "mlp:1"], mlps="frozen")
    assert torch.equal(toy.forward(batch), before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in toy.hf.modules())
    assert toy.current is None


def test_wrong_requests_say_what_is_wrong(toy):
    batch = batches()
    for make, text in [
        (lambda: path_patch(toy, batch, direction="up"), "Unknown direction 'up'"),
        (lambda: path_patch(toy, batch, mlps="melted"), "cannot be 'melted'"),
        (lambda: path_patch(toy, batch, positions="each"), "not followed for each position"),
        (lambda: path_patch(toy, batch, positions="s7"), "no position 's7'"),
        (lambda: path_patch(toy, batch, receivers=["q:2.1@s7"]), "no position 's7'"),
        (lambda: path_patch(toy, batch, receivers=["x:2.1"]), "'x:2.1' is not a receiver"),
        (lambda: path_patch(toy, batch, receivers=[]), "No receiver is named"),
        (lambda: path_patch(toy, batch, receivers=["q:2.1", "q:2.1"]), "named twice"),
        (lambda: path_patch(toy, batch, receivers=["q:2.9"]), "no head 2.9"),
        (lambda: path_patch(toy, batch, receivers=["mlp:7"]), "no attention layer 7"),
        (lambda: path_patch(toy, batch, [HeadId(7, 0)]), "no attention layer 7"),
        (lambda: path_patch(toy, replace(batch, counterfactual=None)), "needs counterfactual prompts"),
    ]:
        with pytest.raises(BadInput, match=text):
            make()
