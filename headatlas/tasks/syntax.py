"""Sentences of the built-in grammar with gold dependencies, constituents and coreference: what heads do with syntax."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from headatlas.task import Batch, Vocabulary, next_token_loss, task
from headatlas.tasks._sentences import batch_of, rows_of
from headatlas.treebanks.grammar import Grammar, spelled, with_stop
from headatlas.treebanks.sentences import Sentence


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Sentences of the same grammar in small letters, with semicolons in place of full stops."""
    return _built(tokenizer, n, rng, plain=True)


@task(metric=next_token_loss, version=1, margin=0.3, second=_second)
def syntax(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] and sentences of the grammar, one behind the other, up to 128 tokens; loss is counted from the sixteenth token on.

    Words are tokenized one by one; the last sentence is cut and has no gold syntax. Control: the same words in random order.
    """
    return _built(tokenizer, n, rng, plain=False)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, *, plain: bool) -> Batch:
    return batch_of(tokenizer, rows_of(tokenizer, _sentences(rng, plain), n, "syntax"), rng)


def _sentences(rng: np.random.Generator, plain: bool) -> Iterator[Sentence]:
    grammar = Grammar(rng)
    for number in itertools.count():
        # Every third is one with a pronoun, of which a text would have too few else.
        phrase = grammar.sentence() if number % 3 else with_stop(grammar.coreferent())
        found = spelled(phrase)
        if len(found.words) <= 24:
            yield _lowered(found) if plain else found


def _lowered(one: Sentence) -> Sentence:
    """The sentence in small letters, a semicolon in place of its full stop."""
    words = [word.lower() for word in one.words[:-1]]
    return replace(one, words=(*words, ";"))
