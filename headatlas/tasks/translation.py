"""Sentences of the made-up language pair, translated, with gold alignment: for models that know its words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._two_stacks import paired, stacked
from headatlas.treebanks.language_pair import LONGEST, TARGET, THE, WORDS, Language, Pair


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Sentences with a name in each, of those that training of the toy held back."""
    return _built(tokenizer, n, Language(rng, unseen=True), rng)


# What is asked for stands in the batch, so that an encoder-decoder is measured by the task's own metric.
@task(metric=next_token_loss, version=1, margin=0.5, second=_second, paired=True)
def translation(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """A sentence of one made-up language for the encoder, its translation for the decoder; loss on all its words but names.

    The languages of `headatlas toy translation` (verb first, adjectives behind nouns, agreement in number), for models whose tokenizer
    knows their words. positions["aligned"] of decoder and encoder: places of the gold links, one for each target word. Names are unknown words, which
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
    predict = {"predict": stacked([_named_by_none(one, len(front)) for one in pairs], -1)}
    control = paired("translation", tokenizer, mixed, written)
    return replace(
        batch,
        positions={**batch.positions, **predict},
        labels={"subject": torch.tensor([one.subject for one in pairs])},
        control=replace(control, positions=predict),
    )


def _named_by_none(one: Pair, front: int) -> list[int]:
    """Places before the target words that are no names."""
    return [front - 1 + i for i, word in enumerate(one.target) if word < TARGET]
