"""A model's own cache of a text: read once, gone on with any number of times."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from headatlas.model.core.hooks import evaluating
from headatlas.model.core.model import Model

OwnCache = DynamicCache


def new_cache(model: Model) -> OwnCache:
    """An empty cache of the kind that `generate()` makes: sliding layers hold their window."""
    return DynamicCache(config=model.config)


@torch.no_grad()
def read_text(model: Model, tokens: Tensor) -> OwnCache:
    """The model's own cache of a text [pos], read in full."""
    past = new_cache(model)
    few: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in model.accepts else {}
    with evaluating(model.hf):
        model.hf(input_ids=tokens[None].to(model.device), past_key_values=past, use_cache=True, **few)
    return past


def again(past: OwnCache) -> OwnCache:
    """The same cache to go on with: what a run appends makes new tensors, and leaves these."""
    other = copy.copy(past)
    other.layers = [copy.copy(layer) for layer in past.layers]
    return other


def cache_bytes(past: OwnCache) -> int:
    """Bytes of the keys and values that a model's own cache holds."""
    layers: list[Any] = list(past.layers)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.keys is not None)
