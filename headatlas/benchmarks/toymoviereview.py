"""ToyMovieReview: a short templated film review."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "toymoviereview",
    "movie-review",
    "The authors' form of review with our words.",
    metrics=("logit-difference", "accuracy"),
)
