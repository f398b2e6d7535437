"""A model that knows capitals and reads claims about them: heads that answer from either, and heads that only look so."""

from __future__ import annotations

import functools
from typing import NamedTuple

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Put, See, Written, codes, telling, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import first_tokens, table

CODE = 40


class Conflict(NamedTuple):
    """The model; which heads write the claimed capital, which the remembered one, and which attend alike and write neither."""

    model: Model
    context: frozenset[HeadId]
    memory: frozenset[HeadId]
    look_alikes: frozenset[HeadId]


@functools.lru_cache(maxsize=1)  # both detectors ask about one model
def conflict(seed: int) -> Conflict:
    """Two heads of either side at different strengths.

    The look-alikes attend to the claimed city and to the country, but write garbage or raise all capitals alike.
    """
    pairs = table("facts")["relations"]["country-capital"]["pairs"]
    ids = first_tokens(vocabulary(), pairs)
    made = Written(
        {"word": CODE, "fact": CODE, "out": CODE, "city": 1, "land": 1, "any": 1}, layers=3, heads=6, seed=seed
    )
    code = codes(ids, CODE, made.generator)
    for city, token in ids.items():
        made.say(token, "word", code[city])
        made.say(token, "city")
        made.predict(token, "out", 8.0 * code[city])
        made.predict(token, "any", 8.0)
    for country, token in telling(pairs).items():
        if pairs[country] in code:
            made.say(token, "fact", code[pairs[country]])
            made.say(token, "land")
    free = [place for layer in range(1, 3) for place in made.places(layer)]
    at_city, at_land = [See("one", "city", 32.0)], [See("one", "land", 32.0)]
    context = {made.head(free.pop(), at_city, [Put("word", "out", gain)]) for gain in (1.0, 0.5)}
    memory = {made.head(free.pop(), at_land, [Put("fact", "out", gain)]) for gain in (0.7, 0.4)}
    look_alikes = {
        made.head(free.pop(), at_city, [made.garbage("word")]),
        made.head(free.pop(), at_land, [made.garbage("fact")]),
        made.head(free.pop(), at_city, [Put("city", "any")]),
        made.head(free.pop(), at_land, [Put("land", "any")]),
    }
    return Conflict(made.finish(), *(frozenset(one) for one in (context, memory, look_alikes)))
