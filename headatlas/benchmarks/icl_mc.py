"""ICL-MC: the next state of a Markov chain that its sequence defines."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "icl-mc",
    "markov",
    "Rows from a flat Dirichlet distribution as in the paper; states are words of the model, which was not trained on them.",
    metrics=("next-token-loss"),
)
