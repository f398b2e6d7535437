"""Questions beside statements of the same words: what heads make of a question mark."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from headatlas.task import Batch, Vocabulary, next_token_loss, task
from headatlas.tasks._sentences import batch_of, rows_of
from headatlas.treebanks import _lexicon as words
from headatlas.treebanks.grammar import HEAD, Grammar, Phrase, spelled
from headatlas.treebanks.sentences import Sentence


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Questions with modal verbs ("Can the farmer see the lamp?") and such in the past, all with an adjective."""
    return _built(tokenizer, n, rng, modal=True)


@task(metric=next_token_loss, version=1, margin=0.3, second=_second)
def questions(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] and pairs of a statement and the question of the same words, in either order, up to 128 tokens.

    positions: question_query, question_key: each word of a question with its question mark; statement_query, statement_key
    the same of statements and full stops. Control: the same words in random order.
    """
    return _built(tokenizer, n, rng, modal=False)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, *, modal: bool) -> Batch:
    rows = rows_of(tokenizer, _pairs(rng, modal), n, "questions")
    batch, texts = batch_of(tokenizer, rows, rng), [whole for _, whole in rows]
    marks = {**_pointing(batch, texts, "question", "?"), **_pointing(batch, texts, "statement", ".")}
    return replace(batch, positions={**batch.positions, **marks})


def _pairs(rng: np.random.Generator, modal: bool) -> Iterator[Sentence]:
    grammar = Grammar(rng)
    while True:
        who = grammar.noun(person=True, depth=1, bare=True)
        what = grammar.noun(person=False, depth=1, bare=True).phrase
        verb = grammar.pick(words.TRANSITIVE)
        if modal:
            helper = str(grammar.pick(words.MODALS))
            told, asked = Phrase("VP", (("aux", helper), (HEAD, verb[1]), ("obj", what))), helper
        else:
            past = grammar.maybe(0.5)
            told = Phrase("VP", ((HEAD, verb[2] if past else verb[1 if who.plural else 0]), ("obj", what)))
            asked = "did" if past else "do" if who.plural else "does"
        statement = Phrase("S", (("nsubj", who.phrase), (HEAD, told), ("punct", ".")))
        inner = Phrase("VP", ((HEAD, verb[1]), ("obj", what)))
        question = Phrase("SQ", (("aux", asked), ("nsubj", who.phrase), (HEAD, inner), ("punct", "?")))
        both = [statement, question]
        yield from (spelled(both[i]) for i in rng.permutation(2))


def _pointing(batch: Batch, texts: Sequence[Sequence[Sentence]], name: str, mark: str) -> dict[str, Tensor]:
    """Tokens of all sentences that end in `mark`, and beside each the token of its mark; -1 where a text has fewer."""
    pairs = []
    for row, whole in zip(batch.marks["sentence"].tolist(), texts, strict=True):
        ends = [number for number, one in enumerate(whole) if one.words[-1] == mark]
        places = [[i for i, number in enumerate(row) if number == end] for end in ends]
        pairs.append([(query, found[-1]) for found in places for query in found[:-1]])
    columns = list(itertools.zip_longest(*pairs, fillvalue=(-1, -1)))
    both = torch.tensor(columns).transpose(0, 1)  # [example, pair, 2]
    return {f"{name}_query": both[..., 0].contiguous(), f"{name}_key": both[..., 1].contiguous()}
