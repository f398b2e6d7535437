"""Heads that argue against the name that is predicted."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._names import names_circuit
from headatlas.lab.plantings._sowing import sown


@planting("negative-name-mover")
def negative_name_mover(seed: int) -> Sown:
    """The head that lowers the name that the mover predicts; beside it movers, and one that attends to the name and writes garbage."""
    one = names_circuit(seed)
    return sown(one.planted, [one.negative], [one.mover, one.early, one.silent])
