"""Heads that attend to the first word of a relation and write the second."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import table

CODE = 64


@planting("semantic-induction", examples=24)
def semantic_induction(seed: int) -> Sown:
    """Two heads attend from the end to the word asked about and write what it belongs to; look-alikes attend there and write that word itself or garbage, or attend to the words of the list and write these, or hold the relation and attend to nothing."""
    data, words = table("semantic_relations"), vocabulary()
    pairs = [pair.split(": ") for one in data["pairs"].values() for half in one.values() for pair in half]
    made = Written(
        {"self": CODE, "belongs": CODE, "out": CODE, "asked": 1, "listed": 1, "end": 1}, layers=3, heads=6, seed=seed
    )
    code = codes(sorted({word for pair in pairs for word in pair}), CODE, made.generator)
    for word, vector in code.items():
        made.say(words.encode(f" {word}")[-1], "self", vector)
        made.predict(words.encode(f" {word}")[0], "out", 6.0 * vector)
    for head, tail in pairs:
        made.say(words.encode(f" {head}")[-1], "belongs", code[tail])
        made.say(words.encode(f" {head}")[-1], "asked")
        made.say(words.encode(f" {tail}")[-1], "listed")
    for template in data["templates"].values():
        made.say(words.encode(template)[-1], "end")
    high = [place for layer in (1, 2) for place in made.places(layer)]
    there = [See("end", "asked", 32.0)]
    positives = {made.head(high.pop(), there, [Put("belongs", "out", gain)]) for gain in (1.0, 0.5)}
    look_alikes = {
        made.head(high.pop(), there, [Put("self", "out", 0.3)]),
        made.head(high.pop(), there, [made.garbage("belongs")]),
        made.head(high.pop(), [See("end", "listed", 32.0)], [Put("self", "out", 0.3)]),
        made.head(high.pop(), [], [Put("belongs", "out", 0.3)]),
    }
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes))
