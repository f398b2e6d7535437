"""Name movers and their relatives: found where they are planted, worked out again by hand, and true of a real model."""

from pathlib import Path

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.detectors._measures.name_movers import (
    MINIMUM_EFFECT,
    attention_to,
    effects_by_name,
    name_mover_scores,
    negative_name_mover_scores,
)
from headatlas.detectors.backup_name_mover import _growth, _WithoutMovers
from headatlas.detectors.copy_suppression import copy_suppression, wrong_repeats
from headatlas.detectors.s_inhibition import _inhibition
from headatlas.edits import OnHeads, Resample, collect
from headatlas.heads import HeadId
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.lab.grid import model_of
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.weights.copying import copy_scores, tokens_of
from headatlas.model import Model, attach
from headatlas.scores import HeadScores
from headatlas.task import Batch, logit_difference
from headatlas.tasks.acronyms import SLOTS, acronyms
from headatlas.tasks.ioi import ioi
from headatlas.tasks.prose import prose
from tests import toys

INHIBITION, MOVER, NEGATIVE = HeadId(1, 0), HeadId(2, 2), HeadId(3, 1)
CIRCUIT = (
    Head(0, 0, "duplicate"),
    Head(1, 0, "inhibition", finds="duplicate"),
    Head(2, 2, "mover"),
    Head(3, 1, "copy-suppression", write=0.5),
)


def planted(architecture: str, heads: tuple[Head, ...] = CIRCUIT) -> PlantedModel:
    return plant(PlantSpec(heads), architecture=architecture, n_layers=4, n_heads=4)


def names_batch(one: PlantedModel, n: int = 24, seed: int = 0) -> Batch:
    """Then, X and Y went to the store. Z gave a ring to: IOI prompts in the words of a planted model."""
    place = {token: i for i, token in enumerate(one.words.tokens)}
    generator = torch.Generator().manual_seed(seed)
    text = ["Then", ",", "X", "and", "Y", "went", "to", "the", "store", ".", "Z", "gave", "a", "ring", "to"]
    rows, others, controls, answers, wrongs, io, s1 = [], [], [], [], [], [], []
    for example in range(n):
        a, b, x, y, z = (
            one.words.names[i] for i in torch.randperm(len(one.words.names), generator=generator)[:5].tolist()
        )

        def row(first: int, second: int, third: int) -> list[int]:
            filled = place | {"X": first, "Y": second, "Z": third}
            return [one.words.bos, *(filled[word] for word in text)]

        first, second = (a, b) if example % 2 else (b, a)
        rows.append(row(first, second, b))
        controls.append(row(first, second, z))
        others.append(row(x, y, z))
        answers.append(a)
        wrongs.append(b)
        io.append(3 if example % 2 else 5)
        s1.append(5 if example % 2 else 3)
    mask = torch.ones(n, len(text) + 1, dtype=torch.bool)
    at = {"io": torch.tensor(io), "s1": torch.tensor(s1), "s2": torch.full((n,), 11), "end": torch.full((n,), 15)}
    labels = {"answer": torch.tensor(answers), "wrong": torch.tensor(wrongs)}
    return Batch(
        torch.tensor(rows), mask, at, labels=labels,
        control=Batch(torch.tensor(controls), mask, at, labels=labels),
        counterfactual=Batch(torch.tensor(others), mask, at),
    )  # fmt: skip


def observed(scores: HeadScores, minimum: float = MINIMUM_EFFECT) -> list[HeadId]:
    return [line.head for line in scores.observed(minimum)]


def test_the_planted_mover_its_inhibitor_and_its_opponent_are_told_apart():
    one = planted("llama")
    model, batch = attach(one.model.double()), names_batch(one)
    assert observed(name_mover_scores(model, batch)) == [MOVER]
    assert observed(negative_name_mover_scores(model, batch)) == [NEGATIVE]
    scores = HeadScores(model.heads, *_inhibition(model, batch, (MOVER,), (NEGATIVE,)))
    assert observed(scores, find_detector("s-inhibition").minimum_effect) == [INHIBITION]


def test_a_mover_that_nobody_tells_whom_to_name_is_no_name_mover():
    one = planted("llama", (Head(0, 0, "duplicate"), Head(2, 2, "mover")))
    scores = name_mover_scores(attach(one.model.double()), names_batch(one))
    assert observed(scores) == []


@pytest.mark.parametrize("make", [lambda hf: untrained(hf.config), weight_shuffled], ids=["untrained", "shuffled"])
def test_nothing_is_observed_without_structure(make):
    one = planted("llama")
    model, batch = attach(make(one.model).double()), names_batch(one, n=32)
    assert observed(name_mover_scores(model, batch)) == []
    assert observed(negative_name_mover_scores(model, batch)) == []


def by_hand(hf, batch: Batch, direction: torch.Tensor) -> torch.Tensor:
    """[example, head, key] what heads of a plain llama write at the end, by key, along directions [example, d_model] of logits."""
    kept: dict = {}
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, out, i=i: kept.update({i: out}))
        for i, layer in enumerate(hf.model.layers)
    ]
    hooks.append(hf.model.norm.register_forward_pre_hook(lambda _, args: kept.update(final=args[0])))
    with torch.no_grad():
        patterns = hf(input_ids=batch.tokens, attention_mask=batch.mask.long(), output_attentions=True).attentions
    for hook in hooks:
        hook.remove()
    rows, end = torch.arange(len(batch)), batch.positions["end"]
    final = kept["final"][rows, end]
    rms = (final.pow(2).mean(-1, keepdim=True) + hf.model.norm.variance_epsilon).sqrt()
    direction = direction * hf.model.norm.weight / rms
    parts = []
    for i, layer in enumerate(hf.model.layers):
        values = kept[i].unflatten(-1, (2, 8)).repeat_interleave(2, 2)  # [example, key, head, d]
        out = layer.self_attn.o_proj.weight.unflatten(1, (4, 8))  # [d_model, head, d]
        along = torch.einsum("ekhd,mhd,em->ehk", values, out, direction)
        parts.append(along * patterns[i][rows, :, end])
    return torch.cat(parts, 1).detach()


def test_effects_by_name_equal_those_worked_out_on_the_plain_model():
    hf, batch = toys.llama(attn_implementation="eager"), toy_batch()
    unembedding = hf.lm_head.weight
    along = by_hand(hf, batch, unembedding[batch.answer] - unembedding[batch.wrong])
    rows = torch.arange(len(batch))
    io, s1, s2 = (along[rows, :, batch.positions[name]] for name in ("io", "s1", "s2"))
    found = effects_by_name(attach(hf), batch)
    np.testing.assert_allclose(found.io, io, atol=1e-5)
    np.testing.assert_allclose(found.s, s1 + s2, atol=1e-5)


def test_letters_taken_from_words_equal_those_worked_out_on_the_plain_model(monkeypatch):
    from headatlas.detectors import letter_mover as module

    monkeypatch.setattr(module, "effect_unit", lambda _: 1.0)  # in logits: this model knows no letters
    words = toys.smollm2_vocabulary()
    hf = toys.llama(vocab_size=49152, max_position_embeddings=512, attn_implementation="eager")
    batch = acronyms(words, 6, 0)
    letters = {words.decode(one).strip(): one for one in [int(batch.answer[0]), *batch.wrong[0].tolist()]}
    every = torch.tensor(list(letters.values()))
    rows = torch.arange(len(batch))
    taken = []
    for slot in range(3):
        places = batch.positions[SLOTS[slot]].reshape(len(batch), -1)
        text = [
            words.decode([int(t) for t in row[at[at >= 0]]]).strip()
            for row, at in zip(batch.tokens, places, strict=True)
        ]
        own = torch.tensor([letters[word[0]] for word in text])
        unembedding = hf.lm_head.weight
        rest = (unembedding[every].sum(0) - unembedding[own]) / 25
        along = by_hand(hf, batch, unembedding[own] - rest)
        taken.append(sum(along[rows, :, at.clamp(min=0)] * (at >= 0)[:, None] for at in places.T))
    each = torch.stack(taken)  # [slot, example, head]
    asked = batch.labels["letter"].reshape(-1)
    own = each[asked, rows]
    others = (each.sum(0) - own) / 2
    found = module.letter_mover.measure(attach(hf, tokenizer=words), batch)
    np.testing.assert_allclose(found.values, own, atol=1e-5)
    np.testing.assert_allclose(found.control, others - others.mean(0).clamp(max=0), atol=1e-5)
    assert float(own.abs().max()) > 1e-3


def toy_batch(n: int = 6) -> Batch:
    tokens = torch.randint(5, 150, (n, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    at = {name: torch.full((n,), i) for name, i in {"io": 2, "s1": 4, "s2": 8, "end": 11}.items()}
    labels = {"answer": tokens[:, 2], "wrong": tokens[:, 4]}
    other = torch.randint(5, 150, (n, 12), generator=torch.Generator().manual_seed(2))
    return Batch(tokens, mask, at, labels=labels, counterfactual=Batch(other, mask, at))


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "gpt2", "window", "softcap"])
def test_the_direct_path_of_heads_is_that_of_path_patching(kind: str):
    model, batch = toys.model(kind), toy_batch()
    heads = (model.heads[1], model.heads[-1])
    path = DirectPath(model, batch, logit_difference)
    found = path_patch(model, batch, [heads], ["logits"], positions="end")
    np.testing.assert_allclose(path.clean, found.base, atol=1e-5)
    np.testing.assert_allclose(path.metric_drop(heads), (found.base[:, None, None] - found.values)[:, 0, 0], atol=1e-5)


def test_knocked_out_heads_have_no_growth_and_heads_below_them_do_not_grow():
    one = planted("llama")
    model, batch = attach(one.model.double()), names_batch(one)
    values, _ = _growth(model, batch, (MOVER,), (NEGATIVE,))
    assert np.isnan(values[:, model.heads.index(MOVER)]).all()
    others = np.delete(values, model.heads.index(MOVER), 1)
    assert np.abs(others).max() < MINIMUM_EFFECT  # nobody stands in for it in this model


def test_scores_are_of_the_weights_of_now():
    """Of a model that was trained on since it was asked about the same prompts."""
    hf, words = toys.llama(vocab_size=49152), toys.smollm2_vocabulary()
    model, batch = attach(hf, tokenizer=words), ioi(words, 8, 0)
    before = name_mover_scores(model, batch).values
    with torch.no_grad():
        for weight in hf.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    fresh = toys.llama(vocab_size=49152)
    fresh.load_state_dict(hf.state_dict())
    found = name_mover_scores(model, batch).values
    np.testing.assert_allclose(found, name_mover_scores(attach(fresh, tokenizer=words), batch).values, atol=1e-4)
    assert not np.allclose(found, before, atol=1e-2)


def test_the_planted_suppressor_is_found_and_one_of_repeats_is_not():
    heads = (
        Head(0, 0, "previous"),
        Head(1, 0, "induction"),
        Head(2, 1, "repeat-suppression"),
        Head(3, 1, "copy-suppression", write=0.5),
    )
    model = model_of(
        plant(PlantSpec(heads), architecture="llama", n_layers=4, n_heads=4, width=256, vocab=256, context=160)
    )
    found = copy_suppression.measure(model, prose(model.tokenizer, 16, 0))
    scores = HeadScores(model.heads, found.values.numpy(), found.control.numpy())
    assert observed(scores, copy_suppression.minimum_effect) == [HeadId(3, 1)]


def test_without_movers_and_without_them_and_others_are_two_plain_runs():
    model, batch = toys.model("gqa"), toy_batch()
    gone, more = model.heads[1], model.heads[5]
    found = _WithoutMovers(model, batch, logit_difference, [gone]).metric_drop([more])
    values = collect(model, batch.counterfactual, OnHeads(model.heads))
    scores = []
    for heads in ([gone], [gone, more]):
        edit = Resample(heads, values, positions=batch.positions["end"][:, None])
        logits = model.forward(batch, edits=[edit], logit_positions=logit_difference.positions(batch))
        scores.append(logit_difference.score(logits, batch).double().numpy())
    np.testing.assert_allclose(found, scores[0] - scores[1], atol=1e-5)


def test_wrong_repeats_are_tokens_of_the_text_that_do_not_come_next():
    tokens = torch.tensor([[1, 5, 6, 5, 7]])
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": torch.tensor([[2, 3]])})
    logits = torch.randn(1, 2, 10, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)[0]
    expected = (p[0, 6].log() + (p[1, 5] + p[1, 6]).log()) / 2  # 5 does come next after the first place
    assert wrong_repeats.score(logits, batch).item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_model_without_training_has_no_such_head_in_a_whole_run(tmp_path: Path):
    model = attach(toys.llama(vocab_size=49152, max_position_embeddings=512), tokenizer=toys.smollm2_vocabulary())
    names = [
        "name-mover",
        "negative-name-mover",
        "backup-name-mover",
        "s-inhibition",
        "letter-mover",
        "copy-suppression",
    ]
    atlas = ha.mine(model, names, n=8, out=tmp_path / "run")
    assert [found["name"] for found in atlas.data["detectors"]] == sorted(names)
    assert all(found["heads"] == [] for found in atlas.data["detectors"])


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return ha.load("smollm2-135m")


@pytest.mark.slow
def test_names_are_copied_and_suppressed_by_the_known_heads(smollm2: Model):
    near = [head for head in smollm2.heads if head.layer in (23, 24)]
    copying, negative = copy_scores(smollm2, tokens_of(smollm2.tokenizer), heads=near)
    score = {str(line.head): line.score for line in copying.summary()}
    against = {str(line.head): line.score for line in negative.summary()}
    assert min(score[head] for head in ("23.2", "23.0", "24.5")) > 0.9
    assert min(against[head] for head in ("23.3", "24.4")) > 0.9
    assert max(value for head, value in against.items() if head not in ("23.3", "24.4")) < 0.2


@pytest.mark.slow
def test_movers_and_opponents_of_the_real_model_are_the_same_for_two_draws(smollm2: Model):
    batches = [ioi(smollm2.tokenizer, 64, seed) for seed in (0, 1)]
    movers = [set(map(str, observed(name_mover_scores(smollm2, batch)))) for batch in batches]
    opponents = [set(map(str, observed(negative_name_mover_scores(smollm2, batch)))) for batch in batches]
    assert {"23.0", "23.2"} <= movers[0] & movers[1]
    assert len(movers[0] & movers[1]) >= len(movers[0] | movers[1]) / 2
    assert opponents[0] == opponents[1] == {"23.3", "24.4"}
    attention = attention_to(smollm2, batches[0], ("io", "s1", "s2")).mean(0)
    io, s1, s2 = attention[[smollm2.heads.index(HeadId.parse(head)) for head in ("23.0", "23.2")]].unbind(1)
    assert bool((io > s1 + s2).all())


@pytest.mark.slow
def test_heads_that_read_the_second_name_steer_the_movers_of_the_real_model(smollm2: Model):
    found = find_detector("s-inhibition").measure(smollm2, ioi(smollm2.tokenizer, 32, 0))
    scores = HeadScores(smollm2.heads, found.values.numpy(), found.control.numpy())
    assert [str(head) for head in observed(scores, 0.01)][:2] == ["20.0", "19.2"]


@pytest.mark.slow
def test_letters_are_moved_by_heads_of_a_model_that_spells_acronyms():
    model, detector = ha.load("gemma3-270m"), find_detector("letter-mover")
    found = detector.measure(model, detector.task(model.tokenizer, 32, 0))
    scores = HeadScores(model.heads, found.values.numpy(), found.control.numpy())
    assert {"11.2", "12.1"} <= {str(head) for head in observed(scores)}
