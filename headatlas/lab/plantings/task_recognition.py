"""Heads that raise the labels that are shown, and heads that raise labels whatever is shown."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._classes import classes


@planting("task-recognition", examples=32)
def task_recognition(seed: int) -> Sown:
    """A head raises all labels of the prompt alike; look-alikes attend to them and write garbage, or raise the name of the query's kind, or those of all kinds, shown or not."""
    made = classes(seed)
    # What raises one of the labels that are shown is in their subspace, too.
    undecided = frozenset({made.learning, made.last})
    return Sown(made.model, frozenset({made.recognition}), made.knowing | made.idle, undecided)
