"""What a watcher sorts or selects in a padded pass is no choice of the model's keys."""

import torch

from headatlas.model import attach
from headatlas.model.core.pass_context import Tokens
from tests import toys


def test_a_watcher_may_take_the_strongest_keys_of_a_padded_text():
    model = attach(toys.llama())
    tokens = torch.arange(3, 27).reshape(2, 12)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, 8:] = False
    seen = []
    # Sharp attention leaves next to nothing for most keys: which of these come third is up to rounding.
    model.forward(
        Tokens(tokens, mask), watch=lambda layer: seen.append(layer.reduce(lambda rows, _: rows.pow(20).topk(3).values))
    )
    assert len(seen) == len(model.layers)
