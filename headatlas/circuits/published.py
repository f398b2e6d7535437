"""Circuits from the literature: those of the catalogue whose paper names heads, for the model that the paper studied."""

from __future__ import annotations

from dataclasses import replace

from headatlas import catalogue
from headatlas.catalogue.model_names import identity_key, repository
from headatlas.catalogue.schema import CircuitNode
from headatlas.circuits.circuit import Circuit, Edge, Node
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import HEAD_INPUTS, Receiver
from headatlas.model import Model
from headatlas.model.recognise import recognise
from headatlas.registry import lookup


def published(name: str, model: Model, known_as: str | None = None) -> Circuit:
    """The catalogue's circuit `name`, for the model it was found in.

    known_as: the model of the literature that `model` is a copy of, where neither its Hub id nor its weights say so. Raises
    UnknownName, and BadInput where the paper names no heads or studied another model.
    """
    circuit = from_catalogue(name)
    found = recognise(model, known_as)
    if found is None or circuit.model is None or found.key != identity_key(circuit.model):
        load = repository(circuit.model or "")
        raise BadInput(
            f"Circuit '{name}' was found in {circuit.model}; {found.name if found else model.name} is another model, where "
            "these are other heads.",
            (f"Load {load}, say --as {load} of a copy of it, or find" if load else "Find")
            + " this model's own: headatlas circuit find.",
        )
    model.require(circuit.heads)
    return replace(circuit, model=model.name)


def from_catalogue(name: str) -> Circuit:
    """The catalogue's circuit `name` with the heads as the paper numbers them, at the positions of the task that it runs on.

    A head that is in two classes is one node with both roles. facts["untested"]: why there is no such task, where there is none.
    Raises UnknownName, BadInput.
    """
    known = catalogue.load()
    found = lookup(known.circuits, name, "circuit", "See: headatlas papers show circuit/ioi")
    if not any(node.heads for node in found.nodes):
        raise BadInput(f"The catalogue's circuit '{name}' names no heads.", "Choose one that does, such as ioi.")
    roles: dict[Node, str] = {}
    for part in found.nodes:
        for node in (Node(HeadId.parse(head), at) for head in part.heads for at in _positions(part)):
            roles[node] = f"{roles[node]}, {part.id}" if node in roles else part.id
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
                    for at in _positions(target)
                ]
    facts = {
        "source": f"catalogue:{found.id}",
        "paper": found.paper,
        "evidence": list(found.evidence),
        "about": found.task,
        **({"untested": found.untested} if found.untested is not None else {}),
    }
    return Circuit(found.id, found.runs_on or found.task, tuple(roles), tuple(edges), roles, found.model, facts)


def _positions(node: CircuitNode) -> list[str | None]:
    """Where its heads act in the task's prompts; None (everywhere) where the paper does not say."""
    return [*node.at] or [None]
