"""Needle-in-a-Haystack: one odd fact in a long text."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "needle-in-a-haystack",
    "needle",
    "Our sentences and facts in place of essays; needle-1024 to needle-8192 are longer, a run's depths are 0/9 to 9/9.",
    metrics=("logit-difference"),
)
