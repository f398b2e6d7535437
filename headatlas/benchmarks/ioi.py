"""IOI: the other of two names."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "ioi",
    "ioi",
    "Our templates and names in the form of the authors', with either name first.",
    metrics=("logit-difference", "accuracy"),
)
