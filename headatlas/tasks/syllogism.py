"""All S are M, all M are P: therefore all S are P. Syllogisms of form AAA-1 in bare letters. Kim et al. 2024."""

from __future__ import annotations

import string

import numpy as np

from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import Example, Piece, collect, filled, forever, halved, pick, singles

_TEMPLATE = "All {subject} are {middle}. All {middle} are {predicate}. Therefore, all {subject} are"
_SECOND = "Whatever is {subject} is {middle}, and whatever is {middle} is {predicate}. So whatever is {subject} is"
_WORDS = frozenset("AI")  # letters that are words as well


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = "first") -> Batch:
    """[bos] "All X are Y. All Y are Z. Therefore, all X are": the answer is Z, and not Y, the middle term.

    Capital letters, which mean nothing; not A and I, which are words. The halves share no letter. Positions: subject, middle,
    middle_2, predicate, subject_2, end. Metric: logit of the predicate minus logit of the middle term. Counterfactual: another
    letter in place of the second middle term, so that nothing follows. Control: three other letters, neither answer among them.
    """
    letters = halved(singles(tokenizer, [one for one in string.ascii_uppercase if one not in _WORDS]), half)
    ids, template = singles(tokenizer, letters), _SECOND if family == "second" else _TEMPLATE

    def prompt(subject: str, middle: str, again: str, predicate: str) -> list[Piece]:
        pieces = filled(template, subject=subject, middle=middle, predicate=predicate)
        return [Piece(f" {again}", piece.role) if piece.role == "middle_2" else piece for piece in pieces]

    def draw() -> Example:
        subject, middle, predicate, x, y, z = pick(letters, rng, 6)
        prompts = [
            prompt(subject, middle, middle, predicate),
            prompt(subject, middle, x, predicate),
            prompt(x, y, y, z),
        ]
        return Example(prompts, [ids[predicate]], [ids[middle]])

    roles = ("subject", "middle", "middle_2", "predicate", "subject_2")
    source = [forever(draw)] if len(letters) >= 6 else []
    return collect("syllogism", tokenizer, n, source, words=roles, half=half)


syllogism, syllogism_held_out = halves(
    "syllogism",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.5,
    second="Another wording: whatever is X is Y, and whatever is Y is Z. So whatever is X is.",
)
