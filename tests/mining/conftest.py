"""A model folder and a finished run on it, for all tests of mining."""

from pathlib import Path

import pytest

import headatlas as ha
from headatlas.atlas import Atlas
from tests import toys
from tests.mining.miner import Miner


@pytest.fixture(scope="package")
def folder(tmp_path_factory) -> Path:
    """A model folder with a tokenizer of ordinary words."""
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=400, max_position_embeddings=160), place)
    return place


@pytest.fixture(scope="package")
def atlas(folder, tmp_path_factory) -> Atlas:
    return ha.mine(ha.load(str(folder)), n=6, out=tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture
def miner(monkeypatch: pytest.MonkeyPatch) -> Miner:
    """Mines a toy in a moment."""
    return Miner(monkeypatch)
