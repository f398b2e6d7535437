"""True and false statements in pairs that differ in one word: does the model tell them apart? Marks and Tegmark 2023."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._pairs import pairs
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, singles, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The capital of Italy is Rome. This statement is": true, or false?

    True and false statements in turn (label truth: 1 and 0, for probing), of several topics (label topic: the place in
    facts["topics"]). Label pair names the two that differ in one word only, so that a split can keep them together; the
    halves share no pair. Positions: decisive (all tokens of that word), stop (the full stop, where probes read), end.
    Metric: logit of the right one of " true" and " false" minus the other. Counterfactual: the pair's other statement.
    Control: the decisive word comes from another topic, which makes nonsense.
    """
    answers = singles(tokenizer, ["false", "true"])
    if len(answers) < 2:
        raise UnfitTask("statements needs 'true' and 'false' as single tokens; this tokenizer splits them.")
    data = table("statements", family)
    topics = data["topics"]
    ids = [answers["false"], answers["true"]]

    def examples(truth: int) -> Iterator[Example]:
        for pair in pairs(topics, 1 - truth, half, rng):
            prompts = [
                [Piece(part[0].text.lstrip(), part[0].role), *part[1:], Piece(data["suffix"])]
                for part in (pair.own, pair.other, pair.nonsense)
            ]
            labels = {"truth": truth, "topic": pair.topic, "pair": pair.number}
            yield Example(prompts, [ids[truth]], [ids[1 - truth]], labels)

    sources = [examples(1), examples(0)]
    return collect("statements", tokenizer, n, sources, words=("stop",), half=half, topics=list(topics))


statements, statements_held_out = halves(
    "statements",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="The same kind of statements, asked about as a claim.",
)
