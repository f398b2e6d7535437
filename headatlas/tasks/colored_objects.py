"""Three objects with three colors; which color has one of them? Merullo et al. 2024."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_margin
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, forever, pick, singles, table

KINDS = 3


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] one answered question, then "... a red pen, a blue cup and a green book. Which color does the cup have? Answer:".

    The first, second and third object is asked for in turn (label asked: 0 to 2). Positions: color1 to color3, object1
    to object3, asked, end. Metric: logit of the color minus that of the better of the other
    two. Counterfactual: another of the three objects is asked for. Control: a fourth object is asked for.
    """
    data = table("colored_objects", family)
    colors = singles(tokenizer, data["colors"])
    objects = sorted(singles(tokenizer, data["objects"][half]))
    if len(colors) < KINDS or len(objects) < KINDS + 1:
        raise UnfitTask("colored-objects needs colors and objects that are one token; this tokenizer splits them.")

    def scene(asked: int) -> tuple[dict[str, str], list[str], list[str]]:
        things, paints = pick(objects, rng, KINDS + 1), pick(sorted(colors), rng, KINDS)
        slots = {f"object{i + 1}": things[i] for i in range(KINDS)} | {f"color{i + 1}": paints[i] for i in range(KINDS)}
        slots |= {what: str(rng.choice(data[name])) for what, name in (("place", "places"), ("seen", "seen"))}
        return {**slots, "asked": things[asked]}, things, paints

    def draw(asked: int) -> Example:
        which = int(rng.integers(KINDS))
        shot, _, shot_paints = scene(which)
        front = [*filled(data["template"], **shot), *filled(data["shot_end"], answer=shot_paints[which])]
        slots, things, paints = scene(asked)
        other = (asked + int(rng.integers(1, KINDS))) % KINDS
        prompts = []
        for thing in (things[asked], things[other], things[KINDS]):
            # Only the last question has roles: the one before it is there to show the form.
            shown = [Piece(piece.text) for piece in front]
            prompts.append([*shown, *filled(data["template"], **{**slots, "asked": thing})])
        wrong = [colors[paint] for i, paint in enumerate(paints) if i != asked]
        return Example(prompts, [colors[paints[asked]]], wrong, {"asked": asked})

    sources = [forever(functools.partial(draw, asked)) for asked in range(KINDS)]
    words = [f"{kind}{i + 1}" for kind in ("object", "color") for i in range(KINDS)]
    return collect("colored-objects", tokenizer, n, sources, words=(*words, "asked"), half=half)


colored_objects, colored_objects_held_out = halves(
    "colored-objects",
    _build,
    metric=logit_margin,
    version=1,
    margin=0.5,
    second="The object is named before its color, in Q: and A:.",
)
