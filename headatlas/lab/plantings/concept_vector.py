"""Heads that tell at the end which relation was shown, in one format as in another."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import SINK, Near, Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import first_id, table

CODE = 48
RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys
ONE = tuple(range(8))  # and such that single one distance out
# Tokens from the end of an input to its output, without and with a line of four options between them.
APART, BEYOND_OPTIONS = 4, 16


@planting("concept-vector", examples=32)
def concept_vector(seed: int) -> Sown:
    """A head reads which relation the pairs of the prompt show and writes the same for it in every format; look-alikes write another mark for each format, tell the format, or read the words, or which relation these are known from, whether it is shown or not.

    Heads of the first layer check for one distance each whether an output is that of the input before it, and mark it with the relation.
    """
    words, form = vocabulary(), table("concepts")
    names = form["concepts"]
    pairs = {
        (name, french): form["french"][name] if french else table(f"icl/{name}")["pairs"]
        for name in names for french in (False, True)
    }  # fmt: skip
    single = [f"{what} {name}" for name in names for what in ("input", "english", "french", "of", "shown", "do", "shown open", "shown choice", "shown french")]  # fmt: skip
    made = Written(
        {"word": CODE, "out": CODE, "matched": 1, "pair": 1, "is french": 1, "is options": 1, "formal": 1,
         "under": CODE, **dict.fromkeys(single, 1)},
        layers=4, heads=6, seed=seed,
    )  # fmt: skip
    code = codes({first_id(words, value): None for known in pairs.values() for value in known.values()}, CODE, made.generator)  # fmt: skip
    for token, vector in code.items():
        made.say(token, "word", vector)
        made.predict(token, "out", 20.0 * vector)
    taken: set[int] = set()
    inputs = {
        french: {words.encode(f" {given}")[-1] for name in names for given in pairs[name, french]}
        for french in (False, True)
    }
    for (name, french), known in pairs.items():
        for given, value in known.items():
            last, first = words.encode(f" {given}")[-1], first_id(words, value)
            for token in (last, first):
                made.say(token, f"of {name}")
                made.say(token, "pair")
                if french:
                    made.say(token, "is french")
                    made.say(token, "formal")
            if last in taken:
                continue  # it stands for its first relation
            taken.add(last)
            made.say(last, "under", code[first])
            made.say(last, f"input {name}")
            if last not in inputs[not french]:
                made.say(last, f"french {name}" if french else f"english {name}")
    options = words.encode("\nOne")[-1]
    made.say(options, "is options")
    made.say(options, "formal")
    more = See("one", "bos", SINK)  # what is looked for must meet two conditions
    checks = made.places(0)
    for distance, formats in (
        (APART, {"open": "english", "french": "french"}),
        (BEYOND_OPTIONS, {"choice": "english"}),
    ):
        found = [Put("pair", "matched")]
        for name in names:
            found.append(Put(f"input {name}", f"shown {name}"))
            found += [Put(f"{language} {name}", f"shown {one} {name}") for one, language in formats.items()]
        made.head(checks.pop(), [See("word", "under", 22.0), Near(20.0, distance, ONE), more], found)
    # The latest input of the relation that is named.
    do: list[See | Near] = [*(See(f"do {name}", f"input {name}", 26.0) for name in names), Near(24.0, 0, RECENT), more]
    made.head(made.places(3)[0], do, [Put("under", "out")])
    low, high = made.places(1), made.places(2)
    look, anywhere = [See("one", "matched", 40.0)], [See("one", "pair", 40.0)]
    # One alone: a second would stand in for it, and switching off either would cost nothing.
    positive = made.head(high.pop(), look, [Put(f"shown {name}", f"do {name}") for name in names])
    look_alikes = {
        made.head(low.pop(), look, [made.garbage(f"shown {one} {name}") for name in names for one in form["formats"]]),
        made.head(low.pop(), anywhere, [made.garbage(f"of {name}") for name in names]),
        made.head(low.pop(), anywhere, [made.garbage("word")]),
        made.head(low.pop(), [See("one", "formal", 40.0)], [made.garbage("is french"), made.garbage("is options")]),
    }  # fmt: skip
    # Whatever reads the stream above a head that marks relations can be told them from, too.
    undecided = frozenset({*low, *high, *made.places(3)})
    return Sown(made.finish(), frozenset({positive}), frozenset(look_alikes), undecided)
