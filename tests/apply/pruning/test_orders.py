"""Orders and what is measured along them, beside loops and masked copies made with torch alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.apply.pruning import orders, workflow
from headatlas.apply.pruning.figure import write_curves
from headatlas.apply.pruning.orders import random_order
from headatlas.apply.pruning.rounds import rounds_of
from headatlas.edits import Mean, Zero
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.attribution.importance import head_importance
from headatlas.progress import Silent
from headatlas.task import next_token_loss
from tests.apply.pruning.models import attached, batch, logits, some


def losses(model, texts, removed, means=None):
    """[example] by the formula of cross-entropy."""
    found = logits(model, texts.tokens, removed, means)[:, :-1].double().log_softmax(-1)
    return -found.gather(-1, texts.tokens[:, 1:, None])[..., 0].mean(1).numpy()


@pytest.mark.parametrize("gone", [[], [HeadId(0, 1), HeadId(1, 0), HeadId(2, 3)]])
def test_importance_is_the_dot_product_of_output_and_gradient_also_with_heads_gone(gone):
    """Michel et al.: |A^T dL/dA| at each token, mean over tokens, divided by the layer's norm; here by a loop over hooks."""
    model, texts = attached("llama"), batch(2, 9)
    raw = np.zeros((3, 4))
    for tokens in texts.tokens:
        masks = [torch.ones(1, len(tokens), 4, 1, requires_grad=True) for _ in model.layers]
        handles = []
        for number, layer in enumerate(model.layers):
            there = torch.ones(4, 1)
            there[[head.head for head in gone if head.layer == number]] = 0

            def hook(_, args, mask=masks[number], there=there):
                return ((args[0].unflatten(-1, (4, 8)) * there * mask).flatten(-2),)

            handles.append(layer.projection.register_forward_pre_hook(hook))
        out = model.hf(input_ids=tokens[None]).logits[0, :-1]
        slopes = torch.autograd.grad(torch.nn.functional.cross_entropy(out, tokens[1:]), masks)
        for handle in handles:
            handle.remove()
        # d loss / d mask at one token of one head is the dot product of its output with the slope there.
        raw += np.stack([slope[0, :, :, 0].abs().sum(0).double().numpy() for slope in slopes])
    raw /= texts.tokens.numel()
    found = head_importance(model, texts, next_token_loss, edits=[Zero(gone)] if gone else [])
    assert np.allclose(found.raw.reshape(3, 4), raw, rtol=1e-4, atol=1e-8)
    normed = raw / np.sqrt((raw**2).sum(1, keepdims=True))
    assert np.allclose(found.normed.reshape(3, 4), normed, rtol=1e-4, atol=1e-7)
    for head in gone:
        assert found.raw[model.heads.index(head)] == 0


def test_relevance_is_not_told_under_edits():
    with pytest.raises(BadInput, match="without edits"):
        head_importance(attached("llama"), batch(), next_token_loss, method="lrp", edits=[Zero("0.0")])


@pytest.mark.parametrize("removal", ["zero", "mean"])
def test_curves_are_the_loss_of_masked_copies(removal):
    model, ordering, held_out = attached("llama"), batch(4), batch(5, seed=1)
    options = ha.PruneOptions(points=4, draws=2, removal=removal)
    found = ha.prune(model, ordering, held_out, order=["mean-ablation", "random"], options=options)
    means = Mean.over(model, model.heads, ordering).values
    used = means if removal == "mean" else None
    whole = losses(model, held_out, [])
    assert found.whole == pytest.approx(whole.mean(), abs=1e-5)
    assert [point.kept for point in found.curves["mean-ablation"]] == [9, 6, 3, 0]
    for name in ("mean-ablation", "random"):
        for point in found.curves[name]:
            gone = found.removed(point.share, name)
            mine = losses(model, held_out, gone, used)
            assert point.value == pytest.approx(mine.mean(), abs=1e-5)
            assert point.rise == pytest.approx((mine - whole).mean(), abs=1e-5)
            assert point.rise_low <= point.rise <= point.rise_high
            lots = [
                losses(
                    model,
                    held_out,
                    rounds_of(model, random_order(model, 1 + i).heads, "model").removed(point.share),
                    used,
                )
                for i in range(2)
            ]
            assert point.beyond == pytest.approx((mine - np.mean(lots, 0)).mean(), abs=2e-5)
    alone = losses(model, ordering, [])
    cost = [(losses(model, ordering, [head], means) - alone).mean() for head in model.heads]
    assert np.allclose(found.orders["mean-ablation"].score, cost, atol=1e-5)
    assert list(found.orders["mean-ablation"].heads) == [
        model.heads[i] for i in np.argsort(np.abs(found.orders["mean-ablation"].score), kind="stable")
    ]


def test_batches_measured_in_pieces_give_the_same(monkeypatch):
    model, texts = attached("llama"), batch(5)
    whole = ha.prune(model, texts, texts, order="random", options=ha.PruneOptions(points=2, draws=1))
    monkeypatch.setattr(orders, "_LOGITS", 160 * 19 * 2)  # two texts at once
    told = []

    class Told(Silent):
        def advance(self, step, amount=1, of=None):
            told.append((step, amount, of))

    parts = ha.prune(model, texts, texts, order="random", options=ha.PruneOptions(points=2, draws=1), progress=Told())
    assert parts.whole == pytest.approx(whole.whole, abs=1e-6)
    assert [one.value for one in parts.curves["random"]] == pytest.approx(
        [one.value for one in whole.curves["random"]], abs=1e-6
    )
    assert {step for step, _, _ in told} == {"removals"}
    assert sum(amount for _, amount, _ in told) == told[-1][2] == 3 * 4  # pieces, and sets with all and none


def test_curves_are_drawn_with_their_names(tmp_path):
    found = ha.prune(
        attached("llama"), batch(), order=["michel", "l0"], options=ha.PruneOptions(points=2, draws=2, steps=2)
    )
    write_curves(found, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for name in ("order-michel", "order-l0", "order-random", "gates", "2 random orders", "next-token loss worse by"):
        assert name in drawn


def test_recomputed_importance_is_asked_of_what_is_left():
    model, texts = attached("llama"), batch()
    found = ha.prune(model, texts, batch(seed=1), options=ha.PruneOptions(points=3, draws=0, recompute=True))
    gone: list[HeadId] = []
    for _ in range(3):
        ranked = head_importance(model, texts, next_token_loss, edits=[Zero(gone)] if gone else []).order()
        gone += [head for head in ranked if head not in gone][:4]
    assert list(found.orders["michel"].heads) == gone
    assert "random" not in found.curves


@pytest.mark.parametrize("spread", ["layer", "group", "queries"])
def test_spreads_take_evenly_and_the_first_of_the_order_first(spread):
    model = attached("llama")  # 3 layers, 4 heads in 2 groups
    order = random_order(model, 3).heads
    found = rounds_of(model, order, spread)
    kept = sorted(model.heads)
    for step in range(1, len(found.rounds) + 1):
        gone = set(itertools.chain(*found.rounds[:step]))
        kept = [head for head in model.heads if head not in gone]
        by_layer = [sum(head.layer == layer for head in kept) for layer in range(3)]
        by_group = [
            sum(head.layer == layer and head.head // 2 == group for head in kept)
            for layer in range(3)
            for group in (0, 1)
        ]
        assert len(set(by_layer)) == 1
        if spread == "queries":
            assert len(set(by_group)) == 1
        if spread == "group":
            assert set(by_group) <= {0, 2}
    assert kept == []
    rank = {head: i for i, head in enumerate(order)}
    first = set(found.rounds[0])
    for layer in range(3):
        mine = [head for head in model.heads if head.layer == layer]
        if spread == "layer":
            assert min(mine, key=rank.get) in first
        if spread == "group":  # the group whose last head goes first
            groups = [mine[:2], mine[2:]]
            assert set(min(groups, key=lambda group: max(rank[head] for head in group))) <= first


def test_a_guard_keeps_the_best_heads_of_each_layer():
    model = attached("llama")
    order = random_order(model, 3).heads
    found = rounds_of(model, order, "model", guard=2)
    gone = found.removed(0.0)
    for layer in range(3):
        mine = [head for head in order if head.layer == layer]
        assert set(mine) - set(gone) == set(mine[-2:])
    assert [head for (head,) in found.rounds] == [head for head in order if head not in found.guarded]
    with pytest.raises(BadInput, match="keeps all heads"):
        rounds_of(model, order, "model", guard=4)


def test_shares_come_as_near_as_whole_rounds_do():
    model = attached("llama")
    rounds = rounds_of(model, random_order(model, 0).heads, "group")
    assert [len(rounds.removed(share)) for share in (1.0, 0.8, 0.75, 0.7, 0.5, 0.2, 0.0)] == [0, 0, 0, 6, 6, 12, 12]


def test_texts_are_parted_by_lot_and_no_text_is_in_both_halves():
    from headatlas.apply.pruning.halves import halves_of

    model, texts = attached("llama"), batch(8)
    found = halves_of(model, texts, None, seed=1)
    rows = [set(map(tuple, half.tokens.tolist())) for half in (found.ordering, found.held_out)]
    assert len(rows[0] & rows[1]) == 0
    assert len(rows[0] | rows[1]) == 8
    with pytest.raises(BadInput, match="1 and 2"):
        halves_of(model, batch(3), None, seed=1)


def test_what_cannot_be_ordered_is_refused_in_words_and_before_the_work(monkeypatch):
    model, texts = attached("llama"), batch()
    monkeypatch.setattr(workflow, "order_of", lambda *_: pytest.fail("heads were ordered"))
    for given, said in (
        ({"order": "voita"}, "not pruned"), ({"order": []}, "No order"), ({"keep": 1.5}, "share"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            ha.prune(model, texts, **given)
    with pytest.raises(BadInput, match="keeps all heads"):
        ha.prune(model, texts, options=ha.PruneOptions(guard=4))
    with pytest.raises(BadInput, match="share keys"):
        ha.prune(attached("phi"), texts, order="random", options=ha.PruneOptions(spread="queries"))
    for wrong in (
        {"removal": "men"},
        {"spread": "all"},
        {"points": 0},
        {"penalty": 0.0},
        {"guard": 1, "spread": "layer"},
    ):
        with pytest.raises(BadInput):
            ha.PruneOptions(**wrong)


def test_an_encoder_is_ordered_by_what_it_has():
    """With a language-model head by masked tokens; without one by its pooled vector, which has no slope for importance."""
    bare = attached("bert")
    texts = batch()
    found = ha.prune(bare, texts, order="mean-ablation", options=ha.PruneOptions(points=2, draws=1))
    assert found.facts["metric"] == "pooled-vector change"
    assert found.whole == 0
    assert found.curves["mean-ablation"][-1].rise > 0
    with pytest.raises(BadInput, match="no slope"):
        ha.prune(bare, texts)
    with pytest.raises(UnsupportedModel, match="no token logits"):
        ha.prune(attached("vit"), texts, order="random")
    with pytest.raises(UnsupportedModel, match="no token logits"):
        ha.prune(bare, texts, order="random", metric="next-token-loss")


def test_what_was_found_says_so():
    model = attached("llama")
    found = ha.prune(model, batch(), order=["random", "l0"], options=ha.PruneOptions(points=2, steps=3, draws=1))
    assert "12 heads" in repr(found)
    assert "next-token loss" in repr(found)
    data = found.data
    assert set(data["curves"]) == {"random", "l0"}
    assert data["orders"]["l0"]["penalty"] == 0.01
    assert data["gated"]["kept"] == len(data["orders"]["l0"]["open"])
    with pytest.raises(BadInput, match="not ordered by michel"):
        found.removed(0.5, "michel")
    assert found.removed(0.5) == found.removed(0.5, "random")
    assert len(some(model, 0.5, 0)) == 6
