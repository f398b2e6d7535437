"""World-Capital: a capital, against a false statement before the question."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "world-capital",
    "knowledge-conflict",
    "Countries, capitals and wordings of ours; the authors' files are not needed.",
    metrics=("logit-difference", "accuracy"),
)
