"""Whether the catalogue hangs together: each id stands once, in the file named after it, and leads somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.gather import Gathered
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.schema import ClaimList, Entry, HeadType, Paper, PublishedCircuit
from headatlas.registry import did_you_mean

_OWN_FILE: tuple[type[Entry], ...] = (Paper, HeadType, PublishedCircuit, ClaimList)


def integrity(gathered: Gathered, catalogue: Catalogue) -> Iterator[Problem]:
    """Faults without which every id in the catalogue is safe to follow; `load` refuses a catalogue with any."""
    yield from _names_and_twins(gathered)
    for place, keys, id_, known, word in _references(catalogue):
        if id_ not in known and not gathered.unread & {id_, word}:
            hint = did_you_mean(id_, known) or f"Add that {word}, or take it out here."
            yield place.problem(keys, f"there is no {word} '{id_}'.", hint)
    for head in catalogue.heads.values():
        stage = catalogue.stages.get(head.stage)
        if stage and head.dimension not in {d.id for d in stage.dimensions}:
            right = f"Write one of: {', '.join(d.id for d in stage.dimensions)}."
            wrong = f"stage {head.stage} has no dimension '{head.dimension}'."
            yield catalogue.places["head type", head.id].problem(("dimension",), wrong, right)
    for circuit in catalogue.circuits.values():
        yield from _graph(catalogue.places["circuit", circuit.id], circuit)


def _names_and_twins(gathered: Gathered) -> Iterator[Problem]:
    """Ids that differ from their file's name, and ids that two entries of a kind share."""
    seen: dict[tuple[str, str], str] = {}
    for word, entry, place in gathered.entries:
        keys: tuple[str | int, ...] = ("paper",) if isinstance(entry, ClaimList) else ("id",)
        own = str(getattr(entry, str(keys[0])))
        stem = PurePath(place.file).stem
        if isinstance(entry, _OWN_FILE) and stem != own:
            wrong = f"the file is called '{stem}.yaml' but the {word} is '{own}'."
            yield place.problem(keys, wrong, f"Rename the file to '{own}.yaml' or correct the {keys[0]}.")
        ids = [(word, keys, own)]
        if isinstance(entry, ClaimList):
            ids = [("claim", ("claims", n, "id"), claim.id) for n, claim in enumerate(entry.claims)]
        for kind, where, id_ in ids:
            if (kind, id_) in seen:
                yield place.problem(where, f"the {kind} '{id_}' stands at {seen[kind, id_]} too.", "Choose another id.")
            seen.setdefault((kind, id_), f"{place.file}:{place.document.line(*place.keys, *where)}")


Reference = tuple[Place, tuple[str | int, ...], str, Mapping[str, object], str]


def _references(catalogue: Catalogue) -> Iterator[Reference]:
    """Every mention of another entry's id: (place, keys to the mention, id, known ids, what is mentioned)."""
    papers, heads = catalogue.papers, catalogue.heads
    tables: dict[str, tuple[str, Mapping[str, object]]] = {
        "heads": ("head type", heads),
        "methods": ("method", catalogue.methods),
        "benchmarks": ("benchmark", catalogue.benchmarks),
        "papers": ("paper", papers),
        "related": ("head type", heads),
    }
    lists = {
        "paper": (papers, ("heads", "methods", "benchmarks")),
        "head type": (heads, ("papers", "related")),
        "method": (catalogue.methods, ("papers",)),
        "benchmark": (catalogue.benchmarks, ("papers",)),
    }
    for kind, (entries, keys) in lists.items():
        for own, entry in entries.items():
            for key in keys:
                word, known = tables[key]
                for position, id_ in enumerate(getattr(entry, key)):
                    yield catalogue.places[kind, own], (key, position), id_, known, word
    for head in heads.values():
        yield catalogue.places["head type", head.id], ("stage",), head.stage, catalogue.stages, "stage"
    for claim in catalogue.claims.values():
        place = catalogue.places["claim", claim.id]
        yield place, ("paper",), claim.paper, papers, "paper"
        yield place, ("head_type",), claim.head_type, heads, "head type"
    for circuit in catalogue.circuits.values():
        place = catalogue.places["circuit", circuit.id]
        yield place, ("paper",), circuit.paper, papers, "paper"
        for position, node in enumerate(circuit.nodes):
            if node.head_type is not None:
                yield place, ("nodes", position, "head_type"), node.head_type, heads, "head type"


def _graph(place: Place, circuit: PublishedCircuit) -> Iterator[Problem]:
    nodes = {node.id for node in circuit.nodes}
    for position, edge in enumerate(circuit.edges):
        for end, node in (("source", edge.source), ("target", edge.target)):
            if node not in nodes:
                hint = did_you_mean(node, nodes) or f"Nodes are: {', '.join(sorted(nodes))}."
                yield place.problem(("edges", position, end), f"the circuit has no node '{node}'.", hint)
