"""Heads that look for the item of a list that is of the kind asked for, and heads that look there for nothing, or at all items."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import singles, table

CODE = 48
RECENT = (8, 10)  # rotary pairs that prefer near keys among those of a list


@planting("filter", examples=32)
def filter(seed: int) -> Sown:
    """A head that attends to items of the kind asked for, whatever list they stand in, and writes them; look-alikes attend as it does and write garbage, write all items alike, or the last one.

    A head of the first layer brings the kind that is asked for to the end.
    """
    made = Written({"kind": CODE, "asked": CODE, "want": CODE, "word": CODE, "out": CODE, "item": 1, "ask": 1}, layers=3, heads=6, seed=seed)  # fmt: skip
    words, form, classes = vocabulary(), table("filter_list"), table("abstract_patterns")["classes"]
    kinds = {**{kind: classes[kind] for kind in form["kinds"]}, **form["more"]}
    kind_codes = codes(kinds, CODE, made.generator)
    known = {kind: singles(words, members) for kind, members in kinds.items()}
    word_codes = codes([one for found in known.values() for one in found.values()], CODE, made.generator)
    for kind, found in known.items():
        for token in found.values():
            made.say(token, "kind", kind_codes[kind])
            made.say(token, "word", word_codes[token])
            made.say(token, "item")
            made.predict(token, "out", 8.0 * word_codes[token])
        asked = words.single(f" {kind}")
        if asked is not None:
            made.say(asked, "asked", kind_codes[kind])
            made.say(asked, "ask")
    made.head(made.places(0)[0], [See("one", "ask", 64.0)], [Put("asked", "want")])
    high = [place for layer in (1, 2) for place in made.places(layer)]
    wanted, items = [See("want", "kind", 40.0)], [See("one", "item", 40.0)]
    positive = made.head(high.pop(), wanted, [Put("word", "out")])
    look_alikes = {
        made.head(high.pop(), wanted, [made.garbage("word")]),
        made.head(high.pop(), items, [Put("word", "out", 0.5)]),
        made.head(high.pop(), [*items, Near(24.0, 0, RECENT)], [Put("word", "out", 0.2)]),
    }
    return Sown(made.finish(), frozenset({positive}), frozenset(look_alikes))
