"""A recipe in force on a plain transformers model: torch and safetensors are all that this file needs.

    from recipe import attach
    with attach(model):           # a transformers model in memory, the one that the recipe was fitted on
        model.generate(**inputs, max_new_tokens=40)

`attach` puts hooks in front of output projections (scale * z + shift in the columns of a head), in front of blocks
(a vector added to the residual stream) and behind query projections (weights added to a head's rows); `detach()`, or leaving the `with`, takes them away. Where recipe.json says
"answering", they act at the last token of each forward pass only, so that texts of several lengths must be padded on the left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


class Attached:
    """Hooks in force; leaving the `with`, or detach(), takes them away."""

    def __init__(self, handles: list[Any]) -> None:
        self.handles = handles

    def detach(self) -> None:
        """Give the model back as it was."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def attach(model: torch.nn.Module, folder: str | Path | None = None) -> Attached:
    """Put the recipe of a folder (default: that of this file) in force. Raises ValueError for another model."""
    place = Path(__file__).parent if folder is None else Path(folder)
    recipe = json.loads((place / "recipe.json").read_text(encoding="utf-8"))
    numbers = load_file(place / "recipe.safetensors")
    modules = dict(model.named_modules())
    newest = recipe["when"] == "answering"
    for one in recipe["changes"]:  # all of them, before anything is changed
        _demand(modules, one, recipe["model"])
    handles = []
    for one in recipe["changes"]:
        module = modules[one["module"]]
        if "weight" in one["tensors"]:
            handles.append(module.register_forward_hook(_More(numbers[one["tensors"]["weight"]])))
            continue
        change = _Change({name: numbers[key] for name, key in one["tensors"].items()}, newest)
        handles.append(module.register_forward_pre_hook(change, with_kwargs=True))
    return Attached(handles)


def _demand(modules: dict[str, torch.nn.Module], one: dict[str, Any], name: str) -> None:
    module = modules.get(one["module"])
    if module is None:
        raise ValueError(f"This model has no {one['module']}; the recipe was fitted on {name}.")
    weight = getattr(module, "weight", None)
    if one["size"] is None or weight is None:
        return
    size = float(weight.detach().double().abs().sum())
    if abs(size - one["size"]) > 1e-2 * one["size"]:  # other dtypes round
        raise ValueError(f"{one['module']} of this model has other weights; the recipe was fitted on {name}.")


class _More:
    """What comes out of a linear module, with more weights, at every token."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        return out + args[0] @ self.weight.to(device=out.device, dtype=out.dtype).T


class _Change:
    """scale * x + shift of what goes into a module, at every token or at the newest."""

    def __init__(self, numbers: dict[str, torch.Tensor], newest: bool) -> None:
        self.numbers, self.newest = numbers, newest

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = next((key for key in ("hidden_states", "input") if key in kwargs), "")
        x = args[0] if args else kwargs[name]
        changed = x
        for kind, value in self.numbers.items():
            value = value.to(device=x.device, dtype=x.dtype)
            changed = changed * value if kind == "scale" else changed + value
        if self.newest:
            changed = torch.cat([x[:, :-1], changed[:, -1:]], 1)
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, name: changed})
