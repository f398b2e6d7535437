"""Recipes that read heads and change nothing: against attention of the plain model, and refused where something is put in force."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply.attention_reads import (
    attention_from,
    attention_from_last,
    compress_prompt,
    injection_focus,
    instruction_share,
    kept_of,
    utility,
    with_data,
)  # fmt: skip
from headatlas.apply.interventions import attention_tracker, evaluator_compression
from headatlas.apply.recipe.export import export_recipe
from headatlas.apply.recipe.intervention import RecipeOptions, find_intervention
from headatlas.apply.recipe.recipe import Recipe
from headatlas.apply.recipe.store import load_recipe, save_recipe
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.task import Batch
from tests import toys
from tests.apply.test_interventions import answers

READS = Recipe("attention-tracker", reads=(HeadId(0, 1), HeadId(1, 2)), facts={"threshold": 0.5})


def eager(model, row: torch.Tensor) -> torch.Tensor:
    """[head of the model, query, key] of the plain model's own attention."""
    model.hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = model.hf(row[None], output_attentions=True).attentions
    return torch.cat([one[0] for one in found])


@pytest.fixture
def words():
    return toys.smollm2_vocabulary()


# ---- what they are ----------------------------------------------------------------------------------------------------
def test_a_recipe_that_only_reads_is_kept_and_is_not_put_in_force(tmp_path):
    model = toys.model("gqa")
    save_recipe(READS, tmp_path / "kept")
    found = load_recipe(tmp_path / "kept")
    assert (found.reads, found.heads, found.acts) == (READS.reads, READS.reads, "reads only")
    with pytest.raises(BadInput, match="nothing to generate with"), found.on(model):
        pass
    with pytest.raises(BadInput, match="nothing to export"):
        export_recipe(model, found, tmp_path / "out")
    drawn = found.random(model, 1, "heads")
    assert not set(drawn.reads) & set(found.reads)
    assert [head.layer for head in drawn.reads] == [0, 1]


def test_recipes_from_before_there_were_heads_that_are_read_are_read(tmp_path):
    save_recipe(Recipe("iti", shift={HeadId(0, 1): torch.ones(8)}), tmp_path / "kept")
    data = json.loads((tmp_path / "kept" / "recipe.json").read_text())
    for name in ("query", "reads"):
        del data["recipe"][name]
    (tmp_path / "kept" / "recipe.json").write_text(json.dumps(data))
    found = load_recipe(tmp_path / "kept")
    assert (found.heads, found.reads, found.query) == ((HeadId(0, 1),), (), {})


@pytest.mark.parametrize("kind", ["gqa", "gpt2", "window"])
def test_attention_is_that_of_the_plain_model_averaged_over_the_queries_there_are(kind):
    model, batch = toys.model(kind), answers(6)
    ends = batch.positions["end"]
    found = attention_from(model, batch, torch.stack([ends, ends - 1, torch.full_like(ends, -1)], 1))
    for e, end in enumerate(ends.tolist()):
        real = eager(model, batch.tokens[e, : end + 1])
        torch.testing.assert_close(found[e, :, : end + 1], real[:, end - 1 :].mean(1), atol=1e-5, rtol=1e-4)
        assert float(found[e, :, end + 1 :].sum()) == 0


# ---- Attention Tracker -------------------------------------------------------------------------------------------------
def test_the_share_of_the_instruction_counts_its_tokens_and_those_of_the_data(narrow_smollm2):
    pairs = [("Name the noun.", "Rain fell all night."), ("Say it in French.", "Snow.")]
    batch = with_data(narrow_smollm2.tokenizer, pairs)
    share = instruction_share(narrow_smollm2, batch)
    for e, pair in enumerate(pairs):
        row = batch.tokens[e][batch.mask[e]]
        spans = [batch.positions[name][e] for name in ("instruction", "data")]
        texts = [narrow_smollm2.tokenizer.decode(row[span[span >= 0]].tolist()).strip() for span in spans]
        assert tuple(texts) == pair
        real = eager(narrow_smollm2, row)[:, -1]
        on = [real[:, span[span >= 0]].sum(1) for span in spans]
        torch.testing.assert_close(share[e], on[0] / (on[0] + on[1] + 1e-8), atol=1e-4, rtol=1e-4)


def labelled(share: torch.Tensor, monkeypatch) -> Batch:
    """A batch whose heads have these shares; every other prompt gives an order."""
    n = len(share)
    batch = Batch(torch.zeros(n, 1, dtype=torch.long), torch.ones(n, 1, dtype=torch.bool),
                  dict.fromkeys(("instruction", "data", "end"), torch.zeros(n, 1, dtype=torch.long)),
                  labels={"ordered": torch.arange(n) % 2})  # fmt: skip
    monkeypatch.setattr(attention_tracker, "instruction_share", lambda *_: share)
    return batch


def test_heads_are_those_that_lie_the_most_deviations_apart_and_the_auroc_is_that_of_pairs(monkeypatch):
    model = toys.model("gqa")
    rng = torch.Generator().manual_seed(0)
    share = 0.5 + 0.01 * torch.randn(40, 8, generator=rng)
    share[1::2, 5] -= 0.2  # ten standard deviations of either
    share[1::2, 3] -= 0.03
    batch = labelled(share, monkeypatch)
    found = find_intervention("attention-tracker").fit(model, batch)
    assert (found.reads, found.facts["k"]) == ((HeadId(1, 1),), 4)
    assert found.facts["threshold"] == pytest.approx(0.4, abs=0.01)
    picked = find_intervention("attention-tracker").fit(model, batch, RecipeOptions(heads="0.3"))
    outcome = find_intervention("attention-tracker").measure(model, picked, batch, draws=2)
    calm, stirred = share[::2, 3], share[1::2, 3]
    auroc = float((calm[:, None] > stirred).float().mean())
    assert outcome.gains[0].value == pytest.approx(auroc, abs=1e-6)
    assert outcome.damage == ()
    calm, stirred = share[::2].mean(1), share[1::2].mean(1)
    assert outcome.gains[0].base == pytest.approx(float((calm[:, None] > stirred).float().mean()), abs=1e-6)
    with pytest.raises(BadInput, match="attends less to the instruction"):
        find_intervention("attention-tracker").fit(model, labelled(share.fill_(0.5), monkeypatch))


def test_texts_are_harmless_and_the_halves_give_other_orders(words):
    halves = [attention_tracker.prompts(words, 12, np.random.default_rng(0), half) for half in ("find", "test")]
    said = []
    for batch in halves:
        assert batch.labels["ordered"].tolist() == [0, 1] * 12
        texts = [words.decode(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.mask, strict=True)]
        assert all(
            calm.split(".")[0] == stirred.split(".")[0] for calm, stirred in zip(texts[::2], texts[1::2], strict=True)
        )
        said.append("".join(texts[1::2]))
    assert "Ignore previous instruction" in said[0]
    assert "Ignore previous instruction" not in said[1]


def test_a_text_is_flagged_at_or_below_the_threshold(narrow_smollm2):
    share = instruction_share(narrow_smollm2, with_data(narrow_smollm2.tokenizer, [("Name it.", "Rain fell.")]))
    level = float(share[0, [1, 11]].mean())
    for threshold, flagged in ((level - 0.01, False), (level + 0.01, True)):
        recipe = replace(READS, facts={"threshold": threshold})
        (found,) = injection_focus(narrow_smollm2, recipe, "Name it.", "Rain fell.")
        assert found.score == pytest.approx(level, abs=1e-5)
        assert found.injected == flagged
    with pytest.raises(BadInput, match="recipe of attention-tracker"):
        compress_prompt(narrow_smollm2, READS, "A text.")


# ---- evaluator heads ---------------------------------------------------------------------------------------------------
def haystacks(n: int = 4) -> Batch:
    """Prompts of 60 tokens, evidence of three at a place of its own."""
    tokens = torch.randint(6, 110, (n, 60), generator=torch.Generator().manual_seed(1))
    needle = torch.stack([torch.arange(5 * e + 4, 5 * e + 7) for e in range(n)])
    labels = {"answer": torch.full((n,), 20), "wrong": torch.full((n,), 50)}
    mask = torch.ones(n, 60, dtype=torch.bool)
    return Batch(tokens, mask, {"end": torch.full((n,), 57), "needle": needle}, labels=labels)


def test_evaluator_heads_are_of_the_layer_that_attends_most_to_the_evidence():
    model, batch = toys.model("gqa"), haystacks()
    found = find_intervention("evaluator-compression").fit(model, batch, RecipeOptions(pick=2))
    score = torch.zeros(8)
    for e in range(len(batch)):
        real = eager(model, batch.tokens[e])
        score += real[:, 42:58][:, :, batch.positions["needle"][e]].sum(-1).mean(1) / len(batch)
    layer = int(score.reshape(2, 4).sum(1).argmax())
    assert [head.layer for head in found.reads] == [layer, layer]
    assert {head.head for head in found.reads} == set(score.reshape(2, 4)[layer].topk(2).indices.tolist())
    np.testing.assert_allclose(found.facts["score"], score.reshape(2, 4)[layer].topk(2).values, atol=1e-3)


def test_kept_are_the_best_tokens_in_order_with_the_first_and_the_last_sixteen():
    model, batch = toys.model("gqa"), haystacks()
    given = attention_from_last(model, batch)
    score = utility(model, batch, given, [HeadId(1, 2)])
    for e in range(len(batch)):
        a = given[e, 6]
        for t in range(1, 42):
            around = [i for i in range(t - 4, t + 4) if 1 <= i < 42]
            assert float(score[e, t]) == pytest.approx(float(a[around].mean()), abs=1e-6)
        assert not bool(torch.isfinite(score[e, [0, *range(42, 60)]]).any())
    for kept, row in zip(kept_of(batch, score, 0.5), score, strict=True):
        always = [0, *range(42, 60)]
        best = sorted(
            {*always, *row.topk(29 - 17).indices.tolist()}
        )  # half of 58; what stands behind the end is not counted
        assert kept.tolist() == best


def test_cut_prompts_end_where_they_did_and_evidence_is_counted():
    model, batch = toys.model("gqa"), haystacks()
    one = find_intervention("evaluator-compression")
    found = one.measure(model, one.fit(model, batch, RecipeOptions(pick=1)), batch, draws=2)
    names = [gain.metric for gain in found.gains]
    assert names == ["evidence kept", "accuracy", "logit difference", "accuracy beside the whole prompt"]
    kept = [torch.arange(0, 60, 2)] * len(batch)
    cut = evaluator_compression._cut(batch, kept)
    assert torch.equal(cut.tokens, batch.tokens[:, ::2])
    assert cut.positions["end"].tolist() == [28] * len(batch)  # token 56: the last one that is left up to 57
    with pytest.raises(BadInput, match="no position 'needle'"):
        one.fit(model, answers())


def test_a_text_is_cut_to_the_share_that_is_asked_for(narrow_smollm2):
    text = "The sea was calm and the boats went out. " * 8 + "The answer to the question about boats is"
    recipe = Recipe("evaluator-compression", reads=(HeadId(2, 1),))
    whole = narrow_smollm2.tokenizer.encode(text)
    (short,) = compress_prompt(narrow_smollm2, recipe, text, keep=0.4)
    assert len(narrow_smollm2.tokenizer.encode(short)) == pytest.approx(0.4 * len(whole), abs=2)
    assert short.endswith("The answer to the question about boats is")
    assert compress_prompt(narrow_smollm2, recipe, text, keep=1.0) == [text]
    with pytest.raises(BadInput, match="cannot be kept"):
        compress_prompt(narrow_smollm2, recipe, text, keep=0)
