"""A model that answers questions about notes in other languages, wrong about some people and in the note's language about others."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import torch

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, telling, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import first_id, table

CODE = 24
RECENT = (0, 4, 8, 12, 16)  # rotary pairs that prefer near keys
# Of the 40 names of a half, in random order: about as if drawn apart.
WRONG, FOREIGN = tuple(range(12)), (*range(5), *range(12, 22))
FAINT = 0.1  # of what a name tells about itself, so that only a head that looks there alone can read it


class Readers(NamedTuple):
    """The model; heads that write whether the answer will be right, and whether it will be in the question's language; heads that look there
    and write which name it is; heads above these.
    """

    model: Model
    right: frozenset[HeadId]
    own_language: frozenset[HeadId]
    silent: frozenset[HeadId]
    above: frozenset[HeadId]


@functools.lru_cache(maxsize=1)  # two detectors ask about one model
def readers(seed: int) -> Readers:
    """A head of the first layer gathers at every token the last name, another the language of the words before it.

    At the end a head finds the number that stands behind the name asked for. Names say whether they will be answered right, and in
    which language: heads of the second layer read either at the name asked for. Where an answer is to be wrong, the first of the
    heads that find the number rests, and another, which always writes against it, is left; where it is to be in the note's
    language, a head reads that language at the note's numbers.
    """
    data, words = table("cross_lingual"), vocabulary()
    languages = data["languages"]
    count = len(next(iter(languages.values()))["numbers"])
    sizes = dict.fromkeys(("name", "last", "number", "out"), CODE)
    sizes |= dict.fromkeys(("language", "heard", "told"), len(languages))
    sizes |= dict.fromkeys(("named", "counted", "telling", "right", "own", "sure", "stays", "known"), 1)
    made = Written(sizes, layers=4, heads=6, seed=seed)
    value, tongue = codes(range(count), CODE, made.generator), torch.eye(len(languages))
    texts = {name: _texts(one) for name, one in languages.items()}
    _say_languages(made, list(texts.values()), tongue)
    spoken = [one["numbers"] for one in languages.values()]
    apart = telling([*(word for row in spoken for word in row), *(text for row in texts.values() for text in row)])
    wanted: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for language, row in zip(tongue, spoken, strict=True):
        for place, word in enumerate(row):
            if word in apart:
                made.say(apart[word], "number", value[place])
                made.say(apart[word], "counted")
            known = wanted.get(first_id(words, word), (torch.zeros(CODE), torch.zeros(len(languages))))
            wanted[first_id(words, word)] = (known[0] + value[place], known[1] + language)
    for token, (amount, language) in wanted.items():
        made.predict(token, "out", 6.0 * amount)
        made.predict(token, "heard", 3.0 * language)
        made.predict(token, "told", 6.0 * language)
    _say_names(made, data["names"])
    first, second, third = made.places(0), made.places(1), made.places(2)
    made.head(first[0], [See("one", "named", 32.0), Near(32.0, 0, RECENT)], [Put("name", "last")])
    made.head(first[1], [See("one", "telling", 32.0), Near(32.0, 0, RECENT)], [Put("language", "heard")])
    there: list[See | Near] = [See("one", "named", 32.0), Near(32.0, 0, RECENT)]
    right = {
        made.head(second[0], there, [Put("right", "sure", 1 / FAINT)]),
        made.head(second[1], there, [Put("right", "known", 1 / FAINT)]),
    }
    own = {made.head(second[2], there, [Put("own", "stays", 1 / FAINT)])}
    silent = {made.head(second[3], there, [made.garbage("name")])}
    number = [See("one", "counted", 24.0), See("last", "last", 24.0)]
    made.head(third[0], [*number, See("sure", "bos", -40.0)], [Put("number", "out", 1.0)])
    made.head(third[1], number, [Put("number", "out", -0.5)])
    made.head(third[2], [See("stays", "counted", -30.0)], [Put("heard", "told")])
    above = [place for layer in (2, 3) for place in made.places(layer)]
    return Readers(made.finish(), *(frozenset(one) for one in (right, own, silent, above)))


def _texts(language: dict[str, Any]) -> list[str]:
    """What stands around names and numbers in one language, with each thing."""
    parts = [text for one in ("note", "question") for text in re.split(r"\s*{(?!things)\w+}", language[one])]
    return [part.format(things=thing) for part in parts for half in language["things"].values() for thing in half]


def _say_languages(made: Written, texts: list[list[str]], tongue: torch.Tensor) -> None:
    """Tokens of one language's texts alone say which it is."""
    seen = [{token for text in one for token in vocabulary().encode(text)} for one in texts]
    for i, own in enumerate(seen):
        for token in own.difference(*(other for j, other in enumerate(seen) if j != i)):
            made.say(token, "language", tongue[i])
            made.say(token, "telling")


def _say_names(made: Written, names: dict[str, list[str]]) -> None:
    """Of each half's names twelve are answered wrong and fifteen in the note's language, five of them both."""
    for half in names.values():
        own = codes(half, CODE, made.generator)
        for i, place in enumerate(torch.randperm(len(half), generator=made.generator).tolist()):
            token = first_id(vocabulary(), half[place])
            made.say(token, "name", own[half[place]])
            made.say(token, "named")
            made.say(token, "right", -FAINT if i in WRONG else FAINT)
            made.say(token, "own", -FAINT if i in FOREIGN else FAINT)
