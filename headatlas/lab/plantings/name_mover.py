"""Name movers of a whole circuit."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._names import names_circuit
from headatlas.lab.plantings._sowing import sown


@planting("name-mover")
def name_mover(seed: int) -> Sown:
    """The head that names the person it is not told to avoid; beside it one that names all people alike, and one that attends like a mover and writes garbage."""
    one = names_circuit(seed)
    return sown(one.planted, [one.mover], [one.early, one.silent, one.negative])
