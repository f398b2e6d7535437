"""A small model, and what it gives undisturbed."""

import pytest
import torch

from headatlas.model import Model, attach
from tests import toys
from tests.model.core.passes import EDITS, IDS, plain


@pytest.fixture
def model() -> Model:
    return attach(toys.llama())


@pytest.fixture
def truth(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """What the plain model gives, and what an undisturbed pass with edits gives."""
    return plain(model.hf), model.forward(IDS, edits=EDITS)
