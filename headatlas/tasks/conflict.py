"""The context claims a wrong capital: does the model follow the text or what it knows? Jin et al. 2024 (World Capital)."""

from __future__ import annotations

import numpy as np

from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, collect, filled, first_tokens, halved, shuffled, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The capital of France is the city of Rome. The capital of France is the city of": Rome by the text.

    Four ways to contradict, in turn (label kind: the place in facts["kinds"]); the halves share no country. answer is what
    the context claims, wrong is the true capital, so the metric, logit of the first minus that of the second, is positive
    where the context wins and negative where memory does. Positions: country and claim (first mentions; country_2, claim_2 later
    ones), end. Counterfactual: the context states the truth. Control: the context claims a third city: where the metric
    is far above that, the model reads the claim, whether or not the claim wins.
    """
    data = table("conflict", family)
    every = table("facts")["relations"][data["relation"]]["pairs"]
    ids = first_tokens(tokenizer, every)
    pairs = {country: every[country] for country in halved([c for c, city in every.items() if city in ids], half)}
    size = {city: len(tokenizer.encode(f" {city}")) for city in pairs.values()}
    kinds = list(data["conflicts"])

    def examples(kind: int) -> list[Example]:
        found = []
        for country, truth in shuffled(pairs.items(), rng):
            rivals = [city for city in shuffled(pairs.values(), rng) if city != truth and size[city] == size[truth]]
            for claim, third in zip(rivals[::2], rivals[1::2], strict=False):
                prompts = [
                    filled(data["conflicts"][kinds[kind]], country=country, claim=c) for c in (claim, truth, third)
                ]
                found.append(Example(prompts, [ids[claim]], [ids[truth]], {"kind": kind}))
        return shuffled(found, rng)

    sources = [iter(examples(kind)) for kind in range(len(kinds))]
    return collect(
        "knowledge-conflict", tokenizer, n, sources, spans=("country", "claim"), half=half, kinds=kinds,
        relation=data["relation"],
    )  # fmt: skip


knowledge_conflict, knowledge_conflict_held_out = halves(
    "knowledge-conflict",
    _build,
    metric=logit_difference,
    version=1,
    margin=1.0,
    second="Seats of government in place of capitals, in other texts.",
)
