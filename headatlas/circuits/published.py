"""Circuits from the literature: those of the catalogue whose paper names heads, for the model that the paper studied."""

from __future__ import annotations

import re
from dataclasses import replace

from headatlas import catalogue
from headatlas.circuits.circuit import Circuit, Edge, Node
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import HEAD_INPUTS, Receiver
from headatlas.model import Model
from headatlas.registry import lookup

_NEXT = re.compile(r"^(\w+)\+1$")


def published(name: str, model: Model) -> Circuit:
    """The catalogue's circuit `name`, for the model it was found in.

    Raises UnknownName, and BadInput where the paper names no heads or studied another model.
    """
    circuit = from_catalogue(name)
    hub_ids = circuit.facts["hub_ids"]
    if model.name not in hub_ids:
        raise BadInput(
            f"Circuit '{name}' was found in {circuit.model}; {model.name} is another model, where these are other heads.",
            f"Load {hub_ids[0]}, or find this model's own: headatlas circuit find."
            if hub_ids
            else "Find this model's own: headatlas circuit find.",
        )
    model.require(circuit.heads)
    return replace(circuit, model=model.name)


def from_catalogue(name: str) -> Circuit:
    """The catalogue's circuit `name` with the heads as the paper numbers them; facts["hub_ids"] names its model's repositories.

    Raises UnknownName, BadInput.
    """
    known = catalogue.load()
    found = lookup(known.circuits, name, "circuit", "See: headatlas papers show circuit/ioi")
    if not any(node.heads for node in found.nodes):
        raise BadInput(f"The catalogue's circuit '{name}' names no heads.", "Choose one that does, such as ioi.")
    hub_ids = [hub_id for shape in known.shapes.values() if found.model in shape.names for hub_id in shape.hub_ids]
    roles = {Node(HeadId.parse(head), at): node.id for node in found.nodes for head in node.heads
             for at in _positions(node.positions)}  # fmt: skip
    edges = []
    by_id = {node.id: node for node in found.nodes}
    for edge in found.edges:
        source, target = by_id[edge.source], by_id[edge.target]
        for sender in source.heads:
            if edge.kind == "logits":
                edges.append(Edge(HeadId.parse(sender), Receiver("logits")))
            elif edge.kind in HEAD_INPUTS:
                edges += [
                    Edge(HeadId.parse(sender), Receiver(edge.kind, (HeadId.parse(head),), position=at))
                    for head in target.heads
                    for at in _positions(target.positions)
                ]
    facts = {
        "source": f"catalogue:{found.id}",
        "paper": found.paper,
        "evidence": list(found.evidence),
        "hub_ids": hub_ids,
    }
    return Circuit(found.id, found.task, tuple(roles), tuple(edges), roles, found.model, facts)


def _positions(text: str | None) -> list[str | None]:
    """END, S2 and S1+1 as tasks call them; None (everywhere) where none are named, or only described in words."""
    if text is None:
        return [None]
    names: list[str | None] = []
    for part in (part.strip() for part in text.split(",")):
        following = _NEXT.match(part)
        name = f"{following[1]}_next" if following else part
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            return [None]
        names.append(name.lower())
    return names
