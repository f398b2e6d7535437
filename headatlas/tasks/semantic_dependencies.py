"""Sentences with known dependencies: a word, one that depends on it, and others of the sentence. Ren et al. 2024."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from headatlas.task import Batch, Vocabulary, halves
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, halved, shuffled
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.sentences import ROOT, Sentence

RELATIONS = ("nsubj", "obj", "amod", "nmod")
SENTENCES = 600  # that are made, half of them for testing
OTHERS = 3
CONTENT = ("nsubj", "obj", "amod", "nmod", "obl", "compound", "advmod", "iobj", "root")


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The doctors are held by every soldier 's young man.": what depends on "man" is "young".

    Sentences of the built-in grammar, with four relations in turn (label relation: the place in facts["relations"]). Positions: head (all
    tokens of the word that another depends on; head_last its last), tail (the first of the word that does), other (of three other words of the sentence),
    end. No metric: a sentence asks nothing. Counterfactual and control: the sentence's words in two other orders.
    """
    sentences = halved(_sentences(), half)
    sources = [iter(_examples(tokenizer, sentences, number, rng, family)) for number in range(len(RELATIONS))]
    return collect(
        "semantic-dependencies",
        tokenizer,
        n,
        sources,
        words=("tail",),
        spans=("head",),
        half=half,
        relations=list(RELATIONS),
    )


@functools.cache
def _sentences() -> tuple[Sentence, ...]:
    return tuple(generated_sentences(SENTENCES, 0))


def _examples(
    tokenizer: Vocabulary, sentences: list[Sentence], number: int, rng: np.random.Generator, family: str
) -> Iterator[Example]:
    """Each sentence with a dependency of one relation, once."""
    for one in shuffled(sentences, rng):
        content = [i for i, label in enumerate(one.relations) if label.split(":")[0] in CONTENT]
        found = [i for i in content if one.relations[i].split(":")[0] == RELATIONS[number] and one.heads[i] != ROOT]
        if not found:
            continue
        tail = int(rng.choice(found))
        head = one.heads[tail]
        others = shuffled([i for i in content if i not in (tail, head) and one.words[i] != one.words[tail]], rng)[
            :OTHERS
        ]
        if len(others) < OTHERS or head == len(one.words) - 1:
            continue
        roles = {head: "head", tail: "tail", **dict.fromkeys(others, "other")}
        pieces = [Piece(f" {word}", roles.get(i, "")) for i, word in enumerate(one.words)]
        front = [] if family == FIRST else [Piece("He wrote:")]
        last = pieces.pop()  # its full stop
        answer, wrong = ([tokenizer.encode(f" {one.words[i]}")[0] for i in group] for group in ([tail], others))
        prompts = [[*front, *order, last] for order in (pieces, shuffled(pieces, rng), shuffled(pieces, rng))]
        yield Example(prompts, answer, wrong, {"relation": number})


semantic_dependencies, semantic_dependencies_held_out = halves(
    "semantic-dependencies",
    _build,
    metric=None,
    version=1,
    second="The sentences as what somebody wrote.",
)
