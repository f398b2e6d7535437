"""From tokens to words: sentences as batches, and attention between tokens as attention between words.

Clark et al. 2019, section 4: the weight on a split word is the sum over its pieces, the row of a split word the mean over
its pieces' rows; rows still sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headatlas.errors import BadInput, UnfitTask
from headatlas.model.core.view import LayerView
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.task import Batch, edges
from headatlas.task.batch import complete
from headatlas.treebanks.sentences import Sentence


class WordEncoder:
    """The ids of each word alone, with the space before it where there is one, so that no token lies in two words.

    Texts repeat their words, so each is encoded once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, bool], list[int]] = {}
        alone = tokenizer.encode("a")
        # Some tokenizers put a space before every text by themselves: there a word alone is the spaced one.
        self._adds_space = alone != tokenizer.encode(" a") and tokenizer.pieces(alone)[0].startswith(" ")
        self._letter = alone

    def __call__(self, sentence: Sentence) -> list[list[int]]:
        """The ids of each word of a sentence."""
        before = (False, *sentence.spaces[:-1])
        return [self._ids(word, space) for word, space in zip(sentence.words, before, strict=True)]

    def _ids(self, word: str, space: bool) -> list[int]:
        found = self._known.get((word, space))
        if found is None:
            found = self._known[word, space] = self._encoded(word, space)
        return found

    def _encoded(self, word: str, space: bool) -> list[int]:
        encode = self._tokenizer.encode
        if not self._adds_space:
            return encode(" " + word if space else word)
        if space:
            return encode(word)
        joined, n = encode("a" + word), len(self._letter)  # without a space a word follows something: a letter
        return joined[n:] if joined[:n] == self._letter and len(joined) > n else encode(word)


def seen_keys(layer: LayerView) -> Tensor:
    """[example, query, key] bool: which keys each query can attend to."""
    places = torch.arange(layer.n_queries, device=layer.q.device)
    order = places[:, None] >= places if layer.causal else torch.ones_like(places[:, None] >= places)
    return layer.valid_keys[:, None] & order


def word_maps(pattern: Tensor, word: Tensor, n: int, rows: str = "mean") -> Tensor:
    """Attention between tokens, [example, head, query, key], as attention between `n` words, [example, head, word, word].

    word [example, pos]: which word a token belongs to, -1 for none. rows: see `WordBatch.maps`.
    """
    places = torch.arange(n, device=pattern.device)
    pieces = (word.to(pattern.device)[:, None, :] == places[:, None]).float()  # [example, word, pos]
    queries = pieces / pieces.sum(-1, keepdim=True).clamp(min=1)
    if rows == "last":
        order = torch.arange(pieces.shape[-1], device=pieces.device)
        last = torch.where(pieces > 0, order, -1).amax(-1, keepdim=True)
        queries = ((order == last) & (pieces > 0)).float()
    return queries[:, None] @ pattern @ pieces[:, None].transpose(-1, -2)


@dataclass(frozen=True)
class WordBatch:
    """Sentences of a batch with the places of their words.

    sentences: in the order of the rows. word [example, pos]: which word a token belongs to, -1 for start, end and padding.
    valid [example, word]: False past a sentence's last word. index: where each sentence stands in the list that was given.
    """

    batch: Batch
    sentences: tuple[Sentence, ...]
    index: tuple[int, ...]
    word: Tensor
    valid: Tensor

    def maps(self, layer: LayerView, rows: str = "mean") -> Tensor:
        """Attention from word to word, [example, head, word, word], in float32; tokens that are no words are left out.

        rows: "mean" over a split word's pieces, or "last" piece: in a causal model the first does not see the others.
        """
        pattern = layer.pattern.float()
        if torch.equal(self.word, self._whole):  # every word is one token: only start, end and padding are cut off
            n = self.valid.shape[1]
            first = int(self._first)
            found = pattern[:, :, first : first + n, first : first + n]
            return found * (self.valid[:, None, :, None] & self.valid[:, None, None, :])
        return word_maps(pattern, self.word, self.valid.shape[1], rows)

    @property
    def _first(self) -> Tensor:
        """The first token that is a piece of a word: the same in all rows."""
        return (self.word[0] >= 0).long().argmax()

    @property
    def _whole(self) -> Tensor:
        """What `word` is where every word is one token."""
        n, length = self.word.shape
        order = torch.arange(length).expand(n, -1) - self._first
        return torch.where((order >= 0) & (order < self.valid.sum(1, keepdim=True)), order, -1)


def batches(
    tokenizer: Tokenizer, sentences: Sequence[Sentence], *, tokens: int = 2048, special: bool = True
) -> tuple[list[WordBatch], list[str]]:
    """Sentences of like length as batches of about `tokens` tokens, and the names of those that were left out.

    Left out: sentences longer than the model's context, and such with a word that the tokenizer gives no token for.
    special: whether start and end tokens stand around them. Raises UnfitTask for a model without a tokenizer, BadInput where
    no sentence is left.
    """
    if not tokenizer.has_text:
        raise UnfitTask("The model has no tokenizer, so its tokens cannot be told as words.")
    front, back = edges(tokenizer) if special else ((), ())
    ready: list[tuple[int, list[list[int]]]] = []
    out, encode = [], WordEncoder(tokenizer)
    for number, sentence in enumerate(sentences):
        ids = encode(sentence)
        if not all(ids) or sum(map(len, ids)) + len(front) + len(back) > tokenizer.context:
            out.append(sentence.name or f"sentence {number + 1}")
        else:
            ready.append((number, ids))
    if not ready:
        raise BadInput("No sentence is left: each is longer than the model's context, or has a word without a token.")
    ready.sort(key=lambda one: sum(map(len, one[1])))
    return [
        _built(tokenizer, sentences, part, front, back, special)
        for part in _parts(ready, tokens, len(front) + len(back))
    ], out


def _parts(
    ready: list[tuple[int, list[list[int]]]], tokens: int, around: int
) -> Iterator[list[tuple[int, list[list[int]]]]]:
    part: list[tuple[int, list[list[int]]]] = []
    for one in ready:  # the longest so far comes last
        width = sum(map(len, one[1])) + around
        if part and width * (len(part) + 1) > tokens:
            yield part
            part = []
        part.append(one)
    yield part


def _built(
    tokenizer: Tokenizer,
    sentences: Sequence[Sentence],
    part: list[tuple[int, list[list[int]]]],
    front: tuple[int, ...],
    back: tuple[int, ...],
    special: bool,
) -> WordBatch:
    texts = [[*front, *(one for word in ids for one in word), *back] for _, ids in part]
    length = max(map(len, texts))
    tokens = torch.zeros(len(part), length, dtype=torch.long)
    mask = torch.zeros(len(part), length, dtype=torch.bool)
    word = torch.full((len(part), length), -1)
    valid = torch.zeros(len(part), max(len(ids) for _, ids in part), dtype=torch.bool)
    for row, (text, (_, ids)) in enumerate(zip(texts, part, strict=True)):
        tokens[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), True
        places = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor([len(one) for one in ids]))
        word[row, len(front) : len(front) + len(places)] = places
        valid[row, : len(ids)] = True
    batch = Batch(tokens, mask)
    chosen = tuple(sentences[number] for number, _ in part)
    return WordBatch(
        complete(batch, tokenizer) if special else batch, chosen, tuple(number for number, _ in part), word, valid
    )
