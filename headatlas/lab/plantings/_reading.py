"""Vocabularies for the bundled passages."""

from __future__ import annotations

import functools
import re
from collections import Counter

from headatlas.lab.construct.words import PIECES, Words, words_of
from headatlas.tasks._passages import passages

LEARNED = 640  # tokens of the vocabulary of pieces
OFTENER = 5  # times as often in one half of the registers as in the other
COMMON = 200  # words that all registers may use, in the vocabulary of registers


@functools.cache
def vocabulary_of_pieces() -> Words:
    """Words and pieces of words, learned from the passages; later pieces are the class "pieces"."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = [text for found in passages().values() for text in found]
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=LEARNED, show_progress=False))
    ids = backend.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    return words_of([], more=tokens, classes={"pieces": [token for token in tokens if token.startswith("##")]})


@functools.cache
def vocabulary_of_registers() -> Words:
    """The commonest words of the passages, and the class "busy": words that half of the registers use, and the others hardly ever.

    Busy words come twice or more. All others are unknown words: a vocabulary of every word would take minutes to lay out.
    """
    pools = [[word for text in pool for word in re.findall(PIECES, text)] for pool in passages().values()]
    first, second = (Counter(word for pool in pools[start::2] for word in pool) for start in (0, 1))
    busy = [word for word, count in first.items() if count > 1 and count >= OFTENER * second[word]]
    common = [word for word, _ in (first + second).most_common(COMMON)]
    return words_of([], more=common, classes={"busy": busy})
