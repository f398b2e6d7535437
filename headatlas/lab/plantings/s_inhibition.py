"""Heads that tell the name movers whom to avoid."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._names import names_circuit
from headatlas.lab.plantings._sowing import sown


@planting("s-inhibition", examples=32)
def s_inhibition(seed: int) -> Sown:
    """The head that reads the second subject and writes what movers avoid; beside it one that reads it and writes where nobody reads."""
    one = names_circuit(seed)
    return sown(one.planted, [one.inhibition], [one.deaf, one.early])
