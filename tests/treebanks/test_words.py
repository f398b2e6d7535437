"""Attention from token to token as attention from word to word, against sums and means written out."""

import pytest
import torch

from headatlas.errors import BadInput
from headatlas.model import attach
from headatlas.treebanks.sentences import Sentence
from headatlas.treebanks.words import WordEncoder, batches
from tests import toys

LONG = Sentence(("The", "floccinaucinihil", "dog", "isn't", "barking"), (True, True, True, True, False))
SHORT = Sentence(("She", "sings", "."), (True, False, False))


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())


def test_tokens_lie_in_one_word_each(model):
    ids = WordEncoder(model.tokenizer)(LONG)
    assert [model.tokenizer.decode(one) for one in ids] == ["The", " floccinaucinihil", " dog", " isn't", " barking"]
    assert len(ids[1]) > 1
    assert [one for word in ids for one in word] == model.tokenizer.encode(LONG.text)


@pytest.mark.parametrize("rows", ["mean", "last"])
@pytest.mark.parametrize("given", [[LONG, SHORT], [SHORT, SHORT]])
def test_word_maps_against_loops(model, given, rows):
    (part,), left = batches(model.tokenizer, given)
    assert left == []
    seen = []
    model.forward(part.batch, watch=lambda layer: seen.append((layer.pattern.clone(), part.maps(layer, rows).clone())))
    for pattern, maps in seen:
        for e, sentence in enumerate(part.sentences):
            for i in range(len(sentence.words)):
                for j in range(len(sentence.words)):
                    own = [t for t, w in enumerate(part.word[e].tolist()) if w == i]
                    other = [t for t, w in enumerate(part.word[e].tolist()) if w == j]
                    own = own[-1:] if rows == "last" else own
                    expected = sum(pattern[e, :, q][:, other].sum(-1) for q in own) / len(own)
                    assert torch.allclose(maps[e, :, i, j], expected, atol=1e-6)
            n = len(sentence.words)
            assert maps[e, :, n:].abs().sum() == maps[e, :, :, n:].abs().sum() == 0


def test_uniform_pieces_join_as_published():
    """A uniform map of four tokens, the middle two of one word: rows (1/4, 1/2, 1/4)."""
    words = torch.tensor([[0, 1, 1, 2]])
    pieces = (words[:, None] == torch.arange(3)[:, None]).float()
    uniform = torch.full((1, 4, 4), 0.25)
    merged = (pieces / pieces.sum(-1, keepdim=True)) @ uniform @ pieces.transpose(-1, -2)
    assert torch.allclose(merged[0], torch.tensor([0.25, 0.5, 0.25]).expand(3, -1))


def test_sentences_of_all_lengths_are_read_once(model):
    given = [Sentence(("go",) * n, (True,) * n, name=f"s{n}") for n in range(1, 60)]
    parts, left = batches(model.tokenizer, given, tokens=64)
    assert sorted(i for part in parts for i in part.index) == list(range(59))
    assert left == []
    assert all(part.batch.tokens.numel() <= 64 or len(part.sentences) == 1 for part in parts)
    short = model.tokenizer.within(30)
    parts, left = batches(short, given)
    assert left == [f"s{n}" for n in range(30, 60)]
    with pytest.raises(BadInput, match="No sentence is left"):
        batches(short, given[40:])
