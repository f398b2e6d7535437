"""A model that answers multiple-choice questions, with heads of each type that Lieberum et al. 2023 tell apart."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from headatlas.heads import HeadId
from headatlas.lab.plantings._knowledge import meanings
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import first_id, singles, table

CODE = 48
OPTIONS = 4
FAVOURITE = 2  # the label that single-letter heads prefer, counted from 0
RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys
NEAR = (0, 4, 8, 12, 16)  # and such that single out the token itself


class Choices(NamedTuple):
    """The model, its heads by type, and those that share some of the behaviour of one."""

    model: Model
    correct_letter: frozenset[HeadId]
    content_gatherer: frozenset[HeadId]
    constant: frozenset[HeadId]
    single_letter: frozenset[HeadId]
    amplification: frozenset[HeadId]
    look_alikes: frozenset[HeadId]

    def others(self, *own: frozenset[HeadId]) -> frozenset[HeadId]:
        """The heads of all types and look-alikes but these."""
        every: frozenset[HeadId] = frozenset().union(*self[1:])
        return every.difference(*own)


@functools.lru_cache(maxsize=1)  # six detectors ask about one model
def choices(seed: int) -> Choices:
    """Correct-letter heads match the number of the right option with that of its label.

    How the number comes about: the question mark gathers what is asked, every token counts the labels before it (a mean over
    labels tells how many), and the end looks up the option that fits the question and reads its count: a content gatherer; another
    one reads garbage there. A constant head raises all labels from all labels, a single-letter head the third label of each set
    from that label, an amplification head looks at the end alone and writes once more what the heads below it wrote.
    Look-alikes attend to the right label and write garbage, or raise every label; attend to the third label, to all labels, to
    all options or to the end and write garbage.
    """
    data, words = table("mcqa"), vocabulary()
    made = Written(
        {"about": CODE, "asked": CODE, "wanted": CODE, "option": CODE, "label": OPTIONS, "count": OPTIONS, "number": OPTIONS,
         "letter": CODE, "out": CODE, "mark": 1, "plain": 1, "any-label": 1, "any-option": 1, "favourite": 1, "any": 1},
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
        made.say(token, "any-option")
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
            made.say(begins, "favourite", float(i == FAVOURITE))
            made.predict(answer, "out", 8.0 * letter)
            made.predict(answer, "any", 8.0)
    # After i labels their mean is 1/i in the first i places; the inverse makes of it the number i alone.
    means = torch.tril(torch.ones(OPTIONS, OPTIONS)) / torch.arange(1, OPTIONS + 1)[:, None]
    low = made.places(0)
    made.head(low.pop(), [See("mark", "plain", 32.0)], [Put("about", "asked", gain)])
    made.head(low.pop(), [See("one", "any-label", 32.0)], [Put("label", "count", 1.0, torch.linalg.inv(means))])
    made.head(made.places(1)[0], [See("one", "mark", 32.0), Near(8.0, 0, RECENT)], [Put("asked", "wanted")])
    third, fourth, fifth = (made.places(layer) for layer in (2, 3, 4))
    find, look = [See("wanted", "option", 64.0)], [See("number", "label", 48.0)]
    labels, favourite, here = [See("one", "any-label", 32.0)], [See("one", "favourite", 32.0)], [Near(32.0, 0, NEAR)]
    gather = {
        made.head(third.pop(), find, [Put("count", "number")]),
        made.head(third.pop(), find, [made.garbage("count")]),
    }
    correct = {made.head(fourth.pop(), look, [Put("letter", "out", size)]) for size in (1.0, 0.6)}
    constant = {made.head(third.pop(), labels, [Put("letter", "out", 0.5), Put("any-label", "any")])}
    single = {made.head(third.pop(), favourite, [Put("letter", "out", 0.3)])}
    amplify = {made.head(fifth.pop(), here, [Put("out", "out")])}
    look_alikes = {
        made.head(fourth.pop(), look, [made.garbage("letter")]),
        made.head(fourth.pop(), look, [Put("any-label", "any")]),
        made.head(fourth.pop(), labels, [made.garbage("letter")]),
        made.head(fifth.pop(), favourite, [made.garbage("letter")]),
        made.head(fifth.pop(), [See("one", "any-option", 32.0)], [made.garbage("option")]),
        made.head(fifth.pop(), here, [made.garbage("out")]),
    }
    kinds = (correct, gather, constant, single, amplify, look_alikes)
    return Choices(made.finish(), *(frozenset(one) for one in kinds))
