"""What users wrap a model in, as small modules of the same behaviour, and every public method that touches heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import headatlas as ha
from headatlas.heads import HeadId
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.information_flow.routes import importances
from headatlas.methods.logit_lens import head_lens
from headatlas.model.structure.model_weights import folded_unembedding, weights_of
from headatlas.task import logit_difference
from tests.methods.sweeps.test_replay import prompts

TOKENS = torch.randint(5, 150, (9,), generator=torch.Generator().manual_seed(0))


class Adapted(nn.Module):
    """A linear map with a low-rank one beside it, which reads the same input (LoRA)."""

    def __init__(self, base_layer: nn.Linear, rank: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        self.base_layer, self.scale = base_layer, scale
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base_layer.out_features, bias=False)})
        for part in (self.lora_A, self.lora_B):
            nn.init.normal_(part["default"].weight, std=0.2, generator=torch.Generator().manual_seed(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.scale * self.lora_B["default"](self.lora_A["default"](x))

    def merged(self) -> nn.Linear:
        change = self.lora_B["default"].weight @ self.lora_A["default"].weight
        with torch.no_grad():
            self.base_layer.weight += self.scale * change
        return self.base_layer


class InOneClass(nn.Linear):
    """The same in one class, with a weight that is not all (loralib)."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.load_state_dict(base.state_dict())
        generator = torch.Generator().manual_seed(3)
        self.lora_A = nn.Parameter(0.2 * torch.randn(rank, base.in_features, generator=generator))
        self.lora_B = nn.Parameter(0.2 * torch.randn(base.out_features, rank, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.lora_A.T @ self.lora_B.T

    def merged(self) -> nn.Linear:
        result = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        result.load_state_dict({k: v for k, v in self.state_dict().items() if not k.startswith("lora")})
        with torch.no_grad():
            result.weight += self.lora_B @ self.lora_A
        return result


class Bent(nn.Module):
    """A nonlinear adapter beside a linear map (a parallel bottleneck)."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down, self.up = nn.Linear(base_layer.in_features, 4), nn.Linear(4, base_layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.up(functional.gelu(self.down(x)))


class Packed(nn.Module):
    """int8 weights with a scale per row, and nothing that could be taken for a weight; `rounds`: what it does to its input."""

    def __init__(self, base: nn.Linear, rounds: str = "") -> None:
        super().__init__()
        self.in_features, self.out_features, self.rounds = base.in_features, base.out_features, rounds
        scale = base.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("packed", (base.weight.detach() / scale).round().to(torch.int8))
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.rounds:
            step = (x.abs().amax(-1, keepdim=True) if self.rounds == "token" else x.abs().max()).clamp(min=1e-9) / 127
            x = (x / step).round() * step
        return functional.linear(x, self.packed.to(x.dtype) * self.scale, self.bias)

    def merged(self) -> nn.Linear:
        result = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        with torch.no_grad():
            result.weight.copy_(self.packed * self.scale)
            if self.bias is not None:
                result.bias.copy_(self.bias)
        return result


def swapped(hf: nn.Module, make: Callable[[Any], nn.Module], *names: str) -> nn.Module:
    """The model with the modules of these last names made over."""
    for path, module in reversed(list(hf.named_modules())):  # what is within comes first
        home, _, name = path.rpartition(".")
        if name in names and module in hf.get_submodule(home).children():
            setattr(hf.get_submodule(home), name, make(module))
    return hf.eval()


def _grid(found: Any) -> np.ndarray:
    return np.asarray(found.effects)


def _batch(n: int = 3) -> Any:
    batch = prompts(n)
    return replace(batch, counterfactual=replace(batch.counterfactual, mask=batch.mask))


def _watched(model: ha.Model) -> Tensor:
    seen: list[Tensor] = []
    model.forward(_batch().tokens, watch=lambda layer: seen.extend((layer.z, layer.writes(), layer.pattern)))
    return torch.cat([part.flatten() for part in seen])


def _weights(model: ha.Model) -> Tensor:
    found = [weights_of(model, layer.index) for layer in model.layers]
    maps = [
        (one.W_Q @ one.per_head(one.W_K).mT, one.per_head(one.W_V) @ one.W_O)  # QK and OV circuits
        for one in found
    ]
    return torch.cat([part.flatten() for pair in maps for part in pair] + [folded_unembedding(model)[0].flatten()])


METHODS: Mapping[str, Callable[[ha.Model], Any]] = {
    "forward": lambda model: model.forward(_batch().tokens),
    "watch": _watched,
    "ablate": lambda model: _grid(ha.ablate(model, _batch(), edit="zero")),
    "patch": lambda model: _grid(ha.patch(model, _batch())),
    "attribute direct": lambda model: ha.attribute(model, _batch(), method="direct").values,
    "attribute atp": lambda model: ha.attribute(model, _batch(), method="atp").values,
    "edge_scores": lambda model: edge_scores(model, _batch(), logit_difference)[1],
    "direct_effects": lambda model: ha.direct_effects(model, _batch()).values,
    "path_patch": lambda model: _grid(
        ha.path_patch(model, _batch(), [HeadId(0, 1), HeadId(1, 2)], ("logits", "q:2.0"))
    ),
    "head_lens": lambda model: head_lens(model, _batch(), torch.full((3,), 4)).size,
    "flow": lambda model: torch.cat([one.heads.flatten() for one in importances(model, TOKENS)]),
    "copy_scores": lambda model: [scores.values for scores in ha.copy_scores(model, TOKENS.unique(), 2)],
    "weights": _weights,
}
