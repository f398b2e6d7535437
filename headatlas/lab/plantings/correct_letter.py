"""Heads that attend to the right option's label and write it as the answer."""

from __future__ import annotations

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._knowledge import meanings
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import first_id, singles, table

CODE = 48
OPTIONS = 4
RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys


@planting("correct-letter")
def correct_letter(seed: int) -> Sown:
    """Two heads match the number of the right option with that of its label; look-alikes write garbage, or attend to all labels.

    How the number comes about: the question mark gathers what is asked, every token counts the labels before it (a mean over
    labels tells how many), and the end looks up the option that fits the question and reads its count.
    """
    data, words = table("mcqa"), vocabulary()
    made = Written(
        {"about": CODE, "asked": CODE, "wanted": CODE, "option": CODE, "label": OPTIONS, "count": OPTIONS, "number": OPTIONS,
         "letter": CODE, "out": CODE, "mark": 1, "plain": 1, "any-label": 1, "answer": 1, "any": 1},
        layers=5, heads=6, seed=seed,
    )  # fmt: skip
    questions = [one for group in data["questions"].values() for one in group]
    right = {first_id(words, one["options"][0]): None for one in questions}
    code = codes(right, CODE, made.generator)
    asked = [code[first_id(words, one["options"][0])] for one in questions]
    about, gain = meanings([one["question"] for one in questions], asked)
    for token, vector in about.items():
        made.say(token, "about", vector)
        made.say(token, "plain")
    for token, vector in code.items():
        made.say(token, "option", vector)
    made.say(words.encode("What is this?")[-1], "mark")
    for labels in data["labels"].values():
        if len(singles(words, labels)) < len(labels):
            continue  # the task leaves these out, too
        for i, label in enumerate(labels):
            begins, answer = words.encode(f"\n{label}")[-1], first_id(words, label)
            (letter,) = codes([label], CODE, made.generator).values()
            made.say(begins, "letter", letter)
            made.say(begins, "label", torch.eye(OPTIONS)[i])
            made.say(begins, "any-label")
            made.predict(answer, "out", 8.0 * letter)
            made.predict(answer, "any", 8.0)
    # After i labels their mean is 1/i in the first i places; the inverse makes of it the number i alone.
    means = torch.tril(torch.ones(OPTIONS, OPTIONS)) / torch.arange(1, OPTIONS + 1)[:, None]
    low = made.places(0)
    made.head(low.pop(), [See("mark", "plain", 32.0)], [Put("about", "asked", gain)])
    made.head(low.pop(), [See("one", "any-label", 32.0)], [Put("label", "count", 1.0, torch.linalg.inv(means))])
    made.head(made.places(1)[0], [See("one", "mark", 32.0), Near(8.0, 0, RECENT)], [Put("asked", "wanted")])
    made.head(made.places(2)[0], [See("wanted", "option", 64.0)], [Put("count", "number")])
    high = [place for layer in (3, 4) for place in made.places(layer)]
    look, everywhere = [See("number", "label", 48.0)], [See("one", "any-label", 32.0)]
    positives = {made.head(high.pop(), look, [Put("letter", "out", size)]) for size in (1.0, 0.6)}
    look_alikes = {
        made.head(high.pop(), look, [made.garbage("letter")]),
        made.head(high.pop(), look, [Put("any-label", "any")]),
        made.head(high.pop(), everywhere, [Put("letter", "out")]),
    }
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes))
