"""Detectors that ask where heads attend from the last token, and whom they mislead: against the plain model and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors import vulnerable as vulnerable_module
from headatlas.detectors._measures.from_end import from_end, share_of
from headatlas.lab.planting import find_planting
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.task import Batch, find_task
from tests import toys
from tests.detectors.test_answer_heads import attention_of, observed, untrained


def test_attention_from_the_end_and_its_shares_are_those_of_the_plain_model():
    model = toys.model("gqa")
    tokens = torch.randint(5, 150, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([[12], [9], [10]])
    batch = Batch(tokens, mask, {"end": mask.sum(1) - 1})
    places = torch.tensor([[3, 4], [5, -1], [2, 7]])
    for e, pattern in enumerate(attention_of(model, batch)):
        row = pattern[:, -1]
        torch.testing.assert_close(from_end(model, batch)[e, :, : row.shape[1]], row, atol=1e-5, rtol=1e-4)
        seen = row[:, places[e][places[e] >= 0]].sum(1) / (1 - row[:, 0])
        torch.testing.assert_close(share_of(model, batch, places)[e], seen, atol=1e-4, rtol=1e-3)


def test_failures_are_paired_with_successes_that_ask_for_the_same_letter_and_none_is_used_twice():
    right = np.array([True, False, True, True, False, False, False, True])
    letter = np.array([0, 0, 1, 1, 1, 2, 1, 0])
    ones, others = vulnerable_module._paired(right, letter)
    assert right[ones].all()
    assert not right[others].any()
    assert (letter[ones] == letter[others]).all()
    assert len(set(ones)) == len(ones) == len(set(others)) == 3


def test_a_vulnerable_head_is_for_the_answer_where_the_model_is_right_and_against_it_where_it_is_wrong():
    made = find_planting("vulnerable").make(0)
    pool = find_task("acronyms")(made.model.tokenizer, 96, 5)
    with torch.no_grad():
        logits = made.model.hf(pool.tokens).logits[torch.arange(96), pool.positions["end"]]
    answer = pool.answer.reshape(-1)
    strongest = pool.wrong.gather(1, logits.gather(1, pool.wrong).argmax(1, keepdim=True))[:, 0]
    rows = torch.arange(96)
    margin = logits[rows, answer] - logits[rows, strongest]
    assert 0.05 < float((margin < 0).float().mean()) < 0.5, "one word in five is misread"
    toward = Toward(
        pool.positions["end"],
        torch.stack([answer, strongest], 1),
        torch.tensor([1.0, -1.0]).expand(96, 2),
    )
    values = direct_effects(made.model, pool, toward=toward).values
    (head,) = made.positives
    own = values[:, made.model.heads.index(head)]
    assert own[margin.numpy() > 0].mean() > 0 > own[margin.numpy() < 0].mean()


def test_without_failures_or_without_the_task_nothing_is_said():
    batch = find_task("acronyms")(toys.smollm2_vocabulary(), 8, 0)
    found = find_detector("vulnerable").measure(untrained(), batch)
    assert bool(found.values.isnan().all()), "an untrained model gets nearly all of them wrong"


@pytest.mark.parametrize("name", ["in-context", "direct-effect", "mover"])
def test_an_untrained_model_has_none(name: str):
    model = untrained()
    assert observed(model, name, find_detector(name).task(model.tokenizer, 16, 0)) == set()


def test_examples_of_a_mapping_are_labelled_by_it_and_the_control_follows_none():
    words = toys.smollm2_vocabulary()
    batch = find_task("foo-bar")(words, 8, 0)
    foo = words.single(" foo")
    praise = {word for word in _adjectives("positive") if words.single(f" {word}") is not None}
    for part, follows in ((batch, 1.0), (batch.counterfactual, 0.0), (batch.control, None)):
        shares = []
        for e in range(8):
            shown = [words.decode([one]).strip() for one in part.tokens[e, part.positions["word"][e]].tolist()]
            is_foo = (part.tokens[e, part.positions["label"][e]] == foo).tolist()
            positive_is_foo = not bool(batch.labels["praise_is"][e])
            shares.append(
                np.mean([(word in praise) == (one == positive_is_foo) for word, one in zip(shown, is_foo, strict=True)])
            )
        if follows is None:
            assert max(shares) < 1.0
        else:
            assert set(shares) == {follows}


def _adjectives(kind: str) -> list[str]:
    from headatlas.tasks._prompts import table

    return [word for half in table("movie_review")["adjectives"][kind].values() for word in half]
