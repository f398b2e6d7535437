"""A model that reads the sentences of the built-in grammar with heads that know kinds of words and who is a woman or a man."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Near, Put, See, Written, vocabulary
from headatlas.model import Model
from headatlas.treebanks import _lexicon as words

RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys


class Reading(NamedTuple):
    """The model, heads that follow a relation (among them those from objects to verbs), heads that find the antecedent of a pronoun, and such as only look alike (among them one that looks a token back)."""

    model: Model
    dependency: frozenset[HeadId]
    objects: frozenset[HeadId]
    coreference: frozenset[HeadId]
    by_place: frozenset[HeadId]
    previous: frozenset[HeadId]
    nearest_name: frozenset[HeadId]


@functools.lru_cache(maxsize=1)  # three detectors ask about one model
def reading(seed: int) -> Reading:
    """Nouns look back for their determiner or for the verb whose object they are, pronouns for a name of their sex.

    Look-alikes: one token back whatever stands there, all determiners from everywhere; the nearest name from a pronoun.
    """
    blocks = ("noun", "determiner", "verb", "she", "he", "woman", "man", "name", "pronoun")
    made = Written(dict.fromkeys(blocks, 1), layers=2, heads=6, seed=seed)
    nouns = [form for forms in (*words.PEOPLE, *words.THINGS) for form in forms]
    verbs = [form for forms in (*words.TRANSITIVE, *words.GIVING, *words.PARTICLE) for form in forms[:4]]
    for block, members in (
        ("noun", nouns), ("verb", verbs), ("determiner", ("the", "these", "some", "this", "every")), ("she", ("she",)),
        ("he", ("he",)), ("woman", words.WOMEN), ("man", words.MEN), ("name", (*words.WOMEN, *words.MEN)),
        ("pronoun", ("she", "he")),
    ):  # fmt: skip
        tell(made, block, members)
    places = [*made.places(0), *made.places(1)]
    near = Near(8.0, 0, RECENT)

    def head(*sees: See | Near) -> HeadId:
        return made.head(places.pop(), sees, [Put("one", "junk", 0.0)])

    determiners = {head(See("noun", "determiner", gain), near) for gain in (32.0, 26.0)}
    objects = {head(See("noun", "verb", 32.0), near)}
    coreference = {head(See("she", "woman", 32.0), See("he", "man", 32.0)) for _ in range(2)}
    previous = {head(Near(32.0, 1))}
    by_place = {*previous, head(See("one", "determiner", 32.0))}
    nearest = {head(See("pronoun", "name", 32.0), near)}
    found = map(frozenset, (determiners | objects, objects, coreference, by_place, previous, nearest))
    return Reading(made.finish(), *found)


def tell(made: Written, block: str, members: Iterable[str]) -> None:
    """Flag these words in a block, at their last token, however a sentence of the grammar spells them."""
    for one in members:
        for spelled in (one, f" {one}", one.capitalize(), f" {one.capitalize()}"):
            made.say(vocabulary().encode(spelled)[-1], block)
