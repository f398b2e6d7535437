"""Colored Object: the colour of the object that is asked for."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "colored-object",
    "colored-objects",
    "One solved example and three objects in the authors' form, with our words.",
    metrics=("logit-difference", "accuracy"),
)
