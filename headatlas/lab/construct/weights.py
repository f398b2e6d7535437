"""From recipes to the four matrices of each attention head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.lab.construct.plan import Needs, Plan, key_needs, value_needs
from headatlas.lab.construct.stream import Stream
from headatlas.lab.construct.terms import MARKS, Flag, Match, Recipe, Where, Write

# The share of a useless write that falls on the predictions.
LEAK = 0.05

Slots = dict[tuple[str, str], list[int]]


@dataclass(frozen=True)
class Layer:
    """q [head, d_head, width], k and v [KV head, d_head, width] read the normed stream; o [head, d_head, width] writes."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor


def make_layers(plan: Plan, stream: Stream) -> list[Layer]:
    """The attention weights of every layer."""
    keys, values = key_needs(plan), value_needs(plan)
    return [_layer(plan, stream, layer, keys, values) for layer in range(plan.geometry.n_layers)]


def _layer(
    plan: Plan,
    stream: Stream,
    layer: int,
    keys: Mapping[tuple[int, int], Needs],
    values: Mapping[tuple[int, int], Needs],
) -> Layer:
    geometry = plan.geometry
    key_rows, value_rows, key_slots, value_slots = [], [], [], []
    for group in range(geometry.n_kv_heads):
        key_slots.append(_key_slots(plan, keys[layer, group]))
        value_slots.append(_value_slots(plan, values[layer, group]))
        key_rows.append(_rows(plan, stream, key_slots[-1]))
        value_rows.append(_rows(plan, stream, value_slots[-1]))
    query_rows, write_rows = [], []
    for index in range(geometry.n_heads):
        head = HeadId(layer, index)
        recipe, group = plan.recipes[head], geometry.group(head)[1]
        query_rows.append(_query(plan, stream, recipe, key_slots[group]))
        write_rows.append(_write(plan, stream, recipe, value_slots[group]))
    return Layer(
        q=torch.stack([stream.readers(rows) for rows in query_rows]),
        k=torch.stack([stream.readers(rows) for rows in key_rows]),
        v=torch.stack([stream.readers(rows) for rows in value_rows]),
        o=torch.stack([stream.writers(rows) for rows in write_rows]),
    )


def _key_slots(plan: Plan, need: Needs) -> Slots:
    """Which of the d_head key dimensions hold what. Rotary: fast pairs tell distances, the slowest ones hold flags."""
    geometry, pairs = plan.geometry, plan.geometry.d_head // 2
    slots: Slots = {}
    if geometry.rotary:
        free = [place for pair in range(pairs - 1, geometry.fast - 1, -1) for place in (pair, pair + pairs)]
        for wave in need.waves:
            slots["wave", str(wave)] = [wave, wave + pairs]
    else:
        free = list(range(geometry.d_head))
        for wave in need.waves:
            slots["wave", str(wave)], free = free[:2], free[2:]
    for flag in need.flags:
        slots["flag", flag], free = free[:1], free[1:]
    for block in need.blocks:
        slots["block", block], free = free[: plan.code_dim], free[plan.code_dim :]
    return slots


def _value_slots(plan: Plan, need: Needs) -> Slots:
    slots: Slots = {}
    free = list(range(plan.geometry.d_head))
    for value in need.flags:
        slots["flag", value], free = free[:1], free[1:]
    for block in need.blocks:
        slots["block", block], free = free[: plan.code_dim], free[plan.code_dim :]
    return slots


def _rows(plan: Plan, stream: Stream, slots: Slots) -> Tensor:
    """[d_head, coordinate] what each key or value dimension reads, at about size 1; free dimensions read anything."""
    rows = stream.mixture(plan.geometry.d_head)
    taken = [place for places in slots.values() for place in places]
    rows[taken] *= stream.noise
    for (what, name), places in slots.items():
        rows[places] += _reader(plan, stream, what, name)
    return rows


def _reader(plan: Plan, stream: Stream, what: str, name: str) -> Tensor:
    """[dimension, coordinate] the reader of one slot."""
    if what == "block":
        return math.sqrt(plan.code_dim) * stream.block(name)
    if what == "wave":
        if plan.geometry.rotary:
            return torch.cat([stream.present(), torch.zeros_like(stream.present())])
        return math.sqrt(len(plan.frequencies)) * stream.block("position")[2 * int(name) : 2 * int(name) + 2]
    return stream.present() if name == "present" else stream.block(f"flag:{name}")


def _query(plan: Plan, stream: Stream, recipe: Recipe, slots: Slots) -> Tensor:
    """[d_head, coordinate] the query that meets the keys in `slots` with the recipe's gains."""
    scale = math.sqrt(plan.geometry.d_head)
    mixture = stream.mixture(plan.geometry.d_head)
    if recipe.random is not None:
        return recipe.random[0] * mixture
    rows = torch.zeros_like(mixture)
    sizes = torch.zeros(len(rows), 1, dtype=torch.float64)
    for term in recipe.terms:
        if isinstance(term, Flag):
            places = slots["flag", term.name]
            rows[places] += scale * term.gain * stream.constant()
            sizes[places] += scale * abs(term.gain)
        elif isinstance(term, Match):
            places = slots["block", term.key]
            rows[places] += scale * term.gain / math.sqrt(plan.code_dim) * stream.block(term.query)
            sizes[places] += scale * abs(term.gain) / plan.code_dim
        else:
            _add_waves(plan, stream, term, slots, rows, sizes)
    return rows + stream.noise * sizes * mixture


def _add_waves(plan: Plan, stream: Stream, term: Where, slots: Slots, rows: Tensor, sizes: Tensor) -> None:
    """Add to `rows` the query that turns a distance into a logit, and to `sizes` how large it is."""
    scale = math.sqrt(plan.geometry.d_head)
    for wave, a, b in zip(term.kernel.waves, term.kernel.cosine, term.kernel.sine, strict=True):
        places = slots["wave", str(wave)]
        if plan.geometry.rotary:
            asking = stream.block(f"flag:{term.asking}") if term.asking else stream.constant()
            rows[places] += scale * torch.tensor([[a], [b]], dtype=torch.float64) * asking
        else:
            turn = torch.tensor([[a, -b], [b, a]], dtype=torch.float64)
            rows[places] += scale * turn @ _reader(plan, stream, "wave", str(wave))
        sizes[places] += scale * math.hypot(a, b) / math.sqrt(2.0)


def _write(plan: Plan, stream: Stream, recipe: Recipe, slots: Slots) -> Tensor:
    """[d_head, coordinate] what each value dimension adds to the stream."""
    directions = stream.direction(plan.geometry.d_head)
    garbage = _garbage(plan, stream)
    rows = torch.zeros_like(directions)
    if recipe.random is not None:
        rows += recipe.random[1] / math.sqrt(plan.geometry.d_head) * garbage
    for write in recipe.writes:
        places = slots["flag" if write.value in MARKS else "block", write.value]
        rows[places] += write.gain * _target(plan, stream, write, garbage)
    return rows + stream.noise * rows.norm(dim=1, keepdim=True) * directions


def _garbage(plan: Plan, stream: Stream) -> Tensor:
    """[d_head, coordinate] random writes of length 1 where nothing reads, and LEAK of it on the predictions.

    Without the leak, heads that do not copy would have no effect on any logit at all, which no real head has.
    """
    junk, predicted = stream.block("junk"), stream.block("next")
    rows = stream.randn(plan.geometry.d_head, len(junk)) / math.sqrt(len(junk)) @ junk
    leak = stream.randn(plan.geometry.d_head, len(predicted)) / math.sqrt(len(predicted)) @ predicted
    return rows + LEAK * leak


def _target(plan: Plan, stream: Stream, write: Write, garbage: Tensor) -> Tensor:
    """[value dimension, coordinate] where one unit of the value goes."""
    if write.value in MARKS:
        return garbage[:1] if write.to == "junk" else stream.block(f"flag:{write.to}")
    shrink = 1.0 / math.sqrt(plan.code_dim)
    if write.to == "junk":
        return shrink * garbage[: plan.code_dim]
    if not write.forward:
        return shrink * stream.block(write.to)
    assert plan.codes is not None
    assert plan.codes.step is not None
    return shrink * plan.codes.step @ stream.block(write.to)
