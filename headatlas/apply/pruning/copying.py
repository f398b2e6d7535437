"""Weights of heads that are left, put where a model of fewer heads has its own; all other weights stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from headatlas.apply.pruning.form import Form
from headatlas.errors import UnsupportedModel
from headatlas.model import Model
from headatlas.model.core.attention_layer import AttentionLayer, ColumnSource
from headatlas.model.core.linear_and_norm import matrix, offset, plain_weight
from headatlas.ops.types import LayerKey

_HINT = "Remove heads by edits instead (headatlas.Zero), which any model takes."


@torch.no_grad()
def copy_common(old: nn.Module, new: nn.Module) -> None:
    """Put every tensor that has the same name and shape in both models into the new one."""
    source = old.state_dict()
    for name, value in new.state_dict().items():
        if name in source and source[name].shape == value.shape:
            value.copy_(source[name])


@torch.no_grad()
def copy_heads(old: Model, new: Model, form: Form, shifts: Mapping[LayerKey, Tensor]) -> None:
    """Put the weights of the heads of a form into a model of its shape, which `copy_common` has been given.

    shifts: (stack, layer) -> [d_model] what is added to the output bias. A filler has zeros in all its weights. Raises
    UnsupportedModel where a weight hangs on the number of heads in another way.
    """
    done: set[int] = set()
    for mine, theirs in zip(old.layers, new.layers, strict=True):
        key = (mine.stack, mine.index)
        heads, groups = form.heads[key], form.groups[key]
        if mine.qkv is None or theirs.qkv is None:
            raise UnsupportedModel(
                f"The query, key and value weights of {mine.name} ({type(mine.module).__name__}) cannot be told apart, so "
                "those of single heads cannot be copied.", _HINT,
            )  # fmt: skip
        written: dict[nn.Module, set[int]] = {}
        for one, other, places in (
            (mine.qkv.q, theirs.qkv.q, heads), (mine.qkv.k, theirs.qkv.k, groups), (mine.qkv.v, theirs.qkv.v, groups),
        ):  # fmt: skip
            for projection, columns in _copy_columns(mine, one, other, places).items():
                written.setdefault(projection, set()).update(columns)
        _demand_all_written(mine, theirs, written)
        done |= {id(part) for projection in written for part in projection.parameters()}
        _copy_output(mine, theirs, heads, shifts.get(key))
        done |= {id(part) for part in theirs.projection.parameters()}
        done |= _copy_by_head(mine, theirs, heads, groups)
    _demand_nothing_left(old, new, done)


def _copy_columns(
    layer: AttentionLayer, old: ColumnSource, new: ColumnSource, places: Sequence[int | None]
) -> dict[nn.Module, set[int]]:
    """Copy what makes q, k or v of each old place to its new one; which columns of which projections were written.

    places [new]: the old head or group of each, None for a filler.
    """
    real = [i for i, place in enumerate(places) if place is not None]
    from_ = torch.tensor([place for place in places if place is not None], dtype=torch.long)
    if real and not torch.allclose(new.factor[real], old.factor[from_], rtol=1e-5):
        raise UnsupportedModel(f"{layer.name} scales what a head reads by the number of its heads.", _HINT)
    written: dict[nn.Module, set[int]] = {}
    for index, target in enumerate(new.projections):
        weight, bias = _plain(target, layer), offset(target)
        here = new.which == index
        columns = new.column[here].unique()
        weight[:, columns] = 0  # of fillers; those of real places follow
        if bias is not None:
            bias[columns] = 0
        written[target] = set(columns.tolist())
        for number, source in enumerate(old.projections if real else ()):
            taken = here[real] & (old.which[from_] == number)
            to, out = new.column[real][taken], old.column[from_][taken]
            if not len(to):
                continue
            weight[:, to] = matrix(source).to(weight)[:, out]
            added = offset(source)
            if added is not None and bias is not None:
                bias[to] = added.to(bias)[out]
            elif added is not None and bool(added[out].any()):
                raise UnsupportedModel(
                    f"{layer.name} has no bias of queries, keys and values in the smaller shape.", _HINT
                )
    return written


def _demand_all_written(old: AttentionLayer, new: AttentionLayer, written: Mapping[nn.Module, set[int]]) -> None:
    """Raise UnsupportedModel where a projection whose width changed puts out more than queries, keys and values (gates)."""
    before = {name: part for name, part in old.module.named_modules()}
    for name, part in new.module.named_modules():
        if part in written:
            weight, source = _plain(part, new), before.get(name)
            same = source is not None and matrix(source).shape == weight.shape
            if not same and len(written[part]) < weight.shape[1]:
                raise UnsupportedModel(
                    f"{old.name}.{name} puts out more than queries, keys and values, which cannot be cut by head.",
                    _HINT,
                )


def _copy_output(old: AttentionLayer, new: AttentionLayer, heads: Sequence[int | None], shift: Tensor | None) -> None:
    weight, source = _plain(new.projection, new).unflatten(0, (new.n_heads, new.d_value)), old.output_weight()
    for place, head in enumerate(heads):
        weight[place] = 0 if head is None else source[head].to(weight)
    bias = offset(new.projection)
    if bias is not None:
        own = old.output_bias()
        bias.copy_(torch.zeros_like(bias) if own is None else own)
        if shift is not None:
            bias.copy_((bias.double() + shift.to(bias.device)).to(bias.dtype))


def _copy_by_head(
    old: AttentionLayer, new: AttentionLayer, heads: Sequence[int | None], groups: Sequence[int | None]
) -> set[int]:
    """Copy parameters of an attention module that have a row for each head or KV group (sinks, norms by head); their ids."""
    source, done = dict(old.module.named_parameters()), set()
    for name, target in new.module.named_parameters():
        mine = source.get(name)
        if mine is None or mine.shape == target.shape or mine.shape[1:] != target.shape[1:]:
            continue
        for places, before in ((heads, old.n_heads), (groups, old.n_groups)):
            if len(mine) == before and len(target) == len(places):
                for place, number in enumerate(places):
                    target[place] = 0 if number is None else mine[number].to(target)
                done.add(id(target))
                break
    return done


def _demand_nothing_left(old: Model, new: Model, done: set[int]) -> None:
    """Raise UnsupportedModel for a tensor of the new model that nothing was put into, or of the old one that has no place."""
    source = old.hf.state_dict()
    tensors = {**dict(new.hf.named_buffers()), **dict(new.hf.named_parameters(remove_duplicate=False))}
    for name in new.hf.state_dict():
        if id(tensors[name]) not in done and (name not in source or source[name].shape != tensors[name].shape):
            raise UnsupportedModel(f"{name} of {new.architecture} hangs on the number of heads as a whole.", _HINT)
    if lost := sorted(source.keys() - new.hf.state_dict().keys()):
        raise UnsupportedModel(
            f"A smaller {new.architecture} has no {lost[0]}.", f"Merge adapters first (merge_and_unload). {_HINT}"
        )


def _plain(linear: nn.Module, layer: AttentionLayer) -> Tensor:
    """The weight of a projection as a view [in, out] that can be written to. Raises UnsupportedModel."""
    found = plain_weight(linear)
    if found is None:
        raise UnsupportedModel(f"A projection of {layer.name} ({type(linear).__name__}) has no plain weight.", _HINT)
    return found
