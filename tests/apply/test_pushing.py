"""Interventions that push heads along what their outputs tell apart: on tiny models, against sums written apart."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply.interventions import asmr, faithful_cot, semantic_consistency, style, sycophancy
from headatlas.apply.recipe import pushing
from headatlas.apply.recipe.choosing import held_back
from headatlas.apply.recipe.intervention import RecipeOptions, find_intervention
from headatlas.apply.recipe.pushing import bearable, up_to
from headatlas.apply.recipe.recipe import ALWAYS
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.model.text.reading import padded
from headatlas.task import Batch
from tests import toys
from tests.apply.test_interventions import answers, questions
from tests.methods.test_probing import plain_outputs

HEAD = HeadId(1, 2)


def z_of(model, batch: Batch) -> torch.Tensor:
    """[example, pos, d_value] of head 1.2, by a hook on the plain model."""
    return plain_outputs(model, batch, 1).unflatten(-1, (4, -1))[:, :, HEAD.head]


@pytest.fixture
def words():
    return toys.smollm2_vocabulary()


# ---- NL-ITI ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["gqa", "gpt2"])
def test_nl_iti_pushes_along_means_of_the_last_six_tokens(kind):
    model, batch = toys.model(kind), questions()
    found = find_intervention("nl-iti").fit(model, batch, RecipeOptions(heads="1.2", alpha="2"))
    part, _ = held_back(batch, 0)
    z, ends = z_of(model, part), part.mask.sum(1)
    averaged = torch.stack([z[e, max(0, int(end) - 6) : int(end)].mean(0) for e, end in enumerate(ends)])
    y = part.labels["right"]
    unit = averaged[y == 1].mean(0) - averaged[y == 0].mean(0)
    cosine = torch.cosine_similarity(found.shift[HEAD], unit, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-4)
    assert found.facts["direction"] == "mean"


@pytest.mark.slow
def test_nl_iti_chooses_heads_by_small_networks():
    found = find_intervention("nl-iti").fit(toys.model("gqa"), questions(8), RecipeOptions(pick=2, alpha="1"))
    assert len(found.heads) == 2
    assert min(found.facts["accuracy"]) > 0.7


def test_the_last_tokens_of_a_short_text_begin_at_its_start():
    assert up_to(torch.tensor([[5], [1]]), 3).tolist() == [[3, 4, 5], [-1, 0, 1]]


def test_of_pushes_that_break_the_model_none_is_taken_where_a_gentler_one_can_be_had():
    assert bearable([0.1, 0.3, 0.9], []) == 2  # no prose to break
    assert bearable([0.1, 0.3, 0.9], [0.0, 0.5, 0.51]) == 1
    assert bearable([0.3, 0.3, 0.1], [0.1, 0.0, 0.0]) == 0  # the first of equals
    assert bearable([0.1, 0.3, 0.9], [0.8, 0.7, 6.0]) == 1  # all break it: the gentlest


def test_strengths_are_tried_on_prose_as_the_plain_model_reads_it_and_a_breaking_one_is_left(monkeypatch):
    model, batch = toys.model("gqa"), questions()
    asked, said = RecipeOptions(heads="1.2", alpha="1,3000"), torch.arange(10, 16)[:, None]
    with torch.no_grad():
        for _ in range(4):  # what the model says itself, so that a push makes it less likely
            said = torch.cat([said, model.hf(said).logits[:, -1:].argmax(-1)], 1)
    prose = replace(padded(said.tolist()), positions={"predict": torch.tensor([[0, 1, 2]]).repeat(6, 1)})
    free = find_intervention("nl-iti").fit(model, batch, asked)
    assert (free.facts["loss_on_prose"], free.facts["alpha"]) == ([], 3000.0)  # of ids alone there is no prose
    monkeypatch.setattr(pushing, "find_task", lambda name: lambda tokenizer, n, seed: prose)
    found = find_intervention("nl-iti").fit(model, batch, asked)
    layer, part = model.layers[HEAD.layer], slice(HEAD.head * 8, HEAD.head * 8 + 8)

    def loss(moved: torch.Tensor) -> float:
        def change(_, args):
            z = args[0].clone()
            z[..., part] += moved
            return (z,)

        handle = layer.projection.register_forward_pre_hook(change)
        total = 0.0
        for row, mask in zip(prose.tokens, prose.mask, strict=True):
            ids = row[mask]
            with torch.no_grad():
                logits = model.hf(ids[None]).logits[0].double().log_softmax(-1)
            total -= float(logits[[0, 1, 2], ids[1:4]].mean()) / 6
        handle.remove()
        return total

    one = free.shift[HEAD] / 3000
    wanted = [loss(size * one) - loss(0 * one) for size in (1, 3000)]
    assert found.facts["loss_on_prose"] == pytest.approx(wanted, abs=1e-3)
    assert wanted[0] < 0.01 < 0.05 < wanted[1]
    monkeypatch.setattr(pushing, "BEARABLE", 0.05)  # tiny models are not broken by as much as real ones
    found = find_intervention("nl-iti").fit(model, batch, asked)
    assert found.facts["alpha"] == 1.0
    np.testing.assert_allclose(found.shift[HEAD].numpy(), one.numpy(), atol=1e-4)


# ---- sycophancy and style ----------------------------------------------------------------------------------------------
def test_every_doubt_has_an_answer_that_stands_by_the_first_and_one_that_gives_in(words):
    halves = [sycophancy.prompts(words, 12, np.random.default_rng(0), half) for half in ("find", "test")]
    for batch in halves:
        for number in range(12):
            mine = (batch.labels["group"] == number).nonzero().flatten()
            said = {int(batch.labels["right"][e]): words.decode(batch.tokens[e][batch.mask[e]].tolist()) for e in mine}
            talk, firm = said[1].rsplit("\nAssistant: The answer is ", 1)
            assert f"\nAssistant: {firm}.\nUser:" in talk
            gives_in = said[0].rsplit("The answer is ", 1)[1]
            assert gives_in in talk.rsplit("User:", 1)[1]
            assert gives_in != firm
    first, second = ({tuple(row.tolist()) for row in batch.tokens} for batch in halves)
    assert not first & second


def test_styled_and_plain_answers_share_their_question_and_no_question_is_asked_twice_in_either_half(words):
    halves = [style.prompts(words, 64, np.random.default_rng(1), half) for half in ("find", "test")]
    asked, slots = [], {*style.THINGS, *style.PLACES}
    for batch in halves:
        texts_of = [words.decode(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.mask, strict=True)]
        for styled, plain in zip(texts_of[::2], texts_of[1::2], strict=True):
            question, _, answer = styled.partition("Answer:")
            assert question == plain.partition("Answer:")[0]
            marks = r"thou|thee|thy|thine|'tis|hath|doth|\w+eth|saith"
            assert re.search(rf"\b({marks})\b", answer, re.IGNORECASE), answer
            assert not re.search(rf"\b({marks})\b", plain.partition("Answer:")[2], re.IGNORECASE)
            # What is asked without the thing and the place that it is about, in which the halves differ anyhow.
            asked.append(" ".join("_" if one in slots else one for one in re.findall(r"\w+", question)))
    assert len(asked) == len(set(asked)) == len(style.FORMS)


def test_style_is_the_mean_difference_of_pairs_within_the_half_of_their_axes():
    model, batch = toys.model("gqa"), questions()
    found = find_intervention("style").fit(model, batch, RecipeOptions(heads="1.2", alpha="3"))
    part, _ = held_back(batch, 0)
    z = z_of(model, part)[torch.arange(len(part)), part.mask.sum(1) - 1].double().numpy()
    pairs = z[part.labels["right"].numpy() == 1] - z[part.labels["right"].numpy() == 0]
    axes = np.linalg.svd(pairs, full_matrices=False)[2][: z.shape[1] // 2]
    wanted = sum(axis * (axis @ pairs.mean(0)) for axis in axes)
    np.testing.assert_allclose(found.shift[HEAD].numpy(), 3 * wanted, atol=1e-4)


# ---- semantic consistency ---------------------------------------------------------------------------------------------
def worded(n: int = 24) -> Batch:
    """Facts in two wordings; those of even number end alike and so get one answer, the rest do not."""
    tokens = torch.randint(6, 110, (2 * n, 6), generator=torch.Generator().manual_seed(2))
    fact = torch.arange(2 * n) // 2
    tokens[:, -3:] = torch.where((fact % 2 == 0)[:, None], 8, tokens[:, -3:])
    tokens[1::2] = torch.where((fact % 2 == 0)[1::2, None], tokens[::2], tokens[1::2])
    labels = {"fact": fact, "subject": fact, "answer": torch.full((2 * n,), 20)}
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"end": torch.full((2 * n,), 5)}, labels=labels)


def test_agreement_counts_facts_whose_wordings_get_one_answer_and_leaves_out_those_with_one_wording():
    labels = {"fact": torch.tensor([3, 0, 1, 0, 1])}
    batch = replace(worded(3).rows(range(5)), labels=labels)
    assert semantic_consistency._agree(np.array([7.0, 5, 6, 5, 9]), batch).tolist() == [1, 0]


def test_consistency_pushes_to_the_mean_of_prompts_whose_other_wording_gets_the_same():
    model, batch = toys.model("gqa"), worded()
    found = find_intervention("semantic-consistency").fit(model, batch, RecipeOptions(heads="1.2", alpha="1"))
    said = model.forward(batch)[:, -1].argmax(-1)
    same = (said[::2] == said[1::2]).long().repeat_interleave(2)
    marked = replace(batch, labels={**batch.labels, "same": same, "group": batch.labels["fact"]})
    part, _ = held_back(marked, 0)
    z, y = z_of(model, part)[:, -1], part.labels["same"]
    unit = z[y == 1].mean(0) - z[y == 0].mean(0)
    unit /= unit.norm()
    torch.testing.assert_close(found.shift[HEAD], (z @ unit).std() * unit, atol=1e-4, rtol=1e-3)
    assert found.when == ALWAYS
    with pytest.raises(BadInput, match="no label 'fact'"):
        find_intervention("semantic-consistency").fit(model, answers())


# ---- faithful chains of thought ---------------------------------------------------------------------------------------
def test_the_area_over_the_curve_of_scripted_answers():
    group, share = torch.arange(3).repeat_interleave(5), torch.arange(5).repeat(3)
    batch = Batch(torch.zeros(15, 1, dtype=torch.long), torch.ones(15, 1, dtype=torch.bool), {},
                  labels={"group": group, "share": share, "answer": torch.tensor([4, 4, 9]).repeat_interleave(5)})  # fmt: skip
    said = np.array([[4.0] * 5, [1, 1, 1, 1, 4], [2, 2, 4, 4, 4]])
    order = np.random.default_rng(0).permutation(15)
    mixed = batch.rows(order.tolist())
    np.testing.assert_allclose(faithful_cot._area(said.reshape(-1)[order], mixed), [0, 7 / 8, 3 / 8])
    assert faithful_cot._follows(said.reshape(-1)[order], mixed).tolist() == [1, 1, 0]


def test_thoughts_are_cut_from_nothing_to_all_of_them(words):
    batch = faithful_cot.prompts(words, 4, np.random.default_rng(0), "find")
    whole = [words.decode(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    for number in range(4):
        mine = whole[5 * number : 5 * number + 5]
        thoughts = [text.partition("\nThought:")[2].partition("\nSo the answer is")[0] for text in mine]
        assert thoughts[0] == ""
        assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(thoughts))
        assert thoughts[4].endswith(f"{words.decode(int(batch.labels['answer'][5 * number]))}.")
        assert all(text.endswith("\nSo the answer is") for text in mine)


def cut_thoughts(n: int = 16) -> Batch:
    """Prompts of three tokens, nothing to all of four more, and one that asks."""
    tokens = torch.randint(6, 110, (n, 8), generator=torch.Generator().manual_seed(4))
    tokens[:, 7] = 9
    rows = [[*row[: 3 + cut].tolist(), 9] for row in tokens for cut in range(5)]
    group, share = torch.arange(n).repeat_interleave(5), torch.arange(5).repeat(n)
    labels = {"group": group, "share": share, "answer": torch.full((5 * n,), 20)}
    batch = padded(rows, labels=labels, facts={"numbers": list(range(20, 60))})
    return replace(batch, positions={**batch.positions, "stop": batch.positions["end"] - 1})


def test_faithful_is_a_question_whose_answer_changes_without_its_thought():
    model, batch = toys.model("gqa"), cut_thoughts()
    found = find_intervention("faithful-cot").fit(model, batch, RecipeOptions(heads="1.2", alpha="2"))
    part = held_back(batch, 0)[0]
    ends, numbers = part.positions["end"][:, None], torch.tensor(batch.facts["numbers"])
    said = numbers[model.forward(part, logit_positions=ends)[:, 0, numbers].argmax(-1)].reshape(-1, 5)
    y = (said[:, 0] != said[:, 4]).long()
    whole = part.rows(range(4, len(part), 5))
    z = z_of(model, whole)[torch.arange(len(whole)), whole.positions["stop"]]
    unit = z[y == 1].mean(0) - z[y == 0].mean(0)
    unit /= unit.norm()
    torch.testing.assert_close(found.shift[HEAD], 2 * (z @ unit).std() * unit, atol=1e-4, rtol=1e-3)
    assert found.facts["classes"] == [int((y == 0).sum()), int((y == 1).sum())]
    with pytest.raises(BadInput, match="no label 'group'"):
        find_intervention("faithful-cot").fit(model, answers())


# ---- ASMR ---------------------------------------------------------------------------------------------------------------
def test_asmr_reads_both_labels_off_the_preferred_of_four_answers_and_adds_both_pushes():
    model, plain = toys.model("gqa"), worded()
    four = torch.tensor([20, 30, 40, 50]).expand(48, -1)
    labels = {"answer": four[:, :2], "wrong": four[:, 2:], "asked": torch.arange(48) // 2}
    batch = replace(plain, labels=labels)
    found = find_intervention("asmr").fit(model, batch, RecipeOptions(pick=2, alpha="1,3"))
    logits = model.forward(batch, logit_positions=batch.positions["end"][:, None])
    best = logits[:, 0].gather(1, four).argmax(1)
    known = {"accurate": (best < 2).long(), "coherent": (best % 2 == 0).long(), "group": labels["asked"]}
    part, _ = held_back(replace(batch, labels={**labels, **known}), 0)
    total: dict = {}
    for label, alpha in zip(("accurate", "coherent"), found.facts["alpha"], strict=True):
        y = part.labels[label]
        for head in map(HeadId.parse, found.facts[label]):
            z = plain_outputs(model, part, head.layer).unflatten(-1, (4, -1))[:, -1, head.head]
            unit = z[y == 1].mean(0) - z[y == 0].mean(0)
            unit /= unit.norm()
            total[head] = total.get(head, 0) + alpha * (z @ unit).std() * unit
    assert total.keys() == found.shift.keys()
    for head, value in total.items():
        torch.testing.assert_close(found.shift[head], value, atol=1e-4, rtol=1e-3)
    scores = {one.name: one.score(logits, batch).tolist() for one in asmr.measures(found)}
    assert scores["coherence"] == known["coherent"].tolist()
    assert scores["accuracy"] == known["accurate"].tolist()
    assert scores["right in the question's language"] == (best == 0).tolist()
    with pytest.raises(BadInput, match="no label 'asked'"):
        find_intervention("asmr").fit(model, answers())
