"""What the small parts of a model are (linear maps, norms) and what they do, learned by asking them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel


def matrix(linear: nn.Module) -> Tensor:
    """The weight of a linear map as [in, out], whether nn.Linear, Conv1D or quantised."""
    weight = getattr(linear, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
        return weight if is_conv1d(linear) else weight.T
    width = int(getattr(linear, "in_features", 0))
    if not width:
        raise UnsupportedModel(
            f"The weight of {type(linear).__name__} cannot be read.", "Load the model without quantisation."
        )
    # Quantised: what the map does to the unit vectors, which is its matrix, dequantised by its own code.
    with torch.no_grad():
        basis = torch.eye(width, device=device_of(linear), dtype=torch.float32)
        zero: Tensor = linear(torch.zeros_like(basis[:1]))
        columns: Tensor = linear(basis)
        return columns - zero


def offset(linear: nn.Module) -> Tensor | None:
    """The bias of a linear map, [out] or None, quantised or not."""
    bias = getattr(linear, "bias", None)
    if bias is None or (isinstance(bias, Tensor) and bias.is_floating_point()):
        return bias
    with torch.no_grad():
        zeros = torch.zeros(1, int(getattr(linear, "in_features", 0)), device=device_of(linear))
        found: Tensor = linear(zeros)
        return found[0]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next((part.device for part in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def is_conv1d(linear: nn.Module) -> bool:
    """Whether the weight is stored [in, out] (GPT-2's Conv1D)."""
    return type(linear).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """A leaf that maps vectors to vectors: nn.Linear, Conv1D, quantised variants."""
    if any(True for _ in module.children()) or isinstance(module, nn.Embedding):
        return False
    weight = getattr(module, "weight", None)
    return (
        isinstance(module, nn.Linear)
        or is_conv1d(module)
        or hasattr(module, "in_features")
        or (isinstance(weight, Tensor) and weight.ndim == 2 and "Linear" in type(module).__name__)
    )


def is_norm(module: nn.Module) -> bool:
    """A norm over the model's width: called so, with a weight per channel or none, and without linear maps inside.

    The last tells it from blocks and attention with a norm in their name (DBRX, RoBERTa-PreLayerNorm).
    """
    weight = getattr(module, "weight", None)
    return (
        "norm" in type(module).__name__.lower()
        and (weight is None or (isinstance(weight, Tensor) and weight.ndim == 1))
        and not any(is_linear(part) for part in module.modules())
    )


def norm_gain(norm: nn.Module, width: int) -> tuple[Tensor, bool]:
    """(gain [d_model], whether it subtracts the mean) of a LayerNorm or RMSNorm of any convention, by asking it."""
    x, ask = _question(norm, width)
    gain = (ask(x) - ask(-x)) / (2 * x)
    centers = bool(torch.allclose(ask(x + 3.0), ask(x), atol=1e-3 * float(gain.abs().max() + 1)))
    return gain[0], centers


def norm_shift(norm: nn.Module, width: int) -> Tensor:
    """What a norm adds to everything, [d_model]; zero for an RMSNorm."""
    x, ask = _question(norm, width)
    return ((ask(x) + ask(-x)) / 2)[0]


def normalises(norm: nn.Module, width: int) -> bool:
    """Whether the size of its input does not matter; MobileBERT's "NoNorm" only scales and shifts."""
    x, ask = _question(norm, width)
    return bool(torch.allclose(ask(4 * x), ask(x), rtol=1e-2, atol=1e-2))


def _question(norm: nn.Module, width: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A vector of mean 0 and variance 1, and the norm as a function of such vectors."""
    parameter = next(norm.parameters(), torch.zeros((), device=device_of(norm)))
    x = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    x = ((x - x.mean()) / x.std(correction=0)).to(parameter.device)

    @torch.no_grad()
    def ask(value: Tensor) -> Tensor:
        found: Tensor = norm(value.to(parameter.dtype)).float()
        return found

    return x, ask
