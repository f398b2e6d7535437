"""Claims and circuits: they name heads that the model can have, each once, and say something."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.model_names import model_key, table_of
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.schema import ModelShape, PublishedCircuit
from headatlas.errors import BadInput
from headatlas.heads import HeadId

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def claims(catalogue: Catalogue) -> Iterator[Problem]:
    """Faults of claims, then of circuits."""
    shapes = table_of(catalogue.shapes.values())
    lists = {place.file: place for (kind, _), place in catalogue.places.items() if kind == "claim list"}
    owners = {place.file: paper for (kind, paper), place in catalogue.places.items() if kind == "claim list"}
    for claim in catalogue.claims.values():
        place = catalogue.places["claim", claim.id]
        if place.file in lists and claim.paper != owners[place.file]:
            wrong = f"the claim is of paper '{claim.paper}' in the list of '{owners[place.file]}'."
            yield place.problem(("paper",), wrong, "Move it to that paper's file, or correct the paper.")
        if claim.hub_id is not None and not _HUB_ID.fullmatch(claim.hub_id):
            yield place.problem(
                ("hub_id",), f"'{claim.hub_id}' is no Hub id.", "Write org/name, such as openai-community/gpt2."
            )
        if claim.revision is not None and claim.hub_id is None:
            yield place.problem(("revision",), "a revision is given without a Hub id.", "Add hub_id.")
        if claim.unit is not None and claim.value is None:
            yield place.problem(("unit",), "a unit is given without a value.", "Add value, or take the unit out.")
        if not claim.heads and claim.value is None:
            right = "Name heads, or give the count or share as value."
            yield place.problem((), "the claim names neither a head nor a value.", right)
        shape, named = shapes.get(model_key(claim.hub_id or "")), shapes.get(model_key(claim.model))
        if shape is not None and named is not None and shape != named:
            wrong = f"'{claim.hub_id}' is {shape.names[0]}, not {claim.model}."
            yield place.problem(("hub_id",), wrong, "Give the Hub id of the model that the paper names.")
        shape = shape or named
        yield from _real_heads(place, [(("heads", n, "head"), head.head) for n, head in enumerate(claim.heads)], shape)
    for circuit in catalogue.circuits.values():
        yield from _circuit(catalogue.places["circuit", circuit.id], circuit, shapes)


def _real_heads(
    place: Place, written: Sequence[tuple[tuple[str | int, ...], str]], shape: ModelShape | None
) -> Iterator[Problem]:
    seen: set[HeadId] = set()
    for keys, text in written:
        try:
            head = HeadId.parse(text)
        except BadInput as error:
            yield place.problem(keys, error.message, error.hint)
            continue
        if head in seen:
            yield place.problem(keys, f"head {head} is named twice.", "Keep one, with its role.")
        seen.add(head)
        if shape and (head.layer >= shape.layers or head.head >= shape.heads):
            wrong = f"{shape.names[0]} has no head {head}: it has {shape.layers} layers of {shape.heads} heads."
            yield place.problem(keys, wrong, "Count layers and heads from 0, and check the model.")


def _circuit(place: Place, circuit: PublishedCircuit, shapes: Mapping[str, ModelShape]) -> Iterator[Problem]:
    ends = {end for edge in circuit.edges for end in (edge.source, edge.target)}
    ids = [node.id for node in circuit.nodes]
    shape = shapes.get(model_key(circuit.model or ""))
    if any(node.heads for node in circuit.nodes) and (circuit.runs_on is None) == (circuit.untested is None):
        wrong = "it names heads, and neither a task to test them on nor why there is none."
        yield place.problem((), wrong, "Give runs_on: TASK, or untested: the reason; not both.")
    for position, node in enumerate(circuit.nodes):
        if node.id in ids[:position]:
            yield place.problem(("nodes", position, "id"), f"the node '{node.id}' stands here twice.", "Keep one.")
        if node.id not in ends:
            yield place.problem(
                ("nodes", position), f"no edge touches the node '{node.id}'.", "Add an edge or drop it."
            )
        if node.at and (not node.heads or circuit.runs_on is None):
            wrong = f"the node '{node.id}' has positions of a task, and no heads or no task."
            yield place.problem(("nodes", position, "at"), wrong, "Give runs_on and heads, or leave `at` out.")
        written = [(("nodes", position, "heads", n), head) for n, head in enumerate(node.heads)]
        yield from _real_heads(place, written, shape)
    seen: set[tuple[str, str, str]] = set()
    for position, edge in enumerate(circuit.edges):
        key = (edge.source, edge.target, edge.kind)
        if edge.source == edge.target:
            yield place.problem(("edges", position), f"'{edge.source}' leads to itself.", "Name two nodes.")
        if key in seen:
            yield place.problem(("edges", position), f"the edge {' -> '.join(key[:2])} stands here twice.", "Keep one.")
        seen.add(key)
