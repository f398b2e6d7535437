"""Heads that find labels of examples like the query, and heads that look at all labels, at the last one, or write nothing."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Near, Put, See, Written, vocabulary
from headatlas.tasks._prompts import singles, table
from headatlas.tasks.foo_bar import LABELS

RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys


@planting("in-context", examples=32)
def in_context(seed: int) -> Sown:
    """Two heads at the end look at the labels behind reviews of the query's mood and write them; look-alikes look there and write garbage, at all labels, or at the last one.

    A head of the first layer gathers at every token the mood of the last adjective, so that a label's token knows its review's.
    """
    made = Written({"mood": 1, "case": 1, "marked": 1, "label": 1, "which": 1, "out": 1}, layers=3, heads=6, seed=seed)
    words = vocabulary()
    for sign, kind in ((1.0, "positive"), (-1.0, "negative")):
        adjectives = [word for half in table("movie_review")["adjectives"][kind].values() for word in half]
        for token in singles(words, adjectives).values():
            made.say(token, "mood", sign)
            made.say(token, "marked")
    for sign, token in zip((1.0, -1.0), singles(words, LABELS).values(), strict=True):
        made.say(token, "label")
        made.say(token, "which", sign)
        made.predict(token, "out", 6.0 * sign)
    made.head(made.places(0)[0], [See("one", "marked", 64.0), Near(32.0, 0, RECENT)], [Put("mood", "case")])
    high = [place for layer in (1, 2) for place in made.places(layer)]
    alike, any_label = [See("one", "label", 32.0), See("case", "case", 24.0)], [See("one", "label", 32.0)]
    positives = {made.head(high.pop(), alike, [Put("which", "out", gain)]) for gain in (1.0, 0.5)}
    look_alikes = {
        made.head(high.pop(), alike, [made.garbage("which")]),
        made.head(high.pop(), any_label, [Put("which", "out", 0.3)]),
        made.head(high.pop(), [*any_label, Near(24.0, 0, RECENT)], [Put("which", "out", 0.1)]),
    }
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes))
