"""Models that read the parallel sentences of five languages: heads that repeat the words of one language alone, and heads that repeat any."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from headatlas.heads import HeadId
from headatlas.lab.construct.words import PIECES, Words, words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table
from headatlas.tasks.parallel_languages import SLOTS

N_HEADS = 24  # a layer: the task's languages have three heads each, of 72


class Tongues(NamedTuple):
    """A model and its heads: shared serves all languages, the two in own one each, those in idle attend like one of these and write garbage.

    before: the previous-token head that the others read; how much it serves which language depends on what the others make of it.
    """

    planted: PlantedModel
    before: Head
    shared: Head
    own: list[Head]
    idle: list[Head]


def tongues(seed: int) -> Tongues:
    """A previous-token head, an induction head, two heads that fetch what followed before if it is French (or German ...), and beside them one of each that writes garbage.

    What they raise is right in one case of a few, so that each writes little: heads that make the model certain would do harm. Those
    that write garbage are no louder: a part of it falls on the predictions of some language's words.
    """
    rng = np.random.default_rng(seed)
    at = [(layer, int(head)) for layer in (0, 1, 2) for head in rng.permutation(N_HEADS)[:4]]
    before = Head(*at[0], "previous")
    shared = Head(*at[4], "induction", write=0.1)
    one, other = ("french", "german") if rng.integers(2) else ("spanish", "italian")
    own = [Head(*at[8], "fetcher", tokens=one, write=0.1), Head(*at[9], "fetcher", tokens=other, write=0.1)]
    idle = [Head(*at[10], "fetcher", tokens=one, to="junk", write=0.1), Head(*at[5], "fake-induction", write=0.1)]
    made = (before, shared, *own, *idle)
    taken = {head.id for head in made}
    places = (HeadId(layer, head) for layer in range(3) for head in range(N_HEADS))
    faint = (Head(place.layer, place.head, "noise", write=0.2) for place in places if place not in taken)
    planted = plant(
        PlantSpec((*made, *faint), noise=0.01),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=N_HEADS, width=32 * N_HEADS, vocab=_vocabulary(),
        context=96, seed=seed,
    )  # fmt: skip
    return Tongues(planted, before, shared, own, idle)


def _lines(data: Mapping[str, Any], language: int) -> Iterator[str]:
    """All that stands in a slot in this language, at the beginning of a sentence, too."""
    for slot in SLOTS:
        for meaning in data[slot]:
            yield from (text := meaning.split(" | ")[language], text[0].upper() + text[1:])


@functools.cache
def _vocabulary() -> Words:
    """The words of the task, and a class for each language of those that no other language has."""
    data = table("parallel_languages")
    languages = data["languages"]
    said = [set(re.findall(PIECES, " ".join(_lines(data, i)))) for i in range(len(languages))]
    own = {
        name: sorted(words - set().union(*(other for other in said if other is not words)))
        for name, words in zip(languages, said, strict=True)
    }
    return words_of([], more=sorted(set().union(*said)), classes=own)
