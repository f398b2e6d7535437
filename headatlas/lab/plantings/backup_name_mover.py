"""Heads that take over where the name mover is gone."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._names import names_circuit
from headatlas.lab.plantings._sowing import sown


@planting("backup-name-mover")
def backup_name_mover(seed: int) -> Sown:
    """The head that names the person only where no earlier head does; beside it movers, and one that attends to the name and writes garbage."""
    one = names_circuit(seed)
    return sown(one.planted, [one.backup], [one.early, one.silent], gone=[one.mover])
