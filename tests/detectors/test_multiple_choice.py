"""Heads of multiple-choice questions: what is measured is what the plain model does, by its own attention and hidden states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors._measures.multiple_choice import letter_effects, letters, option_tokens
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.task import Batch, find_task
from tests import toys
from tests.detectors.test_answer_heads import attention_of, block_end, observed, reader, scores

PLACES = (3, 6, 9, 12)  # of labels; an option of two tokens behind each


def questions(n: int, seed: int) -> Batch:
    """Made-up questions: token 7 is the right option's label, 8 any other's; the right option begins with 17, others with 18."""
    rng = np.random.default_rng(seed)
    right, elsewhere = torch.arange(n) % 4, torch.from_numpy(rng.integers(0, 4, n))
    at = {"end": torch.full((n,), 16)}
    for i, place in enumerate(PLACES):
        at |= {
            f"label{i + 1}": torch.full((n, 1), place),
            f"option{i + 1}": torch.tensor([[place + 1, place + 2]]).expand(n, -1),
        }
    ids = torch.tensor([9, 10, 11, 12])
    wrong = torch.stack([torch.cat([ids[:one], ids[one + 1 :]]) for one in right.tolist()])
    labels = {"right": right, "labels": torch.zeros(n, dtype=torch.long), "answer": ids[right], "wrong": wrong}

    def made(marked: torch.Tensor, control: Batch | None = None) -> Batch:
        tokens = torch.from_numpy(rng.integers(20, 40, (n, 17)))
        for i, place in enumerate(PLACES):
            tokens[:, place] = torch.where(marked == i, 7, 8)
            tokens[:, place + 1] = torch.where(marked == i, 17, 18)
        return Batch(tokens, torch.ones(n, 17, dtype=torch.bool), at, labels=labels, control=control)

    return made(right, made(elsewhere))


def test_letters_are_the_labels_in_the_order_of_the_options():
    assert letters(questions(8, 0)).tolist() == [[9, 10, 11, 12]] * 8
    words = toys.smollm2_vocabulary()
    batch = find_task("mcqa-4")(words, 8, 0)
    for row, places in zip(
        letters(batch).tolist(), zip(*(batch.positions[f"label{i}"] for i in range(1, 5)), strict=True), strict=True
    ):
        e = [place[place >= 0].tolist() for place in places]
        assert all(len(one) >= 1 for one in e)
        assert len(set(row)) == 4


def test_labels_as_answers_are_those_that_stand_before_the_options():
    words = toys.smollm2_vocabulary()
    batch = find_task("mcqa-4")(words, 12, 3)
    for e, row in enumerate(letters(batch).tolist()):
        for i, answer in enumerate(row):
            place = batch.positions[f"label{i + 1}"][e]
            shown = words.decode(batch.tokens[e, place[place >= 0]].tolist())
            assert shown.strip() == words.decode([answer]).strip()


def test_what_parts_below_a_layer_wrote_is_the_residual_stream_that_enters_it():
    model, batch = toys.model("gqa"), questions(5, 1)
    found, ids = letter_effects(model, batch), torch.tensor([9, 10, 11, 12])
    with torch.no_grad():
        states = model.hf(batch.tokens, output_hidden_states=True).hidden_states
        table = model.hf.lm_head.weight[ids] * model.hf.model.norm.weight
        for e, tokens in enumerate(batch.tokens):
            scale = block_end(model, tokens)
            for layer in range(2):
                logits = states[layer][e, 16] @ table.T * scale
                np.testing.assert_allclose(found.before[e, layer], logits - logits.mean(), atol=1e-4)
        logits = model.hf(batch.tokens).logits[:, 16][:, ids]
    np.testing.assert_allclose(found.total, logits - logits.mean(1, keepdim=True), atol=1e-4)


def test_content_gatherers_are_found_by_eager_attention_to_the_options():
    model, batch = toys.model("gqa"), questions(6, 2)
    wanted = torch.zeros(6, 8)
    for e, pattern in enumerate(attention_of(model, batch)):
        mass = torch.stack([pattern[:, 16, place + 1] + pattern[:, 16, place + 2] for place in PLACES], 1)
        right = torch.arange(4) == batch.labels["right"][e]
        wanted[e] = mass[:, right][:, 0] - mass[:, ~right].mean(1)
    found = find_detector("content-gatherer").measure(model, batch)
    torch.testing.assert_close(found.values, wanted, atol=1e-5, rtol=1e-4)


def test_options_of_several_tokens_count_whole():
    assert option_tokens(questions(2, 0))[0].nonzero().tolist() == [
        [i, place + k] for i, place in enumerate(PLACES) for k in (1, 2)
    ]


@pytest.mark.parametrize(
    ("name", "seen", "found"),
    [
        ("content-gatherer", [[17], [17, 18], [7]], {HeadId(0, 0)}),
        ("correct-letter", [[7], [7, 8], [17]], {HeadId(0, 0)}),
        ("single-letter", [[7], [7, 8], [17]], set()),
    ],
)
def test_a_head_that_looks_at_the_right_place_is_found_and_heads_that_look_elsewhere_are_not(name, seen, found):
    # Every head raises token 9, the label of the first option, by what it looks at.
    model = reader(seen, [1, 1, 1], 64, answer=9)
    assert observed(model, name, _all_answered_alike(questions(16, 0))) == found


def _all_answered_alike(batch: Batch) -> Batch:
    """The right option's label is token 9 in every prompt, whichever place it has."""
    assert batch.control is not None

    def alike(part: Batch, control: Batch | None) -> Batch:
        labels = {
            **part.labels,
            "answer": torch.full((len(part),), 9),
            "wrong": torch.tensor([10, 11, 12]).expand(len(part), -1),
        }
        return Batch(part.tokens, part.mask, part.positions, labels=labels, control=control)

    return alike(batch, alike(batch.control, None))


def test_constant_scores_are_the_least_attention_on_a_label_times_their_number():
    batch = _all_answered_alike(questions(8, 0))
    for seen, constant in (([7, 8], True), ([7], False), ([7, 8, 17, 18], False)):
        model = reader([seen], [1], 64, answer=9)
        line = scores(model, "constant", batch).summary()[0]
        least = torch.stack([pattern[:, 16, list(PLACES)].amin(1) for pattern in attention_of(model, batch)])
        assert line.score == pytest.approx(float(4 * least[:, 0].mean()), abs=1e-5)
        assert (line.excess > 0.3) == constant


def test_correct_heads_are_those_that_write_for_the_right_label_whatever_they_look_at():
    model = reader([[7], [17], [7, 8]], [1, 1, 1], 64, answer=9)
    batch = _all_answered_alike(questions(16, 0))
    assert observed(model, "correct", batch) == set(), (
        "token 9 is raised whatever is right: a constant push, though it fits"
    )


def untrained() -> Model:
    from tests.detectors.test_answer_heads import untrained as made

    return made()


@pytest.mark.parametrize("name", ["content-gatherer", "constant", "single-letter", "amplification", "correct"])
def test_an_untrained_model_has_none(name: str):
    model = untrained()
    assert observed(model, name, find_detector(name).task(model.tokenizer, 16, 0)) == set()
