"""A model of fewer heads that computes what a larger one does without some of its own."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.apply.pruning.copying import copy_common, copy_heads
from headatlas.apply.pruning.form import Form, forms
from headatlas.errors import HeadAtlasError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import Model, attach
from headatlas.model.core.linear_and_norm import input_width
from headatlas.ops.types import LayerKey
from headatlas.reading import reason
from headatlas.render.numbers import count

_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_CAN = "Configurations with a head_dim of its own can (Llama, Mistral, Qwen3, Gemma, Phi ...); elsewhere remove heads by edits (headatlas.Zero)."


@dataclass(frozen=True)
class Smaller:
    """hf: the plain transformers model; form: where its heads come from. Opened by nobody."""

    hf: nn.Module
    form: Form


def demand_smaller(model: Model, *, bias: bool = False) -> None:
    """Raise UnsupportedModel where a family cannot have fewer heads at all, or no output bias; a look at its configuration.

    bias: whether means of removed heads must be held. Nothing is computed: the smallest shape is built without memory.
    """
    _demand_fit(model)
    least = Form(1, 1, {}, {})
    if isinstance(why := _planned(model, least, bias), str):
        raise _cannot(model, least, why)


def smaller_model(model: Model, removed: Collection[HeadId], means: Mapping[LayerKey, Tensor] | None = None) -> Smaller:
    """The model without some heads, in the smallest shape that its configuration can have; on the CPU or where the model is.

    means: (stack, layer) -> [head, d_value] what removed heads give instead, as part of the output bias; None: zero. Raises BadInput where no
    shape is smaller, UnsupportedModel where the family cannot hold it.
    """
    _demand_fit(model)
    model.require(removed)
    shapes = forms(model.layers, removed)
    why = ""
    for form in shapes:
        planned = _planned(model, form, means is not None)
        if not isinstance(planned, str):
            return Smaller(_filled(model, form, planned, _shifts(model, removed, means)), form)
        why = why or planned
    raise _cannot(model, shapes[0], why)


def _demand_fit(model: Model) -> None:
    """Raise UnsupportedModel for models whose heads no one pair of numbers describes."""
    if getattr(model.hf, "is_quantized", False) or not all(one.is_floating_point() for one in model.hf.parameters()):
        raise UnsupportedModel(
            f"{model.name} is quantised, and such weights are not cut by head.", "Load float weights."
        )
    shapes = {(layer.n_heads, layer.n_groups, layer.d_head, layer.d_value) for layer in model.layers}
    if len(model.stacks) > 1 or len(shapes) > 1:
        what = "several stacks" if len(model.stacks) > 1 else "layers with different heads"
        raise UnsupportedModel(
            f"{model.name} has {what}, for which one number of heads does not stand.",
            "Remove heads by edits instead (headatlas.Zero).",
        )
    for layer in model.layers:
        layer.require_linear()


def _cannot(model: Model, form: Form, why: str) -> UnsupportedModel:
    layer = model.layers[0]
    shape = f"{count(form.n_heads, 'head')} of width {layer.d_head}"
    return UnsupportedModel(f"No configuration of {model.architecture} has {shape}: {why}.", _CAN)


def _planned(model: Model, form: Form, bias: bool) -> Any:
    """A configuration of this shape, tried on a model without memory; or why there is none, in words."""
    layer = model.layers[0]
    try:
        hf: Any = model.hf
        config = copy.deepcopy(hf.config)
        text: Any = config.get_text_config() if hasattr(config, "get_text_config") else config
        text.num_attention_heads = form.n_heads
        for name in _KEY_VALUE_HEADS:
            if getattr(text, name, None) is not None:
                setattr(text, name, form.n_groups)
        if getattr(text, "head_dim", None) is None:  # else it says what its family means by it
            text.head_dim = layer.d_head
        if bias and hasattr(text, "attention_bias"):
            text.attention_bias = True
        config = type(config).from_dict(config.to_dict())  # held against the rules of its class
        with torch.device("meta"):
            planned = type(hf)(copy.deepcopy(config))
    except Exception as error:  # each family says in its own way what it cannot be
        return reason(error)
    modules = dict(planned.named_modules())
    for one in model.layers:
        path = next(name for name, part in model.hf.named_modules() if part is one.projection)
        found = input_width(modules[path]) if path in modules else 0
        if found != form.n_heads * one.d_value:
            tied = "the width of a head follows from the number of heads"
            return tied if found == one.n_heads * one.d_value else f"its output projection would read {found} numbers"
        if bias and getattr(modules[path], "bias", None) is None:
            return (
                "its output projection has no bias that could hold the mean of removed heads, so take them away by zero "
                "(--removal zero)"
            )
    return config


def _shifts(
    model: Model, removed: Collection[HeadId], means: Mapping[LayerKey, Tensor] | None
) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [d_model] what the means of removed heads write, in double precision."""
    found: dict[LayerKey, Tensor] = {}
    for head in sorted(removed) if means is not None else ():
        assert means is not None
        weight = model.layer(head.layer, head.stack).output_weight()[head.head].detach().double()
        write = means[head.stack, head.layer][head.head].to(weight) @ weight
        found[head.stack, head.layer] = found.get((head.stack, head.layer), torch.zeros_like(write)) + write
    return found


def _filled(model: Model, form: Form, config: Any, shifts: Mapping[LayerKey, Tensor]) -> nn.Module:
    """A model of this configuration with the weights of the heads that are left. Raises UnsupportedModel."""
    with torch.random.fork_rng(devices=[]):
        kind: Any = type(model.hf)
        hf: nn.Module = kind._from_config(config)
    hf = hf.to(model.device, model.dtype).eval()
    copy_common(model.hf, hf)
    try:
        opened = attach(hf, tokenizer=model.tokenizer, anew=True)
    except HeadAtlasError as error:
        raise _cannot(model, form, error.message.rstrip(".")) from error
    with opened:
        shapes = [(one.stack, one.index, one.n_heads, one.n_groups, one.d_head, one.d_value) for one in opened.layers]
        expected = [
            (one.stack, one.index, form.n_heads, form.n_groups, one.d_head, one.d_value) for one in model.layers
        ]
        if shapes != expected:
            raise _cannot(model, form, f"built, it has {opened.layers[0]!r}")
        copy_heads(model, opened, form, shifts)
    return hf
