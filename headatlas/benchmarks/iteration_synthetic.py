"""Iteration-Synthetic: the next state of an iterated map."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "iteration-synthetic",
    "iteration",
    "Copying, parity and a polynomial modulo 11; states stand as letters in one sequence, as in the paper, for a model that was not trained on them.",
    metrics=("logit-difference", "accuracy"),
)
