"""Attention surgery, safety heads and tuned queries: on tiny models, against runs and sums written apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply.interventions import attention_surgery, nasa, safety_heads
from headatlas.apply.recipe.choosing import held_back
from headatlas.apply.recipe.intervention import RecipeOptions, find_intervention
from headatlas.apply.recipe.recipe import Recipe, added_to_queries
from headatlas.edits import Attend, load_edits, save
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.prompts import with_clean_run
from headatlas.methods.sweeps.plan import metric_of
from headatlas.task import Batch, logit_margin
from headatlas.task.answers import kl, log_probability
from tests import toys
from tests.apply.test_interventions import answers
from tests.methods.test_probing import texts


def looking(model, row: torch.Tensor, heads, keys) -> torch.Tensor:
    """Logits at the end of the plain model whose heads look at keys from there: z of each is the mean of their values."""
    handles, n = [], len(row)
    for layer in model.layers:
        mine = [head.head for head in heads if head.layer == layer.index]
        seen = {}

        def values(_, __, out, seen=seen, layer=layer):
            seen["v"] = out[0].unflatten(-1, (-1, layer.d_value))  # [token, group, d_value]

        def change(_, args, layer=layer, mine=mine, seen=seen):
            z = args[0].clone()
            for head in mine:
                part = slice(head * layer.d_value, (head + 1) * layer.d_value)
                z[0, n - 1, part] = seen["v"][keys, head // (layer.n_heads // seen["v"].shape[1])].mean(0)
            return (z,)

        handles += [
            layer.module.v_proj.register_forward_hook(values),
            layer.projection.register_forward_pre_hook(change),
        ]
    with torch.no_grad():
        found = model.hf(row[None]).logits[0, -1]
    for handle in handles:
        handle.remove()
    return found


# ---- Attend -----------------------------------------------------------------------------------------------------------
def test_heads_that_look_at_keys_write_the_mean_of_their_values(tmp_path):
    model, batch = toys.model("gqa"), texts(6)
    heads, ends = (HeadId(0, 3), HeadId(1, 1)), batch.positions["end"][:, None]
    keys = torch.tensor([[0, 2], [1, 3], [2, 0], [3, 2], [0, 1], [1, 2]])
    edit = Attend(heads, keys=keys, queries=ends)
    found = model.forward(batch, edits=[edit], logit_positions=ends)[:, 0]
    for e in range(len(batch)):
        real = looking(model, batch.tokens[e][batch.mask[e]], heads, keys[e])
        torch.testing.assert_close(found[e], real, atol=1e-4, rtol=1e-4)
    save([edit], tmp_path / "kept")
    (again,) = load_edits(tmp_path / "kept")
    assert torch.equal(model.forward(batch, edits=[again], logit_positions=ends)[:, 0], found)
    part = model.forward(batch.rows([3, 4]), edits=[edit.rows(slice(3, 5))], logit_positions=ends[3:5])[:, 0]
    torch.testing.assert_close(part, found[3:5], atol=1e-5, rtol=1e-4)


def test_keys_that_a_query_cannot_see_stay_at_nothing():
    model, batch = toys.model("gqa"), texts(4)
    seen = {}

    def watch(layer):
        seen[layer.index] = layer.pattern.clone()

    model.forward(batch, edits=[Attend("1.2", keys=[0, 2], queries=[1])], watch=watch)
    assert seen[1][:, 2, 1, 0].tolist() == [1.0] * 4
    assert float(seen[1][:, 2, 1, 1:].sum()) == 0


# ---- attention surgery ------------------------------------------------------------------------------------------------
def colors(n: int = 8) -> Batch:
    batch = answers(n)
    places = {f"color{i + 1}": torch.full((n,), i) for i in range(3)}
    return replace(
        batch, positions={**batch.positions, **places}, labels={**batch.labels, "asked": torch.arange(n) % 3}
    )


def test_heads_of_surgery_are_those_that_raise_the_margin_most_by_looking_at_both_wrong_colors():
    model, batch = toys.model("gqa"), colors()
    found = find_intervention("attention-surgery").fit(model, batch, RecipeOptions(pick=2))
    effect = []
    for head in model.heads:
        total = 0.0
        for e in range(len(batch)):
            row, wrong = batch.tokens[e][batch.mask[e]], [i for i in range(3) if i != e % 3]
            with torch.no_grad():
                plain = model.hf(row[None]).logits[0, -1]
            changed = looking(model, row, [head], wrong)
            total += float((changed[20] - changed[50]) - (plain[20] - plain[50]))
        effect.append(total / len(batch))
    best = np.argsort(-np.array(effect))[:2]
    assert set(found.reads) == {model.heads[i] for i in best}
    np.testing.assert_allclose(found.facts["effect"], np.array(effect)[best], atol=1e-3)
    outcome = find_intervention("attention-surgery").measure(model, found, batch, draws=2)
    assert [one.metric for one in outcome.gains] == ["chooses right", "logit margin"]
    with pytest.raises(BadInput, match="no label 'asked'"):
        find_intervention("attention-surgery").fit(model, answers())
    assert attention_surgery._looking(found.reads, batch).keys[0].tolist() == [1, 2]


# ---- safety heads -----------------------------------------------------------------------------------------------------
def test_ships_is_the_divergence_from_the_run_with_even_attention():
    model, batch = toys.model("gqa"), answers(6)
    batch = replace(batch, labels={**batch.labels, "refused": torch.ones(6, dtype=torch.long)})
    found = find_intervention("safety-heads").fit(model, batch, RecipeOptions(pick=8))
    assert set(found.reads) == set(model.heads)
    ships = dict(zip(found.reads, found.facts["ships"], strict=True))
    head = found.reads[0]
    total = 0.0
    for e in range(6):
        row = batch.tokens[e][batch.mask[e]]
        with torch.no_grad():
            plain = model.hf(row[None]).logits[0, -1].double().log_softmax(-1)
        layer = model.layers[head.layer]
        part = slice(head.head * layer.d_value, (head.head + 1) * layer.d_value)
        group = head.head // 2
        seen = {}

        def values(_, __, out, seen=seen, layer=layer, group=group):
            seen["v"] = out[0].unflatten(-1, (-1, layer.d_value))[:, group]

        def change(_, args, seen=seen, part=part):
            z = args[0].clone()
            z[0, :, part] = seen["v"].cumsum(0) / torch.arange(1, len(seen["v"]) + 1)[:, None]
            return (z,)

        handles = [
            layer.module.v_proj.register_forward_hook(values),
            layer.projection.register_forward_pre_hook(change),
        ]
        with torch.no_grad():
            even = model.hf(row[None]).logits[0, -1].double().log_softmax(-1)
        for handle in handles:
            handle.remove()
        total += float((plain.exp() * (plain - even)).sum()) / 6
    assert ships[head] == pytest.approx(total, abs=2e-4)
    clean = safety_heads._first(safety_heads._states(model, batch))
    alone = [
        safety_heads._degrees(
            clean, safety_heads._first(safety_heads._states(model, batch, [safety_heads._even([one])]))
        )
        for one in model.heads
    ]
    assert found.reads[0] == model.heads[int(np.argmax(alone))]
    assert found.facts["degrees"][0] == pytest.approx(max(alone), abs=2e-3)
    with pytest.raises(BadInput, match="no label 'refused'"):
        find_intervention("safety-heads").fit(model, answers())


def test_what_safety_heads_do_is_read_from_one_run_of_either_kind_of_questions(monkeypatch):
    model, words = toys.model("gqa"), answers(8)
    refused = torch.tensor([1, 0] * 4)
    batch = replace(words, labels={**words.labels, "refused": refused})
    recipe, rival = (Recipe("safety-heads", reads=(head,)) for head in model.heads[:2])
    passes = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, *a, **k: (passes.append(1), forward(self, *a, **k))[1])
    found = {one.metric: one for one in safety_heads.gains(model, recipe, batch, [rival])}
    assert (
        len(passes) == 2 + 2 * 3
    )  # two clean runs to diverge from; then without, with, and with the rival, of either kind
    monkeypatch.undo()
    edits = [safety_heads._even(recipe.reads)]
    told = with_clean_run(model, batch.rows(refused.nonzero().flatten()))
    assert found["Ships"].value == pytest.approx(metric_of(model, told, kl, edits=edits).mean())
    lost = metric_of(model, told, log_probability, edits=edits).mean()
    assert found["log-probability of declining"].value == pytest.approx(lost)
    first = int(told.labels["answer"].reshape(-1)[0])
    for name, kind in (("declines", 1), ("declines what is to be answered", 0)):
        part = batch.rows((refused == kind).nonzero().flatten())
        says = [
            int(model.hf(row[mask][None]).logits[0, -1].argmax())
            for row, mask in zip(part.tokens, part.mask, strict=True)
        ]
        assert found[name].base == pytest.approx(np.mean([one == first for one in says]))


def test_the_angle_is_that_of_first_left_singular_vectors_and_nothing_turns_where_nothing_changes():
    model, batch = toys.model("gqa"), answers(6)
    states = safety_heads._states(model, batch)
    seen: list[torch.Tensor] = []
    handle = model.hf.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1]))
    with torch.no_grad():
        for row, mask in zip(batch.tokens, batch.mask, strict=True):
            model.hf(row[mask][None])
    handle.remove()
    torch.testing.assert_close(states, torch.stack(seen).double(), atol=1e-4, rtol=1e-3)
    one = safety_heads._first(states)
    assert safety_heads._degrees(one, one) == pytest.approx(0, abs=1e-3)
    assert safety_heads._degrees(torch.tensor([1.0, 0]), torch.tensor([1.0, 1]) / 2**0.5) == pytest.approx(45, abs=1e-3)


def test_prompts_of_safety_are_harmless_and_say_what_is_declined():
    words = toys.smollm2_vocabulary()
    batch = safety_heads.prompts(words, 6, np.random.default_rng(0), "find")
    for e in range(12):
        text = words.decode(batch.tokens[e][batch.mask[e]].tolist())
        assert text.endswith("A: I cannot help.") == bool(batch.labels["refused"][e])
        assert text.startswith(f"{words.decode([words.bos]) if words.bos is not None else ''}Rule: talk about")


# ---- NASA -------------------------------------------------------------------------------------------------------------
def yes_no(n: int = 24) -> Batch:
    batch = texts(n)
    yes = batch.labels["label"]
    first = torch.zeros(n, dtype=torch.long)
    labels = {
        "yes": yes,
        "yes_first": first,
        "answer": torch.where(yes == 1, 20, 50),
        "wrong": torch.where(yes == 1, 50, 20),
    }
    return replace(batch, labels=labels, positions={**batch.positions, "yes": first, "no": first + 1})


def test_the_gap_is_that_of_precision_and_recall_and_its_pseudo_values_are_of_the_jackknife():
    asked = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    said = np.array([1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert nasa._gap(said, asked) == pytest.approx(1 / 2 - 1 / 4)
    assert nasa._gap(said & False, asked) == 1
    batch = Batch(
        torch.zeros(8, 1, dtype=torch.long),
        torch.ones(8, 1, dtype=torch.bool),
        {},
        labels={"yes": torch.tensor(asked).long()},
    )
    values = nasa._jackknife(np.where(said == asked, 1.0, -1.0), batch)
    for i in range(8):
        left = [j for j in range(8) if j != i]
        assert values[i] == pytest.approx(8 * nasa._gap(said, asked) - 7 * nasa._gap(said[left], asked[left]))


def test_only_the_queries_of_the_heads_are_tuned_and_the_weights_stay():
    model, batch = toys.model("gqa"), yes_no()
    before = model.fingerprint()
    found = find_intervention("nasa").fit(model, batch, RecipeOptions(heads="1.1 0.2", steps=6, rate=0.05, draws=1))
    assert model.fingerprint() == before
    assert set(found.query) <= {HeadId(1, 1), HeadId(0, 2)}
    assert found.changes == [str(head) for head in sorted(found.query)]
    learn_on, _ = held_back(batch, 0)
    plain = metric_of(model, learn_on, logit_margin).mean()
    with found.tuned(model):
        assert metric_of(model, learn_on, logit_margin).mean() > plain
    twin = toys.llama()  # the same weights, changed in place
    twin.load_state_dict(model.hf.state_dict())
    for head, value in found.query.items():
        twin.model.layers[head.layer].self_attn.q_proj.weight.data[head.head * 8 : head.head * 8 + 8] += value
    ids = batch.tokens[:2, :4]
    with found.on(model) as hf, torch.no_grad():
        torch.testing.assert_close(hf(ids).logits, twin(ids).logits, atol=1e-5, rtol=1e-4)
    assert len(found.rivals[0].query) == len(found.query)
    with pytest.raises(BadInput, match="no label 'yes'"):
        find_intervention("nasa").fit(model, answers())


def test_a_model_without_a_query_projection_is_refused():
    from headatlas.errors import UnsupportedModel

    with pytest.raises(UnsupportedModel, match="no weights of their own"), added_to_queries(toys.model("gpt2"), HeadId(0, 0), torch.zeros(8, 32)):  # fmt: skip
        pass
