"""A tiny configuration from any configuration class, by its own field names and sub-configurations.

What is set: sizes (`sizes.py`), lists with one entry a layer (every kind of layer they know comes first, in turn), token
ids that would lie outside the small vocabulary, and the sections of rotary embeddings. All else keeps its default, and
what a class computes from other fields is left to the class.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from headatlas.model.families.sizes import (
    D_HEAD,
    EVEN_WHERE_NONE,
    FIRST_SPECIAL,
    N_LAYERS,
    SIZES,
    TOWER,
    TOWER_SIZES,
    VOCABULARY,
)

LEFT_OUT = object()  # an override that leaves the field to the class
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "layers")


def tiny_configuration(
    kind: type[PretrainedConfig], changes: Mapping[str, Any], everywhere: Mapping[str, Any]
) -> PretrainedConfig:
    """A tiny configuration of a class.

    changes: fields by name, which win over everything else; `text_config.name` reaches into a sub-configuration and
    LEFT_OUT leaves a field to the class. everywhere: fields for every part that has them and reads text. Raises whatever
    the class raises on values that do not fit together.
    """
    return kind(**_fields(kind, changes, everywhere))


def _fields(
    kind: type[PretrainedConfig], changes: Mapping[str, Any], everywhere: Mapping[str, Any], *, tower: bool = False
) -> dict[str, Any]:
    """The keyword arguments of a tiny configuration."""
    default = _default(kind)
    own = vars(default) if default is not None else {field.name: field.default for field in dataclasses.fields(kind)}
    inner = {name: value for name, value in changes.items() if "." in name}
    fields: dict[str, Any] = {}
    for name, value in own.items():
        if name.startswith("_"):
            continue
        found: Any = _part(kind, name, value, inner, everywhere) if default is not None else None
        if found is None:
            found = _tower_value(name, value) if tower else _value(name, value, _depth(own))
        if found is not None:
            fields[name] = found
    if "rope_parameters" in own and not tower:
        fields |= _sections(kind, own["rope_parameters"])
    given = {} if tower else {name: value for name, value in everywhere.items() if name in own}
    for name, value in {**given, **changes}.items():
        if "." in name:
            continue
        if value is LEFT_OUT:
            fields.pop(name, None)
        else:
            fields[name] = value
    return fields


def _default(kind: type[PretrainedConfig]) -> PretrainedConfig | None:
    """The class's default configuration; None for a class whose own defaults do not fit together."""
    try:
        return kind()
    except Exception:  # each class validates in its own way
        return None


def _depth(own: Mapping[str, Any]) -> int | None:
    return next((own[name] for name in DEPTHS if isinstance(own.get(name), int)), None)


def _part(
    kind: type[PretrainedConfig], name: str, value: Any, changes: Mapping[str, Any], everywhere: Mapping[str, Any]
) -> PretrainedConfig | None:
    """A sub-configuration made tiny; None where the field holds none."""
    part: Any = type(value) if isinstance(value, PretrainedConfig) else None
    if part is None and value is None:
        declared = (getattr(kind, "sub_configs", None) or {}).get(name)
        if inspect.isclass(declared) and declared.__name__ != "AutoConfig" and not _is_tower(name):
            part = declared
    if part is None:
        return None
    prefix = name + "."
    mine = {key.removeprefix(prefix): new for key, new in changes.items() if key.startswith(prefix)}
    found: PretrainedConfig = part(**_fields(part, mine, everywhere, tower=_is_tower(name)))
    return found


def _is_tower(name: str) -> bool:
    return any(word in name.lower() for word in TOWER)


def _tower_value(name: str, value: Any) -> Any:
    """A field of a tower; None to leave it."""
    if name in TOWER_SIZES and isinstance(value, int) and not isinstance(value, bool):
        return TOWER_SIZES[name]
    return None


def _value(name: str, value: Any, depth: int | None) -> Any:
    """The tiny value of a field whose default is `value`; None to leave it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (list, tuple)):
        return per_layer(value, name) if _is_per_layer(value, depth) else None
    if name in SIZES and (isinstance(value, int) or (value is None and name in EVEN_WHERE_NONE)):
        return SIZES[name]
    is_token = name.endswith(("_token_id", "_token_index", "_token"))
    if is_token and isinstance(value, int) and value >= VOCABULARY:
        # Spread by the name, so that two marks of one model differ and a rebuild gives the same.
        return FIRST_SPECIAL + sum(map(ord, name)) % (VOCABULARY - FIRST_SPECIAL)
    return None


def _is_per_layer(values: Sequence[Any], depth: int | None) -> bool:
    if depth is None or len(values) < 2 or not all(isinstance(value, (str, int, float)) for value in values):
        return False
    return len(values) == depth or (len(values) > N_LAYERS and isinstance(values[0], str))


def per_layer(values: Sequence[Any], name: str = "") -> list[Any]:
    """One entry for each tiny layer: every distinct value in the order of its first use, then round again."""
    kinds = list(dict.fromkeys(values))
    if isinstance(kinds[0], int) and len(kinds) > N_LAYERS:  # numbers of layers, not kinds of them
        return list(values[:N_LAYERS])
    if isinstance(kinds[0], int) and kinds[0] > VOCABULARY:
        kinds = [96]  # widths
    return [kinds[i % len(kinds)] for i in range(N_LAYERS)]


def _sections(kind: type[PretrainedConfig], rope: Any) -> dict[str, Any]:
    """Rotary parameters whose sections (of time, height and width) add up to half the tiny head, where a family has them."""
    if not isinstance(rope, dict) or not ("mrope_section" in rope or _knows_sections(kind.__module__)):
        return {}
    half = int(D_HEAD * rope.get("partial_rotary_factor", 1.0) / 2)
    given = rope.get("mrope_section", [1, 1, 1])
    small = [max(1, half * part // sum(given)) for part in given[1:]]
    return {"rope_parameters": {**rope, "mrope_section": [half - sum(small), *small]}}


@functools.cache
def _knows_sections(module: str) -> bool:
    """Whether the model's code next to a configuration's reads sections that its default configuration does not name."""
    folder = Path(sys.modules[module].__file__ or "").parent
    return any("mrope_section" in path.read_text(encoding="utf-8") for path in folder.glob("modeling_*.py"))
