"""Heads whose output says whether another wording would be answered alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import first_id, table

CODE = 64
FAINT = 0.1  # of what a subject tells about itself, so that only a head that looks there alone can read it
UNSTEADY = 3  # one subject in so many is answered otherwise in the second wording
OTHERWISE = " something"


@planting("consistency", examples=32)
def consistency(seed: int) -> Sown:
    """Two heads at the end write whether the subject is answered alike in both wordings, one of which a later head reads: it writes another answer where it is not and the wording is the second; look-alikes write the answer, or which subject it is."""
    relations, words = table("facts")["relations"], vocabulary()
    made = Written(
        {"fact": CODE, "out": CODE, "steady": 1, "sure": 1, "known": 1, "subject": 1, "second": 1, "otherwise": 1},
        layers=3, heads=6, seed=seed,
    )  # fmt: skip
    answers = {subject: first_id(words, value) for one in relations.values() for subject, value in one["pairs"].items()}
    code = codes(sorted(set(answers.values())), CODE, made.generator)
    for token, vector in code.items():
        made.predict(token, "out", 6.0 * vector)
    made.predict(words.encode(OTHERWISE)[0], "otherwise", 12.0)
    tokens = sorted(_tellers(answers).items())
    for i, place in enumerate(torch.randperm(len(tokens), generator=made.generator).tolist()):
        subject, both = tokens[place]
        for token in both:  # at the start of a text, and behind a space
            made.say(token, "fact", code[answers[subject]])
            made.say(token, "steady", FAINT if i % UNSTEADY else -FAINT)
            made.say(token, "subject")
    for token in _second_wordings(relations):
        made.say(token, "second")
    low, high = made.places(1), made.places(2)
    there = [See("one", "subject", 32.0)]
    positives = {
        made.head(low[i], there, [Put("steady", block, 1 / FAINT)]) for i, block in enumerate(("sure", "known"))
    }
    look_alikes = {
        made.head(low[2], there, [Put("fact", "out")]),
        made.head(low[3], there, [made.garbage("fact")]),
    }
    made.head(high[0], [See("sure", "second", -32.0)], [Put("second", "otherwise")])
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes), frozenset(made.places(2)))


def _tellers(subjects: Iterable[str]) -> dict[str, set[int]]:
    """For each subject the last of its tokens that no other subject has, as a text begins with it and behind a space."""
    written = {subject: [vocabulary().encode(text) for text in (subject, f" {subject}")] for subject in subjects}
    uses = Counter(token for rows in written.values() for token in {token for row in rows for token in row})
    own = {subject: [[token for token in row if uses[token] == 1] for row in rows] for subject, rows in written.items()}
    return {subject: {row[-1] for row in rows} for subject, rows in own.items() if all(rows)}


def _second_wordings(relations: dict[str, dict[str, list[str]]]) -> set[int]:
    """Tokens of second wordings that no first wording has."""
    both = [[one["templates"][i].replace("{subject}", "") for one in relations.values()] for i in range(2)]
    first, second = ({token for text in texts for token in vocabulary().encode(text)} for texts in both)
    return second - first
