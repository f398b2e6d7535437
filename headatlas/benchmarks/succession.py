"""Succession: what follows in an ordered sequence."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "succession",
    "succession",
    "The kinds of sequence that the authors name, in our wording.",
    metrics=("logit-difference", "accuracy"),
)
