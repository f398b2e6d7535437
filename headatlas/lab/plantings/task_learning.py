"""Heads that raise the label of the examples that are like the query, and heads that raise all labels, the last one, or what they know."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._classes import classes


@planting("task-learning", examples=32)
def task_learning(seed: int) -> Sown:
    """A head raises the labels behind words of the query's kind; look-alikes attend there and write garbage, raise all labels, the last one, or the name of the query's kind whatever the examples say."""
    made = classes(seed)
    others = {made.recognition, made.last} | made.knowing | made.idle
    return Sown(made.model, frozenset({made.learning}), frozenset(others))
