"""Vocabularies for the bundled passages."""

from __future__ import annotations

import functools

from headatlas.lab.construct.words import Words, words_of
from headatlas.tasks._passages import passages

PIECES = 640  # tokens of the vocabulary of pieces


@functools.cache
def vocabulary_of_pieces() -> Words:
    """Words and pieces of words, learned from the passages; later pieces are the class "pieces"."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = [text for found in passages().values() for text in found]
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\W\d_]+|\d|_|[^\w\s]"), behavior="removed", invert=True)
    backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=PIECES, show_progress=False))
    ids = backend.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    return words_of([], more=tokens, classes={"pieces": [token for token in tokens if token.startswith("##")]})


@functools.cache
def vocabulary_of_registers(size: int = 1000) -> Words:
    """The commonest words of the passages; the class "busy": words of half of the registers that the others seldom use."""
    pools = list(passages().values())
    halves = [[text for pool in pools[start::2] for text in pool] for start in (0, 1)]
    first, second = (words_of(half).tokens for half in halves)
    return words_of([text for half in halves for text in half], classes={"busy": [one for one in first if one not in second]})
