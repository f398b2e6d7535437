"""A recipe taken elsewhere: a plain transformers module that needs no headatlas, and a written format for serving engines."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headatlas.apply.recipe.recipe import ALWAYS, Recipe, query_rows
from headatlas.apply.recipe.store import load_recipe
from headatlas.errors import UnsupportedModel
from headatlas.model import Model
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.ops.types import LayerKey
from headatlas.store import new_folder, write_json, write_text

SERVING = "headatlas/serving/1"
UNTESTED = "Written for serving engines that add vectors at named modules; it was not tested in any engine."
README = """# A recipe of headatlas: {intervention} on {model}

`recipe.py` puts it in force on the transformers model in memory, without headatlas:

    from recipe import attach
    with attach(model):
        model.generate(**inputs)

It acts {when}. `serving.json` says the same for serving engines, by module: {untested}
"""


def export_recipe(model: Model, recipe: Recipe | str | Path, out: str | Path, *, force: bool = False) -> list[str]:
    """Write a recipe as a folder that serves without headatlas; gives the files' names.

    recipe.py with recipe.json and recipe.safetensors: `attach(model)` for the plain transformers model. serving.json with
    serving.safetensors: the same by module names, output biases multiplied out, for serving engines (not tested in any). force: take
    a model of the same shape with other weights. Raises BadInput, StoreError, UnsupportedModel.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe.demand_change("export")
    recipe.demand_model(model, other_weights=force)
    changes, numbers = _changes(model, recipe)
    layers, served = _served(model, recipe)
    facts = {"intervention": recipe.intervention, "model": model.name, "architecture": model.architecture,
             "when": recipe.when, "heads": [str(head) for head in recipe.heads]}  # fmt: skip
    code = resources.files("headatlas.apply.recipe").joinpath("exported.py").read_text(encoding="utf-8")
    with new_folder(Path(out)) as half:
        write_text(half / "recipe.py", code)
        write_json(half / "recipe.json", {**facts, "changes": changes, "facts": recipe.facts})
        save_file(numbers, half / "recipe.safetensors")
        write_json(half / "serving.json", {"schema": SERVING, "status": UNTESTED, **facts, "layers": layers})
        save_file(served, half / "serving.safetensors")
        when = (
            "at every token" if recipe.when == ALWAYS else "at the last token of the prompt and at each generated one"
        )
        told = {"intervention": recipe.intervention, "model": model.name, "when": when, "untested": UNTESTED}
        write_text(half / "README.md", README.format(**told))
    return [str(Path(out) / name) for name in sorted(path.name for path in Path(out).iterdir())]


def _path_of(model: Model, module: nn.Module | None, what: str) -> str:
    found = next((path for path, one in model.hf.named_modules() if one is module), None)
    if found is None:
        raise UnsupportedModel(f"The {what} of {model.name} is no module of its own, so that nothing can be put there.")
    return found


def _columns(layer: AttentionLayer, recipe: Recipe) -> dict[str, Tensor]:
    """scale and shift [n_heads * d_value] of what goes into a layer's output projection; only those that change something."""
    found = {}
    for name, values, fill in (("scale", recipe.scale, 1.0), ("shift", recipe.shift, 0.0)):
        rows = [values.get(head, torch.full((layer.d_value,), fill)) for head in layer.heads]
        if any(head in values for head in layer.heads):
            found[name] = torch.cat([row.float().cpu() for row in rows]).contiguous()
    return found


def _touched(model: Model, recipe: Recipe) -> list[AttentionLayer]:
    changed = {*recipe.scale, *recipe.shift}
    return [layer for layer in model.layers if set(layer.heads) & changed]


def _changes(model: Model, recipe: Recipe) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What `exported.attach` reads: modules by path with the names of their numbers, and the numbers."""
    changes, numbers = [], {}
    for layer in _touched(model, recipe):
        path = _path_of(model, layer.projection, f"output projection of layer {layer.index}")
        names = {}
        for name, value in _columns(layer, recipe).items():
            names[name] = f"{path}.{name}"
            numbers[names[name]] = value
        changes.append({"module": path, "tensors": names, "size": _size(layer.projection)})
    for linear, weight in _query_weights(model, recipe):
        path = _path_of(model, linear, "query projection")
        numbers[f"{path}.weight"] = weight
        changes.append({"module": path, "tensors": {"weight": f"{path}.weight"}, "size": _size(linear)})
    for key, vector in sorted(recipe.stream.items()):
        path = _path_of(model, _block(model, key), f"block {key[1]}")
        numbers[f"{path}.shift"] = vector.float().cpu().contiguous()
        changes.append({"module": path, "tensors": {"shift": f"{path}.shift"}, "size": None})
    return changes, numbers


def _query_weights(model: Model, recipe: Recipe) -> Iterator[tuple[nn.Linear, Tensor]]:
    """Each query projection that is changed, and [out, in] what is added to its weights."""
    for layer in model.layers:
        heads = [head for head in layer.heads if head in recipe.query]
        if heads:
            linear, rows = query_rows(model, heads[0])
            weight = torch.zeros(linear.weight.shape)
            for head in heads:
                weight[head.head * len(rows) : (head.head + 1) * len(rows)] = recipe.query[head].float().cpu()
            yield linear, weight


def _block(model: Model, key: LayerKey) -> nn.Module | None:
    return model.layer(key[1], key[0]).block


def _size(module: nn.Module) -> float | None:
    """What tells weights from others, without a hash of ours: the sum of their sizes."""
    weight = getattr(module, "weight", None)
    return float(weight.detach().double().abs().sum()) if isinstance(weight, Tensor) else None


def _served(model: Model, recipe: Recipe) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The same by module: factors of a projection's input columns, and what is added to its output or to a block's input."""
    layers, numbers = [], {}
    for layer in _touched(model, recipe):
        path = _path_of(model, layer.projection, f"output projection of layer {layer.index}")
        columns, names = _columns(layer, recipe), {}
        if "scale" in columns:
            names["input_scale"] = f"{path}.input_scale"
            numbers[names["input_scale"]] = columns["scale"]
        if "shift" in columns:
            layer.require_linear()
            weight = layer.output_weight().detach().float().cpu().flatten(0, 1)  # [head * d_value, d_model]
            names["output_bias"] = f"{path}.output_bias"
            numbers[names["output_bias"]] = (columns["shift"] @ weight).contiguous()
        heads = [str(head) for head in layer.heads if head in recipe.heads]
        layers.append({"layer": layer.index, "stack": layer.stack, "module": path, "heads": heads, "tensors": names})
    for linear, weight in _query_weights(model, recipe):
        path = _path_of(model, linear, "query projection")
        numbers[f"{path}.weight_add"] = weight
        layers.append({"module": path, "heads": [], "tensors": {"weight_add": f"{path}.weight_add"}})
    for (stack, index), vector in sorted(recipe.stream.items()):
        path = _path_of(model, _block(model, (stack, index)), f"block {index}")
        numbers[f"{path}.input_add"] = vector.float().cpu().contiguous()
        layers.append(
            {"layer": index, "stack": stack, "module": path, "heads": [], "tensors": {"input_add": f"{path}.input_add"}}
        )
    return layers, numbers
