"""The initials of a name of three words, one letter at a time. García-Carrasco et al. 2024."""

from __future__ import annotations

import functools
import string

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_margin
from headatlas.tasks._prompts import FIRST, Example, Piece, Pieces, collect, filled, forever, pick, table

SLOTS = ("first", "second", "third")


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The Animal Bridge Copper (AB": the answer is C.

    Prompts for the first, second and third letter come in turn (label letter: 0 to 2); the letters before it are fed as
    single tokens, since "AB" may be a token of its own. Positions: first, second, third (all tokens of the words; first_last ... their last), letters (given), end.
    Metric: logit of the letter minus the highest of the other 25. Counterfactual: another word in the place asked for.
    Control: three words with other initials than the answer.
    """
    data = table("acronyms", family)
    ids = {letter: tokenizer.encode(letter) for letter in string.ascii_uppercase}
    if any(len(found) != 1 for found in ids.values()):
        raise UnfitTask("acronyms needs capital letters that are one token; this tokenizer splits them.")
    letter_ids = {letter: found[0] for letter, found in ids.items()}
    nouns: list[str] = data["nouns"][half]
    by_size: dict[int, list[str]] = {}
    for noun in nouns:
        by_size.setdefault(len(tokenizer.encode(f" {noun}")), []).append(noun)

    def draw(letter: int) -> Example:
        words = _different(nouns, [], 3, rng)
        answer = words[letter][0]
        alike = [by_size[len(tokenizer.encode(f" {word}"))] for word in words]
        other = _different(alike[letter], words, 1, rng)
        taken = [*words, *other]
        strangers: list[str] = []
        for same in alike:
            strangers += _different(same, [*taken, *strangers], 1, rng)
        changed = [*words[:letter], *other, *words[letter + 1 :]]
        given = [letter_ids[word[0]] for word in words[:letter]]
        prompts = [_prompt(data["template"], one, given) for one in (words, changed, strangers)]
        wrong = [one for name, one in letter_ids.items() if name != answer]
        return Example(prompts, [letter_ids[answer]], wrong, {"letter": letter})

    sources = [forever(functools.partial(draw, letter)) for letter in range(3)]
    return collect("acronyms", tokenizer, n, sources, spans=SLOTS, half=half)


def _different(words: list[str], others: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """`n` words whose initials differ from each other and from those of the others; raises UnfitTask if there are none."""
    free = [word for word in words if word[0] not in {other[0] for other in others}]
    for _ in range(200):
        found = pick(free, rng, n) if len(free) >= n else []
        if found and len({word[0] for word in found}) == n:
            return found
    raise UnfitTask("acronyms needs words of one length in tokens with different initials; this tokenizer has too few.")


def _prompt(template: str, words: list[str], given: list[int]) -> Pieces:
    pieces = filled(template, **dict(zip(SLOTS, words, strict=True)))
    return [*pieces, *(Piece("", "letters", (one,)) for one in given)]


acronyms, acronyms_held_out = halves(
    "acronyms",
    _build,
    metric=logit_margin,
    version=1,
    margin=1.0,
    second="Three words that people shorten to their initials.",
)
