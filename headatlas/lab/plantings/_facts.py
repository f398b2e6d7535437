"""A model that knows the bundled facts: heads that take an answer from the subject, from the relation or from both."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, telling, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import first_id, table

CODE = 64
RECENT = (0, 4, 8, 12, 16)  # rotary pairs that prefer near keys


class Facts(NamedTuple):
    """The model, its heads by what they read, and those that attend alike and answer nothing."""

    model: Model
    subject: frozenset[HeadId]
    relation: frozenset[HeadId]
    mixed: frozenset[HeadId]
    look_alikes: frozenset[HeadId]


@functools.lru_cache(maxsize=1)  # three detectors ask about one model
def facts(seed: int) -> Facts:
    """A subject's token holds its own answers, and a head of the first layer gathers at each token which relation was named.

    Heads write the subject's answers, whatever was asked (subject), all answers to the relation (relation), or both.
    Look-alikes attend to the subject and write garbage, or raise all answers to its relations; or attend like a relation
    head and write garbage, or raise answers to everything.
    """
    relations = table("facts")["relations"]
    answers: dict[int, set[str]] = {}
    for name, relation in relations.items():
        for value in relation["pairs"].values():
            answers.setdefault(first_id(vocabulary(), value), set()).add(name)
    made = Written(
        {"fact": CODE, "sort": CODE, "names": CODE, "asked": CODE, "out": CODE,
         "subject": 1, "telling": 1, "closing": 1, "any": 1}, layers=3, heads=8, seed=seed,
    )  # fmt: skip
    own, kind = codes(answers, CODE, made.generator), codes(relations, CODE, made.generator)
    for token, names in answers.items():
        # Answers of one relation share a direction, by which they can all be raised at once.
        made.predict(token, "out", 6.0 * (own[token] + sum(kind[name] for name in names)))
        made.predict(token, "any", 6.0)
    for token, names in _namers(relations).items():
        made.say(token, "names", sum(kind[name] for name in names) / len(names))
        made.say(token, "telling")
    for relation in relations.values():
        for template in relation["templates"]:
            made.say(vocabulary().encode(template)[-1], "closing")
    known: dict[str, list[tuple[str, int]]] = {}
    for name, relation in relations.items():
        for subject, value in relation["pairs"].items():
            known.setdefault(subject, []).append((name, first_id(vocabulary(), value)))
    for subject, token in telling(known).items():
        made.say(token, "fact", torch.stack([own[one] for _, one in known[subject]]).sum(0))
        made.say(token, "sort", torch.stack([kind[name] for name, _ in known[subject]]).mean(0))
        made.say(token, "subject")
    made.head(made.places(0)[0], [See("one", "telling", 32.0)], [Put("names", "asked", 1.5)])
    free = [place for layer in (1, 2) for place in made.places(layer)]
    there, here = [See("one", "subject", 32.0)], [Near(32.0, 0, RECENT)]
    subjects = {made.head(free.pop(), there, [Put("fact", "out", gain)]) for gain in (1.0, 0.5)}
    relating = {made.head(free.pop(), here, [Put("asked", "out", gain)]) for gain in (1.0, 0.5)}
    both = [See("one", "subject", 33.0), See("one", "closing", 32.0)]
    mixed = {made.head(free.pop(), both, [Put("fact", "out", 1.0), Put("asked", "out", 1.0)])}
    look_alikes = {
        made.head(free.pop(), there, [made.garbage("fact")]),
        made.head(free.pop(), there, [Put("sort", "out", 0.5)]),
        made.head(free.pop(), here, [made.garbage("asked")]),
        made.head(free.pop(), here, [Put("telling", "any")]),
    }
    return Facts(made.finish(), *(frozenset(one) for one in (subjects, relating, mixed, look_alikes)))


def _namers(relations: dict[str, dict[str, list[str]]]) -> dict[int, set[str]]:
    """Tokens of the wordings that occur in no more than two relations, with these relations."""
    found: dict[int, set[str]] = {}
    for name, relation in relations.items():
        for template in relation["templates"]:
            for token in vocabulary().encode(template.replace("{subject}", "")):
                found.setdefault(token, set()).add(name)
    return {token: names for token, names in found.items() if len(names) <= 2}
