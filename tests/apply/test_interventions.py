"""Interventions on tiny models: what they choose and learn, against sums written apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply import interventions as folder
from headatlas.apply.interventions import concept_scaling, function_vector, iti, ph3, seal
from headatlas.apply.recipe.choosing import held_back
from headatlas.apply.recipe.intervention import RecipeOptions, find_intervention, interventions
from headatlas.apply.recipe.learning import learn
from headatlas.apply.recipe.recipe import ALWAYS
from headatlas.catalogue import load
from headatlas.cli import _checks
from headatlas.errors import BadInput, UnknownName
from headatlas.heads import HeadId
from headatlas.methods.sweeps.plan import metric_of
from headatlas.progress import Silent
from headatlas.task import Batch, find_task
from headatlas.task.answers import log_probability
from tests import toys
from tests.methods.test_probing import plain_outputs, texts


def answers(n: int = 16, answer: int = 20) -> Batch:
    batch = texts(n)
    labels = {**batch.labels, "answer": torch.full((n,), answer), "wrong": torch.full((n,), 50)}
    return replace(batch, labels=labels)


# ---- what there is -------------------------------------------------------------------------------------------------------
def test_every_file_is_an_intervention_with_papers_of_the_catalogue():
    from pkgutil import iter_modules

    files = {info.name.replace("_", "-") for info in iter_modules(folder.__path__)}
    assert set(interventions()) == files
    for name, one in interventions().items():
        assert set(one.papers) <= load().papers.keys(), name
        assert one.control in ("directions", "heads", "fitted", "shuffled")
        assert all(one.tasks) or one.hook("prompts") is not None, name
        for task in filter(None, one.tasks):
            find_task(task)
        _checks.intervention(name)
    with pytest.raises(UnknownName, match="lofit"):
        find_intervention("lofitt")
    with pytest.raises(UnknownName, match="lofit"):
        _checks.intervention("lofitt")


@pytest.mark.parametrize("name", ["seal", "iti", "ph3", "lofit"])
def test_an_option_that_an_intervention_does_not_know_is_refused(name):
    with pytest.raises(BadInput, match=f"{name} knows no label"):
        find_intervention(name).fit(toys.model("gqa"), answers(), RecipeOptions(label="truth"))


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"pick": 0}, {"steps": 0}, {"rate": 0.0}, {"alpha": "much"}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(BadInput):
        RecipeOptions(**wrong)


# ---- prompts ---------------------------------------------------------------------------------------------------------------
def test_prompts_held_back_share_no_question():
    batch = answers(20)
    batch = replace(batch, labels={**batch.labels, "group": torch.arange(20) // 4})
    learn_on, choose = held_back(batch, 0)
    assert len(learn_on) + len(choose) == 20
    assert not set(learn_on.labels["group"].tolist()) & set(choose.labels["group"].tolist())
    with pytest.raises(BadInput, match="too few"):
        held_back(batch.rows(slice(0, 8)), 0)


def test_questions_of_iti_have_one_true_answer_each_and_strings_that_are_true_elsewhere():
    words = toys.smollm2_vocabulary()
    halves = [iti.prompts(words, 30, np.random.default_rng(0), half) for half in ("find", "test")]
    for batch in halves:
        right, group = batch.labels["right"], batch.labels["group"]
        assert Counter(group[right == 1].tolist()) == dict.fromkeys(range(30), 1)
        assert Counter(group.tolist()) == dict.fromkeys(range(30), 4)
        for e in range(0, len(batch), 7):
            target = batch.labels["targets"][e]
            told = batch.tokens[e][batch.positions["predict"][e][target >= 0] + 1]
            assert torch.equal(told, target[target >= 0])
            assert int(batch.positions["answered"][e]) == int(batch.mask[e].sum()) - 1
    texts_of = [{tuple(row[: int(end) + 1].tolist()) for row, end in zip(b.tokens, b.positions["end"], strict=True)} for b in halves]  # fmt: skip
    assert not texts_of[0] & texts_of[1]


def test_lists_of_seal_ask_for_what_a_line_says_and_halves_share_no_content():
    words = toys.smollm2_vocabulary()
    contents = []
    for half in ("find", "test"):
        batch = seal.prompts(words, 12, np.random.default_rng(1), half)
        contents.append({*batch.answer.flatten().tolist(), *batch.wrong.flatten().tolist()})
        for e in range(len(batch)):
            text = words.decode(batch.tokens[e][batch.mask[e]].tolist())
            lines, question = text.rsplit("The ", 1)
            assert f"The {question}{words.decode(int(batch.answer[e, 0]))}." in lines
    assert not contents[0] & contents[1]


def test_queries_of_a_function_vector_are_the_prompts_of_the_task_without_examples():
    words = toys.smollm2_vocabulary()
    batch = find_task("icl-antonym")(words, 6, 0)
    bare = function_vector._bare(batch)
    for e in range(len(batch)):
        query = words.decode(batch.tokens[e][batch.positions["query"][e][batch.positions["query"][e] >= 0]].tolist())
        shown = words.decode(bare.tokens[e][bare.mask[e]].tolist())
        assert shown == f"{words.decode([words.bos])}Q:{query}\nA:"
    assert torch.equal(bare.answer, batch.answer)


def test_a_function_vector_is_refused_where_the_model_cannot_do_the_task(narrow_smollm2):
    batch = find_task("icl-antonym")(narrow_smollm2.tokenizer, 8, 0)
    with pytest.raises(BadInput, match="right; its averages say nothing"):
        find_intervention("function-vector").fit(narrow_smollm2, batch)
    with pytest.raises(BadInput, match="positions input and query"):
        find_intervention("function-vector").fit(narrow_smollm2, answers())


# ---- ITI -------------------------------------------------------------------------------------------------------------------
def questions(n: int = 24) -> Batch:
    """Two answers a question, the last token says which is true: 20 or 21."""
    batch = texts(2 * n)
    ends = batch.positions["end"]
    right = torch.arange(2 * n) % 2
    tokens = batch.tokens.clone()
    tokens[torch.arange(2 * n), ends] = 21 - right
    labels = {"right": right, "best": right, "group": torch.arange(2 * n) // 2, "answer": tokens[:, :1],
              "targets": (21 - right)[:, None]}  # fmt: skip
    positions = {"end": ends - 1, "predict": (ends - 1)[:, None]}
    return Batch(tokens, batch.mask, positions, labels=labels)


def test_iti_pushes_along_the_difference_of_means_by_sigma_of_its_own_set(monkeypatch):
    model, batch, head = toys.model("gqa"), questions(), HeadId(1, 2)
    found = find_intervention("iti").fit(model, batch, RecipeOptions(heads="1.2", alpha="3", direction="mean"))
    part, _ = held_back(batch, 0)
    last = part.mask.sum(1) - 1
    z = plain_outputs(model, part, 1).unflatten(-1, (4, -1))[torch.arange(len(part)), last, 2]
    y = part.labels["right"]
    unit = z[y == 1].mean(0) - z[y == 0].mean(0)
    unit = unit / unit.norm()
    # sigma: behind each answer another question, without its answer
    other = np.random.default_rng(0).permutation(len(part))
    spread = []
    for e, j in enumerate(other.tolist()):
        row = torch.cat([part.tokens[e][: last[e] + 1], part.tokens[j][len(model.tokenizer.front) : last[j]]])
        whole = Batch(row[None], torch.ones(1, len(row), dtype=torch.bool))
        spread.append(plain_outputs(model, whole, 1).unflatten(-1, (4, -1))[0, -1, 2] @ unit)
    sigma = torch.stack(spread).std()
    torch.testing.assert_close(found.shift[head], 3 * sigma * unit, atol=1e-4, rtol=1e-3)
    assert found.facts["alpha"] == 3.0


def test_iti_chooses_heads_in_which_the_answer_can_be_read(monkeypatch):
    found = find_intervention("iti").fit(toys.model("gqa"), questions(), RecipeOptions(pick=3, alpha="1"))
    assert len(found.heads) == 3
    assert min(found.facts["accuracy"]) > 0.9
    assert {one[0] for one in found.facts["tried"]} == {"mean", "probe"}
    with pytest.raises(BadInput, match="marked as right or wrong"):
        find_intervention("iti").fit(toys.model("gqa"), answers())


# ---- learning -------------------------------------------------------------------------------------------------------------
def test_learning_starts_from_the_plain_model_gets_better_and_leaves_the_weights_alone():
    model, batch = toys.model("gpt2"), answers(8)
    before = model.fingerprint()
    shift = {head: torch.zeros(8, requires_grad=True) for head in model.heads}
    reached = learn(
        model, batch, log_probability, lambda: ({}, shift), list(shift.values()), steps=8, rate=0.05, progress=Silent()
    )
    assert reached[0] == pytest.approx(float(metric_of(model, batch, log_probability).mean()), abs=1e-4)
    assert reached[-1] > reached[0] + 0.05
    assert model.fingerprint() == before


def test_the_first_step_goes_along_the_gradient_that_differences_give():
    model, batch = toys.model("gqa"), answers(8)
    shift = {HeadId(1, 1): torch.zeros(8, requires_grad=True)}
    learn(
        model, batch, log_probability, lambda: ({}, shift), list(shift.values()), steps=1, rate=1e-3, progress=Silent()
    )
    (value,) = shift.values()
    for i in range(8):
        from headatlas.edits.affine import Affine

        up, down = (
            metric_of(model, batch, log_probability, edits=[Affine("1.1", {}, {HeadId(1, 1): sign * torch.eye(8)[i]})])
            for sign in (0.05, -0.05)
        )
        slope = float((up - down).mean())
        if abs(slope) > 1e-4:  # Adam's first step has the size of the rate and the sign of the slope
            assert np.sign(slope) == np.sign(float(value.detach()[i]))
            assert abs(float(value.detach()[i])) == pytest.approx(1e-3, rel=0.05)


def test_lofit_learns_a_bias_on_the_heads_it_chose_and_on_random_ones():
    model, batch = toys.model("gqa"), answers(16)
    found = find_intervention("lofit").fit(model, batch, RecipeOptions(pick=2, steps=12, rate=0.1, draws=2))
    assert (len(found.heads), found.when, len(found.rivals)) == (2, ALWAYS, 2)
    base = metric_of(model, batch, log_probability).mean()
    for one in (found, *found.rivals):
        assert metric_of(model, batch, log_probability, edits=one.edits()).mean() > base + 0.05
        assert len(one.heads) == 2
    for one in found.rivals:
        assert not set(one.heads) & set(found.heads)


def test_seal_learns_one_factor_a_head_and_its_rivals_are_the_same_in_another_order():
    model, batch = toys.model("gqa"), answers(16)
    found = find_intervention("seal").fit(model, batch, RecipeOptions(steps=10, rate=0.05, draws=2))
    factors = {head: set(value.tolist()) for head, value in found.scale.items()}
    assert factors.keys() == set(model.heads)
    assert all(len(one) == 1 for one in factors.values())
    base = metric_of(model, batch, log_probability).mean()
    assert metric_of(model, batch, log_probability, edits=found.edits()).mean() > base
    for one in found.rivals:
        assert sorted(float(v[0]) for v in one.scale.values()) == sorted(float(v[0]) for v in found.scale.values())


# ---- concepts and conflicts -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["gqa", "gpt2"])
def test_a_head_s_score_for_a_concept_is_the_cosine_of_what_it_writes(kind):
    model, batch = toys.model(kind), texts(12)
    y, ends = batch.labels["label"], batch.positions["end"]
    vector = concept_scaling._concept(model, batch, y)
    streams = []
    for e in range(len(batch)):
        seen = {}
        handle = model.layers[1].block.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.update(x=args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        with torch.no_grad():
            model.hf(batch.tokens[e : e + 1, : int(ends[e]) + 1])
        handle.remove()
        streams.append(seen["x"][0, -1])
    x = torch.stack(streams)
    torch.testing.assert_close(vector, x[y == 1].mean(0) - x[y == 0].mean(0), atol=1e-4, rtol=1e-3)
    expected = []
    for layer in model.layers:
        z = plain_outputs(model, batch, layer.index).unflatten(-1, (4, -1))[torch.arange(len(batch)), ends]
        written = torch.einsum("ehd,hdm->ehm", z, layer.output_weight().detach().float())
        expected.append(torch.cosine_similarity(written, vector, dim=-1))
    cosine = torch.cat(expected, 1)
    wanted = (cosine[y == 1].mean(0) - cosine[y == 0].mean(0)) / 2
    np.testing.assert_allclose(concept_scaling._concept_scores(model, batch, y), wanted.numpy(), atol=1e-4)


def test_a_concept_is_scaled_in_the_heads_that_write_it_most():
    model, batch = toys.model("gqa"), answers(24)
    found = find_intervention("concept-scaling").fit(model, batch, RecipeOptions(label="label", pick=2, alpha="1,2"))
    part, _ = held_back(batch, 0)
    scores = concept_scaling._concept_scores(model, part, part.labels["label"])
    assert set(found.heads) == {model.heads[i] for i in np.argsort(-scores)[:2]}
    assert {float(one) for value in found.scale.values() for one in value} == {found.facts["alpha"]}


def test_rm_and_rc_count_the_most_likely_token():
    batch = replace(answers(3), labels={"answer": torch.tensor([1, 1, 1]), "wrong": torch.tensor([2, 2, 2])})
    logits = torch.zeros(3, 1, 5)
    logits[0, 0, 1], logits[1, 0, 2], logits[2, 0, 4] = 3.0, 5.0, 1.0
    recipe = find_intervention("ph3").metrics_of(_ph3("memory"))
    found = {one.name: one.score(logits, batch).tolist() for one in recipe}
    assert list(found) == ["RM", "RC", "logit of memory over context"]
    assert found["RM"] == [0, 1, 0]
    assert found["RC"] == [1, 0, 0]
    assert found["logit of memory over context"] == [-3, 5, 0]
    assert next(one.name for one in ph3.measures(_ph3("context"))) == "RC"


def _ph3(toward: str):
    from headatlas.apply.recipe.recipe import Recipe

    return Recipe("ph3", facts={"toward": toward})


def test_ph3_prunes_heads_that_speak_for_the_claim(narrow_smollm2):
    batch = find_task("knowledge-conflict")(narrow_smollm2.tokenizer, 8, 0)
    found = find_intervention("ph3").fit(narrow_smollm2, batch, RecipeOptions(heads="3.1 4.2", toward="context"))
    assert found.heads == (HeadId(3, 1), HeadId(4, 2))
    assert all(float(value.abs().max()) == 0 for value in found.scale.values())
    with pytest.raises(BadInput, match="decided toward 'both'"):
        find_intervention("ph3").fit(narrow_smollm2, batch, RecipeOptions(toward="both"))
    with pytest.raises(BadInput, match="no position 'country'"):
        find_intervention("ph3").fit(toys.model("gqa"), answers())
