"""Heads that tell at the end of a prompt of examples which task these show."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import SINK, Near, Put, See, Written, codes, vocabulary
from headatlas.tasks._prompts import first_id, table

CODE = 56
TASKS = ("singular-plural", "present-past", "antonym", "capitalize")
RECENT = (4, 8, 12, 16)  # rotary pairs that prefer near keys
APART = 4  # tokens from the end of an input to its output: " x", "\n", "A", ":", " y"


@planting("function-vector")
def function_vector(seed: int) -> Sown:
    """A head reads which task the pairs of the prompt show, and writes its name at the end, where other heads do the task.

    Heads of the first layer check for one task each whether an output is that of the input before it. Look-alikes attend to
    the checked outputs and write garbage, or copy them.
    """
    words = vocabulary()
    pairs = {task: table(f"icl/{task}")["pairs"] for task in TASKS}
    made = Written(
        {"word": CODE, "out": CODE, "matched": 1,
         **{f"{what} {task}": size for task in TASKS for what, size in (("under", CODE), ("input", 1), ("shown", 1), ("do", 1))}},
        layers=5, heads=6, seed=seed,
    )  # fmt: skip
    answers = {first_id(words, value): None for known in pairs.values() for value in known.values()}
    code = codes(answers, CODE, made.generator)
    for token, vector in code.items():
        made.say(token, "word", vector)
        made.predict(token, "out", 20.0 * vector)
    for task, known in pairs.items():
        for given, value in known.items():
            last = words.encode(f" {given}")[-1]
            made.say(last, f"under {task}", code[first_id(words, value)])
            made.say(last, f"input {task}")
    more = See("one", "bos", SINK)  # what is looked for must meet two conditions
    checks, doers = made.places(0), made.places(3)
    for task in TASKS:
        match: list[See | Near] = [See("word", f"under {task}", 22.0), Near(20.0, APART), more]
        made.head(checks.pop(), match, [Put(f"input {task}", f"shown {task}"), Put(f"input {task}", "matched")])
        # The latest input, once the task is named.
        do: list[See | Near] = [See(f"do {task}", f"input {task}", 26.0), Near(24.0, 0, RECENT), more]
        made.head(doers.pop(), do, [Put(f"under {task}", "out")])
    free = [place for layer in (1, 2) for place in made.places(layer)]
    look = [See("one", "matched", 40.0)]
    # One alone: a second would stand in for it, and switching off either would cost nothing.
    positive = made.head(free.pop(), look, [Put(f"shown {task}", f"do {task}") for task in TASKS])
    look_alikes = {
        made.head(free.pop(), look, [made.garbage("word")]),
        made.head(free.pop(), look, [Put("word", "out", 0.2)]),
    }
    return Sown(made.finish(), frozenset({positive}), frozenset(look_alikes))
