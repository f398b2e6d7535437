"""Which model of the literature an opened model is: by its Hub id, by its weights, or because its user says so."""

from __future__ import annotations

from typing import NamedTuple

from headatlas.catalogue.model_names import demand_model, find_model, find_weights, identity_key
from headatlas.catalogue.schema import ModelShape
from headatlas.errors import BadInput
from headatlas.model.core.model import Model


class Recognised(NamedTuple):
    """A model of the literature. key: what `catalogue.model_names.identity_key` gives for its names; name: one of them.

    how: "its Hub id", "its weights", or "as you say".
    """

    key: str
    name: str
    how: str


def recognise(model: Model, known_as: str | None = None) -> Recognised | None:
    """The model of the literature that this is; None where nothing says so.

    The name of a folder or a file says nothing, and neither does a shape: there the sha256 of the weight file decides, against
    those of the published files that the catalogue knows. Weights changed in memory are another model's. known_as: the user's
    word for it; believed where layers and heads are that model's. Raises UnknownName, BadInput.
    """
    if known_as is not None:
        shape = demand_model(known_as)
        _demand_shape(model, shape, known_as)
        return Recognised(identity_key(known_as), shape.names[0], "as you say")
    source = model.source
    if source is None or model.sha256() != source.sha256:
        return None
    if source.kind == "hub":
        found = find_model(source.name)
        return Recognised(identity_key(source.name), found.names[0] if found else source.name, "its Hub id")
    found = find_weights(source.sha256)
    return Recognised(identity_key(found.id), found.names[0], "its weights") if found is not None else None


def _demand_shape(model: Model, shape: ModelShape, name: str) -> None:
    """Raise BadInput where a model has not the layers and heads of the checkpoint that it is said to be."""
    stack = model.layers[0].stack
    heads = [layer.n_heads for layer in model.layers if layer.stack == stack]
    if heads != [shape.heads] * shape.layers:
        raise BadInput(
            f"{model.name} is not {name}: it has {len(heads)} layers of {'/'.join(map(str, sorted(set(heads))))} heads, "
            f"{shape.names[0]} has {shape.layers} of {shape.heads}.",
            "Say which model it is a copy of.",
        )
