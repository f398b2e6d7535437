"""A model whose weights change after it was opened (trained on, loaded anew) beside the same weights opened afresh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.model import LayerView, Model, attach
from headatlas.model.core.head_weights import of_layer
from headatlas.model.structure.model_weights import folded_unembedding
from tests import toys
from tests.methods.sweeps.test_replay import prompts

BATCH = prompts(3, length=10)


def written_for_tokens(model: Model) -> Any:
    """What attending to three tokens writes in favour of three others, by layer."""
    found = []

    def watch(layer: LayerView) -> None:
        found.append(layer.ov_logits(torch.tensor([[1, 2, 3]]).expand(3, -1), BATCH.tokens[:, :3]))

    model.forward(BATCH, watch=watch)
    return torch.stack(found)


READ: dict[str, Callable[[Model], Any]] = {
    "direct effects": lambda model: ha.direct_effects(model, BATCH).values,
    "lens": lambda model: ha.head_lens(model, BATCH, torch.tensor([3, 4, 5])).raised,
    "full OV circuit": written_for_tokens,
    "folded": lambda model: torch.cat([of_layer(layer, fold=True).W_V.flatten() for layer in model.layers]),
    "unembedding": lambda model: folded_unembedding(model)[0],
}


@pytest.mark.parametrize("kind", ["gpt2", "gqa", "softcap"])
@pytest.mark.parametrize("name", READ)
def test_what_is_read_off_the_weights_is_of_the_weights_of_now(kind: str, name: str):
    """Their norms' gains and shifts as well; gemma2 has norms behind its attention, too."""
    model = attach(toys.MAKERS[kind]())
    READ[name](model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.hf.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    fresh = toys.MAKERS[kind]()
    fresh.load_state_dict(model.hf.state_dict())
    np.testing.assert_allclose(READ[name](model), READ[name](attach(fresh)), atol=1e-4, rtol=1e-3)
