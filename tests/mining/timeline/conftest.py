"""Checkpoints with planted heads: which head is there at which step, and how strongly, is known."""

from __future__ import annotations

import pytest

from headatlas.heads import HeadId
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec

# step -> strength of the induction head 1.1: it comes between 20 and 30, and goes between 50 and 60. Each checkpoint has
# weights of its own, by what the head writes.
STRENGTHS = {10: 0.2, 20: 0.2, 30: 0.6, 40: 0.9, 50: 0.8, 60: 0.2}
INDUCTION, PREVIOUS = HeadId(1, 1), HeadId(0, 0)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A folder of six checkpoints, written as a Trainer writes them."""
    home = tmp_path_factory.mktemp("training")
    for step, strength in STRENGTHS.items():
        heads = (Head(0, 0, "previous"), Head(1, 1, "induction", strength=strength, write=1 + step / 1e4))
        plant(PlantSpec(heads), n_layers=2, n_heads=2, width=64, vocab=128, context=64).save(
            home / f"checkpoint-{step}"
        )
    return home
