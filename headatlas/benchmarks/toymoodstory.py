"""ToyMoodStory: how a character of a short story feels."""

from headatlas.benchmarks._published import generated

BENCHMARK = generated(
    "toymoodstory", "mood-story", "The authors' form of story with our words.", metrics=("logit-difference", "accuracy")
)
