"""The IOI task: what the prompts say, where their positions are, what the counterfactual and control change."""

import numpy as np
import pytest
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, logit_difference
from headatlas.tasks._ioi_words import words
from headatlas.tasks.ioi import ioi, ioi_held_out
from tests import toys


@pytest.fixture(scope="module")
def batch() -> Batch:
    return ioi(toys.smollm2_vocabulary(), 30)


def word(token) -> str:
    return toys.smollm2_vocabulary().decode(int(token)).strip()


def text(part: Batch, example: int) -> str:
    return toys.smollm2_vocabulary().decode(part.tokens[example, 1 : int(part.mask[example].sum())].tolist())


def test_thirty_prompts_use_every_wording_once(batch):
    assert sorted(batch.labels["template"].tolist()) == list(range(30))
    assert batch.labels["kind"].tolist() == [0, 1] * 15
    assert len(words()["templates"]["baba"]) == len(words()["templates"]["abba"]) == 15


def test_positions_stand_at_the_names(batch):
    for i in range(30):
        positions = {name: int(value[i]) for name, value in batch.positions.items()}
        token = batch.tokens[i]
        assert token[positions["io"]] == batch.answer[i]
        assert token[positions["s1"]] == token[positions["s2"]] == batch.wrong[i]
        assert positions["s1_next"] == positions["s1"] + 1
        assert positions["s1"] < positions["s2"] < positions["end"] == int(batch.mask[i].sum()) - 1
        assert (positions["io"] < positions["s1"]) == bool(batch.labels["kind"][i])
        assert word(token[positions["end"]]) == "to"
        assert (token == batch.answer[i]).sum() == 1
        assert (token == batch.wrong[i]).sum() == 2


def test_counterfactual_has_three_other_names_and_the_same_words(batch):
    other = batch.counterfactual
    assert torch.equal(other.mask, batch.mask)
    for i in range(30):
        places = [int(batch.positions[name][i]) for name in ("io", "s1", "s2")]
        assert (other.tokens[i] != batch.tokens[i]).nonzero().flatten().tolist() == sorted(places)
        names = {word(other.tokens[i, place]) for place in places}
        assert len(names) == 3
        assert not names & {word(batch.answer[i]), word(batch.wrong[i])}


def test_control_replaces_the_second_naming_only(batch):
    for i in range(30):
        changed = (batch.control.tokens[i] != batch.tokens[i]).nonzero().flatten().tolist()
        assert changed == [int(batch.positions["s2"][i])]
    torch.testing.assert_close(batch.control.answer, batch.answer)


def test_halves_share_no_words():
    held = ioi_held_out(toys.smollm2_vocabulary(), 30)
    found = ioi(toys.smollm2_vocabulary(), 30)
    names = [{word(one) for one in torch.cat([b.answer, b.wrong])} for b in (found, held)]
    assert not names[0] & names[1]
    for kind in ("names", "places", "objects"):
        assert not set(words()[kind]["find"]) & set(words()[kind]["test"])


def test_any_number_and_same_seed_same_prompts():
    vocabulary = toys.smollm2_vocabulary()
    assert len(ioi(vocabulary, 1)) == 1
    assert len(ioi(vocabulary, 77)) == 77
    assert torch.equal(ioi(vocabulary, 4, 5).tokens, ioi(vocabulary, 4, 5).tokens)
    assert not torch.equal(
        ioi(vocabulary, 4, 5).tokens, ioi(vocabulary, 4, 6).tokens[:, : ioi(vocabulary, 4, 5).tokens.shape[1]]
    )


class Splitting:
    """A vocabulary that has only some names as one token."""

    bos, eos, causal, context = 1, None, True, 128

    def __init__(self, known: int) -> None:
        names = [name for half in words()["names"].values() for name in half]
        self.known = {f" {name}": 100 + i for i, name in enumerate(names)}
        self.few = set(words()["names"]["find"][:known])

    def encode(self, text: str) -> list[int]:
        return [self.known.get(f" {piece.strip('.,')}", sum(map(ord, piece)) % 90 + 5) for piece in text.split()]

    def single(self, text: str) -> int | None:
        return self.known[text] if text.strip() in self.few else None


def test_too_few_one_token_names_are_counted():
    with pytest.raises(UnfitTask, match="ioi needs 5 names of one token; this tokenizer has 4 of 70"):
        ioi(Splitting(4), 3)
    made = ioi(Splitting(6), 8)
    used = {int(one) for one in torch.cat([made.answer, made.wrong])}
    assert used <= {100 + i for i in range(6)}


def test_short_contexts_and_encoders_are_unfit():
    vocabulary = toys.smollm2_vocabulary()
    with pytest.raises(UnfitTask, match="this model has 9"):
        ioi(vocabulary.within(9), 3)
    encoder = Splitting(20)
    encoder.causal = False
    with pytest.raises(UnfitTask, match="bidirectional attention"):
        ioi(encoder, 3)


def test_the_metric_prefers_the_answer(batch):
    logits = torch.zeros(30, 1, 49152)
    logits[torch.arange(30), 0, batch.answer] = 2.0
    logits[torch.arange(30), 0, batch.wrong] = -1.0
    np.testing.assert_allclose(logit_difference.score(logits, batch).numpy(), 3.0)
