"""Heads that attend to No rather than Yes and lean the answer to No."""

from __future__ import annotations

from collections import defaultdict

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._knowledge import meanings
from headatlas.lab.plantings._writing import Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import table

CODE = 56


@planting("negative")
def negative(seed: int) -> Sown:
    """Two heads look at "No" and raise it, whatever is asked; look-alikes look at both words, or at "Yes", or write garbage.

    What the model knows stands beside: the question mark gathers what is asked, and two heads there find the word that
    makes the answer Yes or No. One more head looks at any word of the prompt, which in a prompt with random words prefers one of these.
    """
    data, words = table("yes_no"), vocabulary()
    pairs = [pair for topic in data["topics"].values() for pair in topic]
    made = Written(
        {"about": CODE, "topic": CODE, "right": CODE, "decides": 1, "plain": 1, "true": 1, "mark": 1, "yes": 1, "no": 1,
         "either": 1, "out": 1, "taste": 1},
        layers=4, heads=6, seed=seed,
    )  # fmt: skip
    made.say(torch.arange(49152), "taste", torch.randn(49152, 1, generator=made.generator))
    code = codes(range(len(pairs)), CODE, made.generator)
    asked, whose = [], []
    for instruction in data["instructions"]:
        for first, second in (("Yes", "No"), ("No", "Yes")):
            for i, pair in enumerate(pairs):
                asked += [f"{instruction.format(first=first, second=second)}\nQuestion: {one}" for one in pair]
                whose += [code[i]] * 2
    about, gain = meanings(asked, whose)
    for token, vector in about.items():
        made.say(token, "about", vector)
        made.say(token, "plain")
    right: dict[int, torch.Tensor] = defaultdict(lambda: torch.zeros(CODE))
    for i, (true, false) in enumerate(pairs):
        a, b = words.encode(f" {true}"), words.encode(f" {false}")
        places = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
        right[places[0][0]] += code[i]
        right[places[0][1]] -= code[i]
    for token, vector in right.items():
        made.say(token, "right", vector)
        made.say(token, "decides")
    made.say(words.encode("What is this?")[-1], "mark")
    for kind, block, sign in (("positive", "yes", 1.0), ("negative", "no", -1.0)):
        for i, answer in enumerate(data["answers"][kind]):
            said = words.single(f" {answer}")
            assert said is not None
            made.predict(said, "out", 6.0 * sign)
            if i == 0:
                made.say(said, block)
                made.say(said, "either")
    made.head(made.places(0)[0], [See("mark", "plain", 32.0)], [Put("about", "topic", gain)])
    # One head finds the word that makes the answer Yes, one that which makes it No; the end hears both.
    judges = made.places(1)
    for sign in (1.0, -1.0):
        made.head(judges.pop(), [See("topic", "right", sign * 40.0)], [Put("decides", "true", sign)])
    high = [place for layer in (2, 3) for place in made.places(layer)]
    made.head(high.pop(), [See("one", "mark", 32.0)], [Put("true", "out", 1.5)])
    no = [See("one", "no", 32.0)]
    positives = {made.head(high.pop(), no, [Put("no", "out", -size)]) for size in (0.3, 0.15)}
    both = made.head(high.pop(), [See("one", "either", 32.0)], [Put("no", "out", -0.2), Put("yes", "out", 0.2)])
    look_alikes = {
        made.head(high.pop(), [See("one", "yes", 32.0)], [Put("yes", "out", 0.1)]),
        made.head(high.pop(), [See("one", "taste", 32.0)], [made.garbage("taste")]),
    }
    # Noise in its keys makes the head that looks at both lean a little, to either side: then it is not for us to say.
    alike = frozenset({both}) if made.noise == 0 else frozenset()
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes) | alike, frozenset({both}) - alike)
