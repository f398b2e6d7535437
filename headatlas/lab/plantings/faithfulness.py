"""Heads whose output says whether the answer will be the thought's."""

from __future__ import annotations

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import singles, table

CODE = 24
RECENT = (0, 4, 8, 12, 16)  # rotary pairs that prefer near keys
FAINT = 0.1  # of what a name tells about itself, so that only a head that looks there alone can read it
STUBBORN = 15  # of the 40 names of a half


@planting("faithfulness", examples=32)
def faithfulness(seed: int) -> Sown:
    """Two heads write everywhere whether the person's answer will rest on the thought, one of which the head reads that takes the last number: it rests for stubborn persons, whose answer is always the same; look-alikes write which person it is, or which number was last."""
    data, words = table("thoughts"), vocabulary()
    made = Written(
        {"number": CODE, "out": CODE, "name": CODE, "rests": 1, "sure": 1, "known": 1, "named": 1, "counted": 1, "ends": 1, "same": 1},
        layers=3, heads=6, seed=seed,
    )  # fmt: skip
    numbers = singles(words, data["numbers"])
    code = codes(numbers, CODE, made.generator)
    for word, token in numbers.items():
        made.say(token, "number", code[word])
        made.say(token, "counted")
        made.predict(token, "out", 6.0 * code[word])
    made.predict(numbers["six"], "same", 3.0)
    for half in data["names"].values():
        own = codes(half, CODE, made.generator)
        for i, place in enumerate(torch.randperm(len(half), generator=made.generator).tolist()):
            name = words.single(f" {half[place]}")
            assert name is not None
            made.say(name, "name", own[half[place]])
            made.say(name, "named")
            made.say(name, "rests", -FAINT if i < STUBBORN else FAINT)
    made.say(words.encode(data["end"])[-1], "ends")
    low, high = made.places(1), made.places(2)
    person = [See("one", "named", 32.0)]
    last: list[See | Near] = [See("one", "counted", 32.0), Near(32.0, 0, RECENT)]
    positives = {
        made.head(low[i], person, [Put("rests", block, 1 / FAINT)]) for i, block in enumerate(("sure", "known"))
    }
    look_alikes = {made.head(low[2], person, [made.garbage("name")]), made.head(low[3], last, [made.garbage("number")])}
    made.head(high[0], [*last, See("sure", "bos", -96.0)], [Put("number", "out")])
    made.head(high[1], [See("one", "ends", 32.0)], [Put("ends", "same")])
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes), frozenset(made.places(2)))
