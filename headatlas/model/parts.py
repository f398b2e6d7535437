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
    device = next(linear.parameters()).device
    with torch.no_grad():
        basis = torch.eye(width, device=device, dtype=torch.float32)
        zero: Tensor = linear(torch.zeros_like(basis[:1]))
        columns: Tensor = linear(basis)
        return columns - zero


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
    """A norm over the model's width, by its class name and the shape of its weight."""
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and (
        weight is None or (isinstance(weight, Tensor) and weight.ndim == 1)
    )


def norm_gain(norm: nn.Module, width: int) -> tuple[Tensor, bool]:
    """(gain [d_model], whether it subtracts the mean) of a LayerNorm or RMSNorm of any convention, by asking it."""
    parameter = next(norm.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    dtype = parameter.dtype if parameter is not None else torch.float32
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, width, generator=generator)
    x = (x - x.mean()) / x.std(correction=0)
    with torch.no_grad():
        ask: Callable[[Tensor], Tensor] = lambda value: norm(value.to(device, dtype)).float()  # noqa: E731
        gain = (ask(x) - ask(-x)) / (2 * x.to(device))
        shifted = ask(x + 3.0)
        centers = bool(torch.allclose(shifted, ask(x), atol=1e-3 * float(gain.abs().max() + 1)))
    return gain[0], centers
