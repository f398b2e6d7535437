"""FV-Capitalize: a word with a capital letter, learnt from examples."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "fv-capitalize",
    "icl-capitalize",
    "Ten examples and a query in the authors' form, with our words.",
    metrics=("accuracy", "logit-lead"),
)
