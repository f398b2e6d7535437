"""Lines of three words in which the first comes back, or the second: which, only the lines tell. Yang et al. 2025."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import (
    FIRST,
    Example,
    Pieces,
    collect,
    filled,
    forever,
    halved,
    pick,
    shuffled,
    singles,
    table,
)

SHOTS = 4  # the paper has 2 for its largest model and 10 for the others; patched runs take as long as prompts are
RULES = ("ABA", "ABB")


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] four lines "A ^ B ^ A" (rule ABA), or "A ^ B ^ B" (rule ABB), of two words each, and "C ^ D ^": C or D?

    Both rules in turn (label rule: 0 ABA, 1 ABB); no word stands in two lines, the halves share none. Positions: first, second, third (of
    the four lines), left, right (C and D), end. Metric: logit of the right one of C and D minus the other's. Counterfactual: the first two
    words of each line, and C and D, have changed places; the third words and the right answer stay, so that the rule is the other one.
    Control: half of the lines follow either rule.
    """
    form = table("identity_rules", family)
    words = [word for known in table("abstract_patterns")["classes"].values() for word in known]
    ids = singles(tokenizer, halved(words, half))
    if len(ids) < 2 * SHOTS + 2:
        raise UnfitTask("identity-rules needs words that are one token; this tokenizer splits them.")

    def draw(rule: int) -> Example:
        chosen = pick(list(ids), rng, 2 * SHOTS + 2)
        pairs = list(zip(chosen[::2], chosen[1::2], strict=True))
        mixed = shuffled([0, 1] * (SHOTS // 2), rng)
        prompts: list[Pieces] = [_prompt(pairs, [rule] * SHOTS), _prompt([(b, a) for a, b in pairs], [1 - rule] * SHOTS), _prompt(pairs, mixed)]  # fmt: skip
        right, wrong = pairs[-1][rule], pairs[-1][1 - rule]
        return Example(prompts, [ids[right]], [ids[wrong]], {"rule": rule})

    def _prompt(pairs: list[tuple[str, str]], rules: list[int]) -> Pieces:
        *shown, (left, right) = pairs
        pieces = []
        for pair, rule in zip(shown, rules, strict=True):
            pieces += filled(form["line"], first=pair[0], second=pair[1], third=pair[rule])
        return [*pieces, *filled(form["last"], left=left, right=right)]

    sources = [forever(functools.partial(draw, rule)) for rule in range(len(RULES))]
    return collect("identity-rules", tokenizer, n, sources, words=("left", "right"), half=half)


identity_rules, identity_rules_held_out = halves(
    "identity-rules",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Commas between the words, and full stops behind the lines.",
)
