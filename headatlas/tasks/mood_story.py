"""Two people with opposite tastes meet the same event; how does one of them feel? Tigges et al. 2023 (ToyMoodStory)."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, collect, filled, forever, pick, singles, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "In this story A loves parties, and B hates parties. One day ... So now A is very": a good mood or a bad one?

    Prompts that ask for the person who likes (label positive 1) and who dislikes the thing come in turn; who is named first is drawn (label
    first_asked). Positions: first, second, asked (names), first_taste, second_taste, things, event, end. Metric: mean
    logit of moods that fit minus those that do not. Counterfactual: the other person is asked for. Control: a stranger.
    """
    data = table("mood_story", family)
    names = sorted(singles(tokenizer, table("ioi")["names"][half]))
    answers = [list(singles(tokenizer, data["answers"][kind]).values()) for kind in ("negative", "positive")]
    size = min(map(len, answers))
    if size == 0 or len(names) < 3:
        raise UnfitTask("mood-story needs names and moods that are one token; this tokenizer splits them.")
    things = sorted(data["things"][half].items())

    def draw(kind: int) -> Example:
        number, taste, first_asked = (
            int(rng.integers(k)) for k in (len(data["templates"]), len(data["tastes"]["likes"]), 2)
        )
        thing, event = things[int(rng.integers(len(things)))]
        first, second, stranger = pick(names, rng, 3)
        first_likes = kind == first_asked  # the first person likes it if asked for and happy, or neither
        tastes = [data["tastes"]["likes" if likes else "dislikes"][taste] for likes in (first_likes, not first_likes)]
        asked, other = (first, second) if first_asked else (second, first)
        prompts = [
            filled(
                data["templates"][number], first=first, second=second, first_taste=tastes[0], second_taste=tastes[1],
                things=thing, event=event, asked=who,
            )
            for who in (asked, other, stranger)
        ]  # fmt: skip
        labels = {"template": number, "positive": kind, "first_asked": first_asked}
        return Example(prompts, answers[kind][:size], answers[1 - kind][:size], labels)

    sources = [forever(functools.partial(draw, kind)) for kind in (1, 0)]
    return collect("mood-story", tokenizer, n, sources, words=("first", "second", "asked"), half=half)


mood_story, mood_story_held_out = halves(
    "mood-story",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Letters and scenes in place of stories.",
)
