"""A model that judges reviews by way of the word that sums them up."""

from __future__ import annotations

import functools
from typing import NamedTuple

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Put, See, Written, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import singles, table


class Reviews(NamedTuple):
    """The model, the heads of either type, and those that do half of what is asked for."""

    model: Model
    summarizers: frozenset[HeadId]
    readers: frozenset[HeadId]
    look_alikes: frozenset[HeadId]
    direct: frozenset[HeadId]  # one of the look-alikes: it brings the mood from the words themselves


@functools.lru_cache(maxsize=1)  # both detectors ask about one model
def reviews(seed: int) -> Reviews:
    """Summarizers gather the mood of adjective and verb at "movie", "film" or "show"; readers take it from there to the end.

    Look-alikes attend like either and write garbage, or carry the mood from the words to the end directly.
    """
    data = table("movie_review")
    made = Written({"mood": 1, "marked": 1, "word": 1, "sum": 1, "summed": 1, "out": 1}, layers=4, heads=6, seed=seed)
    for sign, kind in ((1.0, "positive"), (-1.0, "negative")):
        for what in ("adjectives", "verbs"):
            for token in singles(vocabulary(), [word for half in data[what][kind].values() for word in half]).values():
                made.say(token, "mood", sign)
                made.say(token, "marked")
        for token in singles(vocabulary(), data["answers"][kind]).values():
            made.predict(token, "out", sign * 6.0)
    for token in singles(vocabulary(), {template["summary"] for template in data["templates"]}).values():
        made.say(token, "word")
    # Only the summary word looks for moods, only what has found one is read.
    gather, take = [See("word", "marked", 32.0)], [See("one", "summed", 48.0)]
    low = [place for layer in (0, 1) for place in made.places(layer)]
    high = [place for layer in (2, 3) for place in made.places(layer)]
    summarizers = {
        made.head(low.pop(), gather, [Put("mood", "sum", gain), Put("marked", "summed", gain)]) for gain in (0.6, 0.4)
    }
    readers = {made.head(high.pop(), take, [Put("sum", "out", gain)]) for gain in (1.0, 0.6)}
    direct = made.head(high.pop(), [See("one", "marked", 32.0)], [Put("mood", "out", 0.3)])
    look_alikes = {
        made.head(low.pop(), gather, [made.garbage("mood")]),
        made.head(high.pop(), take, [made.garbage("sum")]),
        direct,
    }
    return Reviews(made.finish(), *(frozenset(one) for one in (summarizers, readers, look_alikes, {direct})))
