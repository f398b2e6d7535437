"""What all edits share: which heads, which quantity, which positions; and putting a change in its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads, parse_named
from headatlas.ops.positions import positions_given
from headatlas.ops.positions import token_stack as token_stack
from headatlas.ops.types import LayerKey
from headatlas.renamed import Renamed, current_arguments, old_names

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView

Layers = int | str | LayerKey | Iterable[int | str | LayerKey]
Positions = Tensor | int | Sequence[int] | Sequence[Sequence[int]] | None
COMPONENTS = ("q", "k", "v", "pattern", "z", "residual")


class Where(TypedDict, total=False):
    """The keywords that every edit takes.

    component: q, k, v, pattern, z (a head's output before the output projection) or residual (what enters a block).
    positions: tokens of the whole sequence, from 0, padding counted: [n] for all examples, or [example, n] with -1 for
    none; left out: all. They mean the same in cached generation, where each pass sees the newest tokens only.
    group: a change of k or v may reach all heads that share them, also those not named.
    """

    component: str
    positions: Positions
    group: bool


class OnHeads:
    """Base of all edits: frozen, composable (given as a list), act on the heads named, or on whole layers' residual stream.

    `heads` are heads ("9.6", "9.6 10.1", HeadIds); where component is "residual" they are layers (9, "encoder:2"). Kinds that
    hold nothing by head also take patterns ("18.*", "*.3"): `patterns` has them, and each model that the edit is given to
    says which heads they are (`on`).
    """

    heads: tuple[HeadId, ...]
    patterns: tuple[str, ...]
    layers: frozenset[LayerKey]
    component: str
    positions: Tensor | None
    group: bool
    components: tuple[str, ...] = COMPONENTS  # where this kind of edit makes sense
    by_pattern = False  # whether heads may be named by pattern
    site = Renamed("component")

    def __init__(self, heads: Heads | Layers, **where: Unpack[Where]) -> None:
        where = cast(Where, current_arguments(where, {"site": "component"}, type(self).__name__))
        if unknown := where.keys() - Where.__annotations__.keys():
            raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument '{min(unknown)}'")
        component = where.get("component", "z")
        if component not in self.components:
            raise BadInput(
                f"{type(self).__name__} does not act on '{component}'.", f"Choose one of {', '.join(self.components)}."
            )
        residual = component == "residual"
        patterns: tuple[str, ...] = ()
        if residual:
            named: tuple[HeadId, ...] = ()
        elif self.by_pattern:
            named, patterns = parse_named(heads)  # type: ignore[arg-type]
        else:
            named = parse_heads(heads)  # type: ignore[arg-type]
        keys = parse_layers(heads) if residual else [(head.stack, head.layer) for head in named]
        self._set(
            heads=tuple(dict.fromkeys(named)),
            patterns=patterns,
            layers=frozenset(keys),
            component=component,
            positions=parse_positions(where.get("positions")),
            group=bool(where.get("group", False)),
        )

    def _number(self, name: str, value: object, *, finite: bool = True) -> float:
        """`value` as a number, which must be a finite one unless told. Raises BadInput."""
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number) or (finite and math.isinf(number)):
            kind = "a finite number" if finite else "a number"
            raise BadInput(f"{type(self).__name__} takes {kind} as its {name}, not {value!r}.")
        return number

    def _set(self, **values: Any) -> None:
        """Used while it is made; afterwards it is frozen."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make a new one with another {name}.")

    # ---- acting -------------------------------------------------------------------------------------------------
    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """`x` of the edit's component with the change made; a new tensor."""
        part = self._by_token(x)
        index = self._index(layer, part.shape[2])
        chosen = part[:, :, index]
        changed = self.change(layer, chosen, index).to(x.dtype)
        touched = self._touched(layer, len(x))
        if touched is not None:
            changed = torch.where(touched[:, :, None, None], changed, chosen)
        result = part.clone()
        result[:, :, index] = changed
        return self._by_token(result, back=True)

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """New values for x [example, token, n, width] of the heads (KV groups, 0 for the residual stream) in `index` [n]."""
        raise NotImplementedError

    def rows(self, index: Tensor | slice) -> OnHeads:
        """This edit for the examples at `index` [n], or a slice of them, of the batch it was made for."""
        if self.positions is None or len(self.positions) == 1:
            return self
        return self.with_values(positions=self.positions[index])

    def on(self, heads: Sequence[HeadId]) -> OnHeads:
        """This edit on a model that has these heads: its patterns are the heads that they name. Raises BadInput."""
        if not self.patterns:
            return self
        named = tuple(dict.fromkeys((*self.heads, *parse_heads(self.patterns, heads))))
        layers = frozenset((head.stack, head.layer) for head in named)
        return self.with_values(heads=named, patterns=(), layers=layers)

    def with_values(self, **values: Any) -> OnHeads:
        """The same edit with other values of some of its attributes; for kinds of edits."""
        other = object.__new__(type(self))
        other._set(**{**vars(self), **values})
        return other

    def _by_token(self, x: Tensor, *, back: bool = False) -> Tensor:
        """The component's tensor as [example, token, head, width], or back."""
        if self.component == "residual":
            return x.squeeze(2) if back else x.unsqueeze(2)
        return x if self.component == "z" else x.transpose(1, 2)

    def token_positions(self, layer: LayerView) -> Tensor:
        """[example or 1, token] which token of the whole sequence each token of the component is."""
        return layer.key_positions if self.component in ("k", "v") else layer.query_positions

    def _touched(self, layer: LayerView, n_examples: int) -> Tensor | None:
        """[example or 1, token] whether the edit acts there; None for everywhere."""
        return (
            None
            if self.positions is None
            else among(self.token_positions(layer), self.positions, n_examples, repr(self))
        )

    def here(self, layer: LayerView) -> list[int]:
        """Numbers of the edit's heads that lie in `layer`."""
        return [head.head for head in self.heads if head.layer == layer.index and head.stack == layer.stack]

    def _index(self, layer: LayerView, width: int) -> Tensor:
        if self.component == "residual":
            found = [0]
        elif self.component in ("k", "v") and width != layer.n_heads:
            found = self._groups(layer, width)
        else:
            found = self.here(layer)
        return torch.tensor(found, device=layer.q.device)

    def _groups(self, layer: LayerView, n_groups: int) -> list[int]:
        size, named = layer.n_heads // n_groups, set(self.here(layer))
        groups = sorted({head // size for head in named})
        for group in groups:
            members = range(group * size, (group + 1) * size)
            missing = [str(HeadId(layer.index, head, layer.stack)) for head in members if head not in named]
            if missing and not self.group:
                mine = [str(HeadId(layer.index, head, layer.stack)) for head in members if head in named]
                raise BadInput(
                    f"{', '.join(mine)} cannot have its {self.component} edited alone: it is shared with {', '.join(missing)}.",
                    "Name all heads of the group, or write group=True to change it for all of them.",
                )
        return groups

    # ---- showing ------------------------------------------------------------------------------------------------
    def __repr__(self) -> str:
        names = [*map(str, self.heads), *self.patterns] or [
            f"layer {layer}" if stack == "decoder" else f"{stack} layer {layer}" for stack, layer in sorted(self.layers)
        ]
        shown = " ".join(names) if len(names) <= 12 else f"{' '.join(names[:10])} ... {len(names)} heads"
        parts = [shown if self.component == "z" else f"{self.component} of {shown}", *self.details()]
        if self.component in ("k", "v"):
            parts.append("for whole KV groups" if self.group else "KV groups complete")
        if self.positions is not None:
            given = self.positions
            parts.append(
                f"at positions {given[0].tolist()}" if len(given) == 1 else f"at {given.shape[1]} positions an example"
            )
        return f"{type(self).__name__}({', '.join(parts)})"

    def details(self) -> list[str]:
        """What else decides the change, for people."""
        return []

    def options(self) -> dict[str, Any]:
        """Plain values and tensors beside heads, component, positions and group that make this edit again."""
        return {}


def named_on(model: Model, heads: Heads | Layers, where: Where) -> Heads | Layers:
    """What an edit is made for, with the heads of a model in the place of patterns such as "18.*". Raises BadInput."""
    return heads if where.get("component") == "residual" else parse_heads(heads, model.heads)  # type: ignore[arg-type]


def parse_layers(layers: Any) -> list[LayerKey]:
    """Read 9, "9", "encoder:2", ("encoder", 2) or several of them. Raises BadInput, also where none is named."""
    found = _layers(layers)
    if not found:
        raise BadInput(f"{layers!r} names no layers.", _LAYERS)
    return found


_LAYERS = "The residual stream is edited by layer: 9, or encoder:2."


def _layers(layers: Any) -> list[LayerKey]:
    if isinstance(layers, tuple) and len(layers) == 2 and isinstance(layers[0], str) and _is_whole(layers[1]):
        return [(layers[0], int(layers[1]))]
    if _is_whole(layers):
        return [("decoder", int(layers))]
    if isinstance(layers, HeadId):
        raise BadInput(f"{layers} is a head; the residual stream belongs to no head.", "Name layers: 9, or encoder:2.")
    if isinstance(layers, str):
        found = []
        for part in layers.replace(",", " ").split():
            stack, _, number = part.rpartition(":")
            if not number.isdigit():
                raise BadInput(f"'{part}' is not a layer.", _LAYERS)
            found.append((stack or "decoder", int(number)))
        return found
    if not isinstance(layers, Iterable):
        raise BadInput(f"{layers!r} is not a layer.", _LAYERS)
    return [key for layer in layers for key in _layers(layer)]


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def parse_positions(positions: Positions) -> Tensor | None:
    """[1 or example, n] of what was given: one position, several for all examples, or several for each. Raises BadInput."""
    return None if positions is None else positions_given(positions)


def among(tokens: Tensor, positions: Tensor, n_examples: int, who: str) -> Tensor:
    """[example or 1, n] whether token positions [example or 1, n] are among positions [example or 1, m]; -1 never is."""
    positions = positions.to(tokens.device)
    fit(len(positions), n_examples, who)
    return ((tokens[:, :, None] == positions[:, None, :]) & (tokens >= 0)[:, :, None]).any(-1)


def fit(n_given: int, n_examples: int, who: str) -> None:
    """Raise BadInput where something given per example does not fit the batch."""
    if n_given not in (1, n_examples):
        raise BadInput(
            f"{who} was made for {n_given} examples and was given {n_examples}.",
            "Use the batch it was made for; beams and several returned sequences count as examples.",
        )


__getattr__ = old_names(__name__)
