"""The families of the zoo as tests open them: each model once, an untouched copy of it, and inputs."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headatlas.model import Model, attach
from headatlas.model.families import tiny_models

FAMILIES = sorted(tiny_models.FAMILIES)
TEXT = [name for name in FAMILIES if name not in ("whisper", "vit", "deit", "dinov2")]
every_family = pytest.mark.parametrize("name", FAMILIES)
every_text_model = pytest.mark.parametrize("text", TEXT)


@functools.cache
def opened(name: str) -> Model:
    return attach(tiny_models.family(name).build())


@functools.cache
def untouched(name: str) -> nn.Module:
    return tiny_models.family(name).build()


def tokens(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(seed))


def inputs(name: str, n: int = 2, length: int = 24) -> dict[str, Tensor]:
    """Inputs in the model's own words; an encoder and its decoder get texts of different lengths."""
    if name == "whisper":
        sound = torch.randn(n, 8, 40, generator=torch.Generator().manual_seed(3))
        return {"input_features": sound, "decoder_input_ids": tokens(n, 17, 1)}
    if name not in TEXT:
        return {"pixel_values": torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(3))}
    if opened(name).kind == "encoder-decoder":
        return {"input_ids": tokens(n, length), "decoder_input_ids": tokens(n, 17, 1)}
    return {"input_ids": tokens(n, length)}


def collect(model: Model, given: Any, take: Any) -> dict[tuple[str, int], Any]:
    found: dict[tuple[str, int], Any] = {}

    def watch(layer: Any) -> None:
        assert (layer.stack, layer.index) not in found, "a layer was seen twice"
        found[layer.stack, layer.index] = take(layer)

    model.forward(given, watch=watch)
    return found
