"""How heads work together: all published circuits, and a drawing of each."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.describe import hub_id
from headatlas.catalogue.files.commands import circuit_commands
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.circuit import drawing
from headatlas.catalogue.site.pictures.edge_routing import KINDS, key


def _pages(context: SiteContext) -> Iterator[Page]:
    circuits = list(context.catalogue.circuits.values())
    yield Page("circuits/index.html", "circuits.html.j2", {"circuits": circuits, "key": key(circuits)})
    for circuit in circuits:
        shows = {
            "circuit": circuit,
            "paper": context.catalogue.papers[circuit.paper],
            "drawing": drawing(context.catalogue, circuit, root="../"),
            "key": key([circuit]),
            "commands": circuit_commands(circuit, hub_id(context.catalogue, circuit.id)),
            "kinds": KINDS,
            "labels": {node.id: node.label for node in circuit.nodes},
        }
        yield Page(f"circuits/{circuit.id}.html", "circuit.html.j2", shows)


CIRCUITS = Section("circuits", _pages, "Circuits", 3)
