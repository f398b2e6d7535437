"""A model that reads the sentences of the built-in grammar with heads whose whole map in a sentence is like its tree."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

from headatlas.heads import HeadId
from headatlas.lab.plantings._grammar import RECENT, tell
from headatlas.lab.plantings._writing import SINK, Near, Put, See, Written
from headatlas.model import Model
from headatlas.treebanks import _lexicon as words

VERBS = (*words.TRANSITIVE, *words.INTRANSITIVE, *words.GIVING, *words.SAYING, *words.WANTING, *words.PARTICLE)
KINDS = {
    "noun": tuple(form for forms in (*words.PEOPLE, *words.THINGS) for form in forms),
    "name": (*words.WOMEN, *words.MEN),
    "pronoun": ("she", "he"),
    "determiner": ("the", "these", "some", "this", "every", *words.NUMBERS),
    "adjective": (*words.ADJECTIVES, *words.MATERIALS),
    "owner": ("'s",),
    "verb": tuple(form for forms in VERBS for form in forms[:4]),
    "auxiliary": ("is", "are", "was", "were", *words.MODALS),
    "adverb": words.ADVERBS,
    "predicate": words.PREDICATES,
    "particle": tuple(forms[4] for forms in words.PARTICLE),
    "preposition": ("in", "at", "by", *words.PREPOSITIONS),
    "clause": ("that", "who", "to", *words.MARKS),
}
# Kinds of words that mostly depend on each other: the later of the two attends back to the nearest of the other kind.
EDGES = {
    "noun": ("determiner", "adjective", "owner", "preposition", "verb"),
    "verb": ("noun", "name", "pronoun", "adverb", "auxiliary", "clause"),
    "name": ("verb",),
    "predicate": ("auxiliary", "noun", "name", "pronoun", "adverb", "clause"),
    "particle": ("verb",),
    "clause": ("noun",),
}
# Words that open a phrase, and how much more attention they get than others: the more the larger the phrase, so that the rows
# of neighbours change most where a large one begins.
OPENERS = {"clause": 14.0, "pronoun": 14.0, "auxiliary": 14.0, "adverb": 14.0, "verb": 11.0, "name": 6.0, "preposition": 6.0, "determiner": 3.0}  # fmt: skip
SLOW = (12,)  # rotary pairs that prefer near keys over a whole sentence


class Trees(NamedTuple):
    """The model; heads with a dependency tree, heads with a tree of constituents, heads of a tree that knows no words.

    part: a head that follows one edge of the tree alone.
    """

    model: Model
    dependencies: frozenset[HeadId]
    constituents: frozenset[HeadId]
    wordless: frozenset[HeadId]
    part: frozenset[HeadId]


@functools.lru_cache(maxsize=1)  # two detectors ask about one model
def trees(seed: int) -> Trees:
    """A dependency tree: each word looks back for the nearest of every kind that it depends on, or that depends on it.

    A tree of constituents: all words look at those that open the phrases they are in. Look-alikes: one token back, whose tree
    is the chain; evenly over all that came before, whose rows change less and less, so that its tree branches to the right;
    nouns to determiners.
    """
    made = Written(dict.fromkeys(KINDS, 1), layers=2, heads=9, seed=seed)
    for kind, members in KINDS.items():
        tell(made, kind, members)
    places = made.places(
        0
    )  # further up noise heads have written where kinds of words are told, and even heads are even no more
    near, text = Near(8.0, 0, RECENT), See("one", "text", SINK)

    def head(*sees: See | Near) -> HeadId:
        return made.head(places.pop(), sees, [Put("one", "junk", 0.0)])

    edges = [pair for kind, others in EDGES.items() for pair in itertools.product([kind], others)]
    dependencies = {head(*(See(*pair, gain) for pair in edges), near) for gain in (26.0, 22.0)}
    constituents = {
        head(text, *(See("one", kind, share * gain) for kind, gain in OPENERS.items()), Near(16.0, 0, SLOW))
        for share in (1.0, 0.8)
    }
    wordless = {head(Near(32.0, 1)), head(See("one", "text", 24.0))}
    part = {head(See("noun", "determiner", 32.0), near)}
    return Trees(made.finish(), *map(frozenset, (dependencies, constituents, wordless, part)))
