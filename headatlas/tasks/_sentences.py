"""Sentences with gold syntax one after the other in one text, as batches: what tokens are of which word, and what is gold of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges
from headatlas.tasks._passages import LENGTH
from headatlas.treebanks.constituents import BASELINES, branching, counted, spoken
from headatlas.treebanks.coreference import anaphors
from headatlas.treebanks.dependencies import best_offsets
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.words import WordEncoder

# Those that the grammar makes often; sub-types that are not named count as their relation.
RELATIONS = (
    "nsubj", "obj", "det", "amod", "advmod", "aux", "cop", "case", "nmod", "nmod:poss", "compound", "compound:prt", "mark",
    "obl", "acl:relcl", "xcomp", "nummod",
)  # fmt: skip
PARSED = 4  # sentences of a text whose trees are asked for: trees are made one by one


def rows_of(
    tokenizer: Vocabulary, sentences: Iterator[Sentence], n: int, name: str
) -> list[tuple[list[list[int]], list[Sentence]]]:
    """`n` texts of one length: the ids of each word, and the sentences that are whole; the last may be cut and is none of them.

    Raises UnfitTask for a model that reads too little, or has no text.
    """
    front, back = edges(tokenizer)
    room = min(LENGTH, tokenizer.context) - len(front) - len(back)
    if room < 40:
        raise UnfitTask(f"{name} needs 40 tokens of text; this model reads {max(room, 0)}.")
    encode: Any = WordEncoder(tokenizer)  # type: ignore[arg-type]  # asks for pieces of text, which no bare vocabulary has
    found = []
    for _ in range(n):
        words: list[list[int]] = []
        whole: list[Sentence] = []
        used = 0
        while used < room:
            sentence = next(sentences)
            # A sentence behind another has a space before its first word: as if a word stood in front of it.
            ahead = Sentence(("", *sentence.words), (bool(words), *sentence.spaces)) if words else sentence
            ids = encode(ahead)[1:] if words else encode(ahead)
            if not all(ids):
                raise UnfitTask(f"{name} has a word that this tokenizer gives no token for.")
            size = sum(map(len, ids))
            if used + size <= room:
                whole.append(sentence)
            words += ids
            used += size
        if not whole:
            raise UnfitTask(f"{name} has sentences that are longer than {room} tokens.")
        found.append((words, whole))
    return found


def batch_of(
    tokenizer: Vocabulary, rows: Sequence[tuple[list[list[int]], list[Sentence]]], rng: np.random.Generator
) -> Batch:
    """Texts as a batch with their gold syntax. Control: the words of each in random order.

    marks["word"]: the word that a token is a piece of; "sentence": the sentence. labels, words counted over the text: `heads`
    and `relation` (number in RELATIONS) [example, word], `sentence` [example, word], `spoken` (no punctuation); of the first
    PARSED sentences `spans` [example, n, 2]; `anaphor`, `antecedent`, `rival` [example, n]. All -1 where there is none.
    facts: `offsets` of relations, for attention to one side and to both, and `branching`, the tree that finds most `spans`.
    """
    front, back = edges(tokenizer)
    length = min(LENGTH, tokenizer.context)
    tokens, mixed, word, of_sentence = [], [], [], []
    for words, whole in rows:
        ids = [token for one in words for token in one]
        order = [token for i in rng.permutation(len(words)) for token in words[i]]
        room = length - len(front) - len(back)
        tokens.append([*front, *ids[:room], *back])
        mixed.append([*front, *order[:room], *back])
        known = sum(len(one.words) for one in whole)
        at = [i if i < known else -1 for i, one in enumerate(words) for _ in one][:room]
        word.append([-1] * len(front) + at + [-1] * len(back))
        starts = [number for number, one in enumerate(whole) for _ in one.words]
        of_sentence.append([-1 if i < 0 else starts[i] for i in word[-1]])
    batch = torch.tensor(tokens)
    predict = {"predict": torch.arange(min(16, length // 3), length - 1).expand(len(rows), -1)}
    mask = torch.ones_like(batch, dtype=torch.bool)
    sentences = [whole for _, whole in rows]
    return Batch(
        batch,
        mask,
        predict,
        {"word": torch.tensor(word), "sentence": torch.tensor(of_sentence)},
        gold(sentences),
        {"offsets": offsets(sentences), "branching": _branching(sentences)},
        control=Batch(torch.tensor(mixed), mask, predict),
    )


def gold(texts: Sequence[Sequence[Sentence]]) -> dict[str, Tensor]:
    """Labels of texts of several sentences, words counted over each text, as `batch_of` describes them."""
    names = ("heads", "relation", "sentence", "spoken", "spans", "anaphor", "antecedent", "rival")
    found: dict[str, list[list[Any]]] = {name: [[] for _ in texts] for name in names}
    for e, whole in enumerate(texts):
        start = 0
        for number, one in enumerate(whole):
            kept, plain = spoken(one)
            found["heads"][e] += [-1 if head == ROOT else head + start for head in one.heads]
            found["relation"][e] += [_number(label) for label in one.relations]
            found["sentence"][e] += [number] * len(one.words)
            found["spoken"][e] += [int(i in kept) for i in range(len(one.words))]
            if number < PARSED:
                found["spans"][e] += [(kept[a] + start, kept[b] + start) for a, b in sorted(counted(plain))]
            for place, earlier, same in anaphors(one):
                found["anaphor"][e].append(place + start)
                found["antecedent"][e].append(earlier[same.index(True)] + start)
                found["rival"][e].append(earlier[same.index(False)] + start)
            start += len(one.words)
    return {name: _padded(rows, 2 if name == "spans" else 0) for name, rows in found.items()}


def _padded(rows: list[list[Any]], width: int) -> Tensor:
    """Lists of different lengths as one tensor, -1 where one ends; of pairs [example, n, 2]."""
    most = max(1, *map(len, rows))
    empty: Any = (-1,) * width if width else -1
    return torch.tensor([row + [empty] * (most - len(row)) for row in rows])


def _number(label: str) -> int:
    named = label if label in RELATIONS else label.split(":")[0]
    return RELATIONS.index(named) if named in RELATIONS else -1


def offsets(texts: Sequence[Sequence[Sentence]]) -> dict[str, list[list[int]]]:
    """[relation][to head, from head] the best fixed offset from a dependent to its head, by which sides attention sees."""
    edges_ = [
        (head - i, [column])
        for one in itertools.chain.from_iterable(texts)
        for i, (label, head) in enumerate(zip(one.relations, one.heads, strict=True))
        if head != ROOT and (column := _number(label)) >= 0
    ]
    return {
        side: best_offsets(edges_, len(RELATIONS), causal=side == "causal")[0][:, :2].tolist()
        for side in ("causal", "bidirectional")
    }


def _branching(texts: Sequence[Sequence[Sentence]]) -> str:
    """Which tree that needs no look at a sentence finds most of its constituents."""
    plain = [spoken(one)[1] for whole in texts for one in whole[:PARSED]]

    def share(kind: str) -> float:
        made = [(branching(len(one.words), kind), counted(one)) for one in plain]
        return float(np.mean([len(tree & gold) / len(gold) for tree, gold in made if gold]))

    return max(BASELINES, key=share)
