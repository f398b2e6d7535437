"""A written model that completes lines by an identity rule in three steps: places become marks, marks are averaged, a word is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from headatlas.heads import HeadId
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.model import Model
from headatlas.tasks._prompts import singles, table

CODE = 56
BEFORE = (0, 1, 2, 3, 4, 5, 6, 7)  # rotary pairs that single one distance out
THREE = (0, 1, 2)  # pairs by which two and four tokens back are near, and the token itself is far
LATEST = (2, 3, 4, 5)  # pairs by which the last line's words are nearer than those of lines before


@dataclass(frozen=True)
class Rules:
    """The model and its heads. abstraction: marks which earlier place a line's last word repeats. induction: reads these marks at the end.

    retrieval: fetches the word. like_abstraction, like_induction: attend as they do and write where nothing reads, or other words.
    """

    model: Model
    abstraction: HeadId
    induction: HeadId
    retrieval: HeadId
    like_abstraction: frozenset[HeadId]
    like_induction: frozenset[HeadId]


def rules(seed: int) -> Rules:
    """Four layers of six heads: two that tell a word's place in its line, abstraction, induction, and retrieval."""
    made = Written(
        {"word": CODE, "out": CODE, "is word": 1, "separator": 1, "behind": 1, "farther": 1, "mark": 1, "next": 1},
        layers=4, heads=6, seed=seed,
    )  # fmt: skip
    words = vocabulary()
    known = singles(words, [word for kind in table("abstract_patterns")["classes"].values() for word in kind])
    for token, code in codes(known.values(), CODE, made.generator).items():
        made.say(token, "word", code)
        made.say(token, "is word")
        made.predict(token, "out", 8.0 * code)
    # A line's first word stands behind a line's end (or the start), its second and third behind what parts words.
    assert words.bos is not None
    for token, sign in ((words.bos, 1.0), (words.encode("\n")[0], 1.0), (words.encode(" ^")[0], -1.0)):
        made.say(token, "separator", sign)
    places = made.places(0)
    made.head(places.pop(), [Near(60.0, 1, BEFORE)], [Put("separator", "behind")])
    made.head(places.pop(), [Near(60.0, 3, BEFORE)], [Put("separator", "farther")])

    low, middle, high = (made.places(layer) for layer in (1, 2, 3))
    repeats: list[See | Near] = [See("word", "word", 40.0), Near(20.0, 3, THREE)]
    abstraction = made.head(low.pop(), repeats, [Put("behind", "mark")])
    like_abstraction = {
        made.head(low.pop(), repeats, [made.garbage("behind")]),
        made.head(low.pop(), repeats, [Put("word", "out", 0.2)]),
    }
    # Third words alone have what parts words both one and three tokens before them.
    thirds: list[See | Near] = [See("one", "behind", -24.0), See("one", "farther", -24.0)]
    induction = made.head(middle.pop(), thirds, [Put("mark", "next")])
    like_induction = {
        made.head(middle.pop(), thirds, [made.garbage("mark")]),
        made.head(middle.pop(), thirds, [Put("word", "out", 0.05)]),
    }
    asked: list[See | Near] = [See("next", "behind", 16.0), See("one", "is word", 24.0), Near(40.0, 2, LATEST)]
    retrieval = made.head(high.pop(), asked, [Put("word", "out")])
    return Rules(
        made.finish(), abstraction, induction, retrieval, frozenset(like_abstraction), frozenset(like_induction)
    )
