"""Sentences of the made-up language pair, translated, with gold alignment: for models that know its words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._prompts import lists
from headatlas.tasks._sentences import gold, offsets
from headatlas.tasks._two_stacks import paired
from headatlas.treebanks.language_pair import LONGEST, TARGET, THE, WORDS, Language, Pair
from headatlas.treebanks.sentences import ROOT, Sentence

SYNTAX = ("heads", "relation", "sentence")  # labels of words that detectors of dependencies read


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Sentences with a name in each, of those that training of the toy held back."""
    return _built(tokenizer, n, Language(rng, unseen=True), rng)


# What is asked for stands in the batch, so that an encoder-decoder is measured by the task's own metric.
@task(metric=next_token_loss, version=1, margin=0.5, second=_second, paired=True)
def translation(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """A sentence of one made-up language for the encoder, its translation for the decoder; loss on all its words but names.

    The languages of `headatlas toy translation` (verb first, adjectives behind nouns, agreement in number), for models whose tokenizer
    knows their words. The encoder's labels `heads`, `relation` and `sentence` say which word is the subject of the verb (as in `syntax`). positions["aligned"] of decoder and encoder: places of the gold links, one for each target word. Names are unknown words, which
    the toy's copy layer would write, and no model without it. Control: the source's words in random order, so that nothing says what does what.
    """
    return _built(tokenizer, n, Language(rng), rng)


def _built(tokenizer: Vocabulary, n: int, language: Language, rng: np.random.Generator) -> Batch:
    front, back = edges(tokenizer)
    if tokenizer.context < LONGEST + len(front) + len(back):
        raise UnfitTask(f"translation needs {LONGEST} tokens of text; this model reads {tokenizer.context}.")
    singles = {i: tokenizer.single(f" {WORDS[i]}") for i in range(THE, TARGET)}
    known = {i: one for i, one in singles.items() if one is not None}
    if len(known) < len(singles):
        raise UnfitTask("translation is made for the words of `headatlas toy translation`, which this tokenizer lacks.")
    unknown = tokenizer.encode("Qx")[:1]  # no word of either language: what a name is read as

    def ids(words: tuple[int, ...]) -> list[int]:
        return [token for word in words for token in ([known[word]] if word < TARGET else unknown)]

    pairs = language.pairs(n)
    written, links = [ids(one.target) for one in pairs], [one.links for one in pairs]
    batch = paired("translation", tokenizer, [ids(one.source) for one in pairs], written, links)
    mixed = [ids(tuple(one.source[i] for i in rng.permutation(len(one.source)))) for one in pairs]
    predict = {"predict": lists([_named_by_none(one, len(front)) for one in pairs])}
    control = paired("translation", tokenizer, mixed, written)
    labels, facts = _syntax(pairs)
    assert batch.encoder is not None
    return replace(
        batch,
        positions={**batch.positions, **predict},
        marks={"word": torch.full_like(batch.tokens, -1)},  # of the translation no syntax is known
        labels={name: torch.full((n, 1), -1) for name in SYNTAX},
        facts={**batch.facts, **facts},
        control=replace(control, positions=predict),
        encoder=replace(batch.encoder, labels=labels, facts={**batch.encoder.facts, **facts}),
    )


def _syntax(pairs: list[Pair]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(labels, facts) that detectors of dependencies ask of the sources: subject and verb of each, which is all that is known."""
    found = []
    for one in pairs:
        n, (verb, subject) = len(one.source), one.subject
        heads = tuple(verb if i == subject else ROOT for i in range(n))
        relations = tuple("nsubj" if i == subject else "root" for i in range(n))
        found.append([Sentence(tuple(map(str, one.source)), (True,) * n, heads, relations)])
    labels = gold(found)
    return {name: labels[name] for name in SYNTAX}, {"offsets": offsets(found)}


def _named_by_none(one: Pair, front: int) -> list[int]:
    """Places before the target words that are no names."""
    return [front - 1 + i for i, word in enumerate(one.target) if word < TARGET]
