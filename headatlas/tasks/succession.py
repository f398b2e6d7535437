"""Three members of an ordered series; which comes next? Gould et al. 2023; Lan et al. 2023."""

from __future__ import annotations

import itertools

import numpy as np

from headatlas.renamed import old_names
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, halved, shuffled, singles, table

SHOWN = 3


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Monday, Tuesday, Wednesday,": the answer is Thursday, and not Wednesday, the last member shown.

    Days, months, number words, tens, letters, ordinals, digits, Roman numerals (label series: the place in facts["series"])
    as far as the tokenizer has them as single tokens, in three wordings (label template). The halves share no answer of a series.
    Positions: first, second, last, end. Metric: logit of the next member minus logit of the last one shown.
    Counterfactual: another run of the series. Control: three members that do not follow each other, neither the answer
    nor the last member among them.
    """
    data = table("succession", family)
    names = list(data["series"])
    known = {name: singles(tokenizer, data["series"][name]["members"]) for name in names}
    templates = [f" {text}" if text.startswith("{") else text for text in data["templates"]]

    def examples() -> list[Example]:
        found = []
        for series, name in enumerate(names):
            members, cyclic = data["series"][name]["members"], data["series"][name]["cyclic"]
            ids = known[name]
            starts = range(len(members) if cyclic else len(members) - SHOWN)
            runs = [[members[(i + k) % len(members)] for k in range(SHOWN + 1)] for i in starts]
            runs = [run for run in runs if all(member in ids for member in run)]
            for run in halved(runs, half):
                others = [other for other in runs if other[-1] != run[-1] and other[-1] not in run]
                loose = _loose([m for m in members if m in ids and m not in run[-2:]], members, rng)
                if not others or not loose:
                    continue
                shown = [run, others[int(rng.integers(len(others)))], loose]
                for number, template in enumerate(templates):
                    prompts = [_prompt(template, members_shown) for members_shown in shown]
                    labels = {"series": series, "template": number}
                    found.append(Example(prompts, [ids[run[-1]]], [ids[run[-2]]], labels))
        return found

    source = iter(shuffled(examples(), rng))
    roles = ("first", "second", "last")
    return collect("succession", tokenizer, n, [source], words=roles, even=False, half=half, series=names)


def _prompt(template: str, members: list[str]) -> list[Piece]:
    first, second, last = members[:SHOWN]
    text = template.replace("{0}", "{first}").replace("{1}", "{second}").replace("{2}", "{last}")
    return filled(text, first=first, second=second, last=last)


def _loose(free: list[str], members: list[str], rng: np.random.Generator) -> list[str]:
    """Three of the free members in random order, none next to its neighbour in the series; [] where there are none."""
    for _ in range(50):
        found = shuffled(free, rng)[:SHOWN]
        places = [members.index(member) for member in found]
        apart = (abs(a - b) % (len(members) - 1) > 1 for a, b in itertools.pairwise(places))
        if len(found) == SHOWN and all(apart):
            return found
    return []


succession, succession_held_out = halves(
    "succession",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.5,
    second="Series with other words and marks between the members.",
)


__getattr__ = old_names(__name__)
