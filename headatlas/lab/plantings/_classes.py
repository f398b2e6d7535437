"""A written model that names the kind of a word by examples: labels are raised all alike, by likeness to the query, or by what words mean."""

from __future__ import annotations

from typing import NamedTuple

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import singles
from headatlas.tasks._word_kinds import word_kinds

CODE = 48
RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys


class Classes(NamedTuple):
    """The model and its heads. recognition: raises all labels that are shown. learning: those behind words like the query.

    knowing: raise kinds by name, whatever is shown: the query's, or all there are. idle: attend as the first two do and write garbage.
    last: raises the latest label.
    """

    model: Model
    recognition: HeadId
    learning: HeadId
    knowing: frozenset[HeadId]
    idle: frozenset[HeadId]
    last: HeadId


def classes(seed: int) -> Classes:
    """Three layers of six heads; a head of the first gathers at every token the kind of the latest word, so that a label knows its word's."""
    made = Written(
        {"kind": CODE, "case": CODE, "name": CODE, "out": CODE, "known": CODE, "word": 1, "label": 1, "any": 1},
        layers=3, heads=6, seed=seed,
    )  # fmt: skip
    words = vocabulary()
    kinds = {half: word_kinds(words, half, 1) for half in ("find", "test")}
    meaning, names = (codes(kinds["find"], CODE, made.generator) for _ in range(2))
    for members in kinds.values():
        for kind, found in members.items():
            for token in found.values():
                made.say(token, "kind", meaning[kind])
                made.say(token, "word")
    for kind, token in singles(words, kinds["find"]).items():
        made.say(token, "name", names[kind])
        made.say(token, "label")
        made.predict(token, "out", 8.0 * names[kind])
        made.predict(token, "known", 4.0 * meaning[kind])
        made.predict(token, "any", 2.0)
    latest: list[See | Near] = [See("one", "word", 64.0), Near(32.0, 0, RECENT)]
    made.head(made.places(0)[0], latest, [Put("kind", "case")])
    high = [place for layer in (1, 2) for place in made.places(layer)]
    labels = [See("one", "label", 32.0)]
    alike = [*labels, See("case", "case", 24.0)]
    return Classes(
        recognition=made.head(high.pop(), labels, [Put("name", "out")]),
        learning=made.head(high.pop(), alike, [Put("name", "out", 0.6)]),
        knowing=frozenset({
            made.head(high.pop(), latest, [Put("kind", "known", 0.2)]),
            made.head(high.pop(), [See("one", "word", 32.0)], [Put("word", "any", 0.3)]),
        }),
        idle=frozenset({made.head(high.pop(), one, [made.garbage("name")]) for one in (labels, alike)}),
        last=made.head(high.pop(), [*labels, Near(24.0, 0, RECENT)], [Put("name", "out", 0.2)]),
        model=made.finish(),
    )  # fmt: skip
