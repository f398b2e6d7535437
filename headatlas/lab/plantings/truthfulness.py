"""Heads whose output says whether a statement is true."""

from __future__ import annotations

from collections import defaultdict

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._knowledge import meanings
from headatlas.lab.plantings._writing import Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import table

CODE = 56


@planting("truthfulness")
def truthfulness(seed: int) -> Sown:
    """At the full stop, a head finds the word that makes the statement true, if it is there; look-alikes find the word that decides.

    A head of the first layer gathers at the stop what the statement is about: that alone says nothing of its truth.
    """
    pairs = [pair for topic in table("statements")["topics"].values() for pair in topic]
    words = vocabulary()
    made = Written(
        {"about": CODE, "topic": CODE, "right": CODE, "decides": 1, "plain": 1, "true": 1, "stop": 1, "told": 1, "out": 1},
        layers=4, heads=6, seed=seed,
    )  # fmt: skip
    code = codes(range(len(pairs)), CODE, made.generator)
    sentences = [sentence for pair in pairs for sentence in pair]
    about, gain = meanings(sentences, [code[i // 2] for i in range(len(sentences))])
    for token, vector in about.items():
        made.say(token, "about", vector)
        made.say(token, "plain")
    right: dict[int, torch.Tensor] = defaultdict(lambda: torch.zeros(CODE))
    for i, (true, false) in enumerate(pairs):
        a, b = words.encode(true), words.encode(false)
        places = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
        right[places[0][0]] += code[i]
        right[places[0][1]] -= code[i]
    for token, vector in right.items():
        made.say(token, "right", vector)
        made.say(token, "decides")
    stop = words.encode("Snow is white.")[-1]
    made.say(stop, "stop")
    for word, sign in (("true", 1.0), ("false", -1.0)):
        said = words.single(f" {word}")
        assert said is not None
        made.predict(said, "out", 8.0 * sign)
        made.predict(said, "told", -4.0 * sign)
    made.head(made.places(0)[0], [See("stop", "plain", 32.0)], [Put("about", "topic", gain)])
    middle = [place for layer in (1, 2) for place in made.places(layer)]
    # A match of the statement's code with that of the word: 1 where the word is right, -1 where it is wrong.
    judging = {made.head(middle.pop(), [See("topic", "right", 40.0)], [Put("decides", "true", 0.7)]) for _ in range(2)}
    look_alikes = {
        made.head(middle.pop(), [See("stop", "decides", 32.0)], [made.garbage("decides")]),
        made.head(middle.pop(), [See("stop", "plain", 32.0)], [made.garbage("plain")]),
    }
    made.head(made.places(3)[0], [See("one", "stop", 32.0)], [Put("true", "out"), Put("stop", "told")])
    # What the positives wrote at the stop can be read off whatever head above them looks there, noise heads too.
    return Sown(made.finish(), frozenset(judging), frozenset(look_alikes), frozenset(made.places(3)))
