"""An iterated map: inputs, then the states they lead to, one after the other; which is next? Cabannes et al. 2024."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, logit_difference, task
from headatlas.tasks._prompts import Example, Piece, collect, forever, singles

INPUTS = 8
# Name -> how many values there are, and the next state of a state and an input; all states begin at 0.
MAPS: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "copy": (11, lambda state, given: given),
    "parity": (2, lambda state, given: (state + given) % 2),
    "polynomial": (11, lambda state, given: (state * given + 1) % 11),
}
LETTERS = "ABCDEFGHIJK"  # a value is written as a letter, which most tokenizers keep whole


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Inputs and states have headings, each on a line of its own."""
    return _built(tokenizer, n, rng, ("In:", "\nOut:"))


@task(metric=logit_difference, version=1, margin=0.3, second=_second)
def iteration(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] "B A B B = B B A": eight inputs, the states so far (here of parity), and the next state is asked for.

    Copying, parity and a polynomial (state times input plus 1, modulo 11) in turn (label map: the place in facts["maps"]).
    Values are letters, A for 0. Positions: input, state (all of them), key (the input that leads to the next state), end. Metric:
    logit of that state minus that of another. Counterfactual: the key is another, and so is the next state. Control: inputs and
    states in random order.
    """
    return _built(tokenizer, n, rng, ("", " ="))


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, form: Sequence[str]) -> Batch:
    ids = singles(tokenizer, LETTERS)
    if len(ids) < len(LETTERS):
        raise UnfitTask(
            f"iteration needs the letters {LETTERS[0]} to {LETTERS[-1]} as single tokens; this tokenizer splits them."
        )

    def draw(number: int) -> Example:
        size, step = list(MAPS.values())[number]
        inputs = rng.integers(size, size=INPUTS).tolist()
        at = int(rng.integers(1, INPUTS))
        states = _states(step, inputs)
        other = [(inputs[at] + turn) % size for turn in range(1, size)]
        changed = next((one for one in other if step(states[at - 1], one) != states[at]), inputs[at])
        turned = [*inputs[:at], changed, *inputs[at + 1 :]]
        wrong = _states(step, turned)[at]
        mixed, said = rng.permutation(inputs).tolist(), rng.permutation(states[:at]).tolist()
        prompts = [
            _prompt(form, given, before, at)
            for given, before in ((inputs, states[:at]), (turned, states[:at]), (mixed, said))
        ]
        return Example(prompts, [ids[LETTERS[states[at]]]], [ids[LETTERS[wrong]]], {"map": number})

    sources = [forever(functools.partial(draw, number)) for number in range(len(MAPS))]
    return collect("iteration", tokenizer, n, sources, words=("key",), maps=list(MAPS))


def _states(step: Callable[[int, int], int], inputs: Sequence[int]) -> list[int]:
    """The state after each input."""
    found = [step(0, inputs[0])]
    for given in inputs[1:]:
        found.append(step(found[-1], given))
    return found


def _prompt(form: Sequence[str], inputs: Sequence[int], states: Sequence[int], at: int) -> list[Piece]:
    front, middle = form
    given = [Piece(f" {LETTERS[one]}", "key" if i == at else "input") for i, one in enumerate(inputs)]
    if not front:
        given[0] = given[0]._replace(text=given[0].text.lstrip())
    before = [Piece(f" {LETTERS[one]}", "state") for one in states]
    return [*([Piece(front)] if front else []), *given, Piece(middle), *before]
