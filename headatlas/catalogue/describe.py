"""Everything the catalogue knows of one entry, as a page of plain data: for the terminal, for JSON, for a site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.files.citations import detectors_citing
from headatlas.catalogue.files.commands import benchmark_commands, circuit_commands, method_commands
from headatlas.catalogue.names import normal
from headatlas.catalogue.schema import Claim, Entry, Link, Paper
from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean

KINDS = ("paper", "head type", "method", "benchmark", "circuit", "claim", "stage")


@dataclass(frozen=True)
class Page:
    """A title, a line below it, labelled facts, and tables as (heading, column names, rows)."""

    kind: str
    id: str
    title: str
    line: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)


def entries(catalogue: Catalogue, kind: str) -> dict[str, Any]:
    """The entries of one kind, by id."""
    tables = (
        catalogue.papers,
        catalogue.heads,
        catalogue.methods,
        catalogue.benchmarks,
        catalogue.circuits,
        catalogue.claims,
        catalogue.stages,
    )
    return dict(dict(zip(KINDS, tables, strict=True))[kind])


def find(catalogue: Catalogue, name: str) -> tuple[str, str]:
    """(kind, id) of the entry with this id, `kind/id`, name, alias, title, arXiv id or DOI; raises UnknownName."""
    prefix, _, rest = name.partition("/")
    kind = prefix.replace("-", " ").lower()
    if rest in (entries(catalogue, kind) if kind in KINDS else {}):
        return kind, rest
    exact = [(kind, id_) for kind in KINDS for id_ in entries(catalogue, kind) if id_ == name.strip()]
    wanted = normal(name)
    hits = exact or list(
        dict.fromkeys(
            (kind, id_)
            for kind in KINDS
            for id_, entry in entries(catalogue, kind).items()
            if wanted and wanted in {normal(spelt) for spelt in _spelt(id_, entry)}
        )
    )
    if not hits and (head := catalogue.head_names.get(name)):
        hits = [("head type", head)]
    if not hits:
        known = {
            spelt.lower() for kind in KINDS for id_, e in entries(catalogue, kind).items() for spelt in _spelt(id_, e)
        }
        hint = did_you_mean(name, sorted(known)) or f'Look for it: headatlas papers search "{name}"'
        raise UnknownName(f"Nothing in the catalogue is called '{name}'.", hint)
    if len(hits) > 1:
        ways = " or ".join(f"{kind.replace(' ', '-')}/{id_}" for kind, id_ in hits)
        raise UnknownName(f"'{name}' is the name of {len(hits)} entries.", f"Write {ways}.")
    return hits[0]


def _spelt(id_: str, entry: Any) -> list[str]:
    names = [
        id_,
        *(getattr(entry, key, None) for key in ("name", "title", "arxiv", "doi")),
        *getattr(entry, "aliases", ()),
    ]
    return [name for name in names if name]


def record(catalogue: Catalogue, kind: str, id_: str) -> dict[str, Any]:
    """The entry as written, plus what other entries say of it, as plain data."""
    entry: Entry = entries(catalogue, kind)[id_]
    data: dict[str, Any] = {"entry": kind, **entry.model_dump(mode="json")}
    if kind == "paper":
        data["stages"] = list(catalogue.stages_of(catalogue.papers[id_]))
        data["detectors"] = list(detectors_citing(catalogue).get(id_, ()))
        data["claims"] = [c.id for c in catalogue.claims.values() if c.paper == id_]
        data["circuits"] = [c.id for c in catalogue.circuits.values() if c.paper == id_]
    elif kind == "head type":
        data["papers"] = [paper.id for paper in catalogue.papers_for(id_)]
        data["claims"] = [claim.id for claim in catalogue.claims_for(id_)]
        data["detectors"] = list(detector_names().get(id_, ()))
        data["circuits"] = [c.id for c in catalogue.circuits.values() if id_ in {n.head_type for n in c.nodes}]
    elif kind == "method":
        data["papers"] = [paper.id for paper in catalogue.papers_with_method(id_)]
        data["commands"] = list(method_commands().get(id_, ()))
    elif kind == "benchmark":
        data["papers"] = [paper.id for paper in catalogue.papers_on_benchmark(id_)]
        data["commands"] = list(benchmark_commands().get(id_, ()))
    elif kind == "circuit":
        data["commands"] = list(circuit_commands(catalogue.circuits[id_], hub_id(catalogue, id_)))
    elif kind == "stage":
        data["heads"] = [head.id for head in catalogue.heads.values() if head.stage == id_]
    return data


def page(catalogue: Catalogue, kind: str, id_: str) -> Page:
    """The page of one entry."""
    makers = {
        "paper": _paper,
        "head type": _head,
        "method": _method,
        "benchmark": _benchmark,
        "circuit": _circuit,
        "claim": _claim,
        "stage": _stage,
    }
    made = makers[kind](catalogue, id_)
    return Page(
        kind, id_, made.title, made.line, [(k, v) for k, v in made.facts if v], [t for t in made.tables if t[2]]
    )


def _paper(catalogue: Catalogue, id_: str) -> Page:
    paper = catalogue.papers[id_]
    heads = (f"{catalogue.heads[h].name} ({catalogue.stage_of(h).name})" for h in paper.heads)
    facts = [
        ("Authors", ", ".join(paper.authors)),
        ("Head types", ", ".join(heads)),
        ("Methods", ", ".join(catalogue.methods[m].name for m in paper.methods)),
        ("Models", ", ".join(paper.models)),
        ("Benchmarks", ", ".join(catalogue.benchmarks[b].name for b in paper.benchmarks)),
        ("Detectors", ", ".join(detectors_citing(catalogue).get(id_, ()))),
    ]
    if paper.summary:
        facts += [("Innovation", paper.summary.innovation), ("Tasks", paper.summary.tasks)]
        facts += [("Result", paper.summary.result), ("Known from", ", ".join(paper.summary.evidence))]
    facts += [(link_label(link), link.url) for link in paper.links]
    facts += [("Corrected", text) for text in paper.corrections] + [("Note", text) for text in paper.notes]
    facts += [("Does not run", paper.reason or "")]
    names = [paper.venue, str(paper.date), f"arXiv {paper.arxiv}" if paper.arxiv else None, paper.doi]
    claims = [claim for claim in catalogue.claims.values() if claim.paper == id_]
    circuits = [[c.id, c.name, c.task] for c in catalogue.circuits.values() if c.paper == id_]
    tables = [_claims(catalogue, claims), ("Circuits", ["Id", "Name", "Task"], circuits)]
    return Page("", "", paper.title, " · ".join(name for name in names if name), facts, tables)


def link_label(link: Link) -> str:
    """What the link leads to, and where that is: 'Paper (arXiv)'."""
    return link.kind.capitalize() + (f" ({link.venue})" if link.venue else "")


def _head(catalogue: Catalogue, id_: str) -> Page:
    head = catalogue.heads[id_]
    placed = "placed by the survey" if head.placed_by == "survey" else "our placement"
    facts = [
        ("Also called", ", ".join(head.aliases)),
        ("Role", head.role),
        ("Reads", head.reads),
        ("Writes", head.writes),
        ("Depth", ", ".join(head.depth)),
        ("Task", head.scope or ""),
        ("Models", ", ".join(head.models)),
        ("Tested by", head.tested_by),
        ("Detectors", ", ".join(detector_names().get(id_, ()))),
        ("No detector", head.reason or ""),
        ("Related", ", ".join(catalogue.heads[h].name for h in head.related)),
        ("Known from", ", ".join(head.evidence)),
    ]
    line = f"{catalogue.stage_of(id_).name} › {catalogue.dimension_name(head)} ({placed})"
    circuits = [[c.id, c.name] for c in catalogue.circuits.values() if id_ in {node.head_type for node in c.nodes}]
    tables = [
        _papers(catalogue.papers_for(id_)),
        _claims(catalogue, catalogue.claims_for(id_)),
        ("Circuits", ["Id", "Name"], circuits),
    ]
    return Page("", "", head.name, line, facts, tables)


def _method(catalogue: Catalogue, id_: str) -> Page:
    method = catalogue.methods[id_]
    facts = [("Operation", method.operation), ("Formula", method.formula or "")]
    facts += [("Runs here", command) for command in method_commands().get(id_, ())]
    facts += [("Other work", work) for work in method.other_works]
    line = f"{method.category.capitalize()} › {method.group}"
    return Page("", "", method.name, line, facts, [_papers(catalogue.papers_with_method(id_))])


def _benchmark(catalogue: Catalogue, id_: str) -> Page:
    benchmark = catalogue.benchmarks[id_]
    facts = [("About", benchmark.description), ("Address", benchmark.url or "")]
    facts += [("Runs here", command) for command in benchmark_commands().get(id_, ())]
    facts += [("Fact", text) for text in benchmark.facts]
    line = "Made to explore mechanisms" if benchmark.kind == "mechanism" else "Common evaluation"
    return Page("", "", benchmark.name, line, facts, [_papers(catalogue.papers_on_benchmark(id_))])


def _circuit(catalogue: Catalogue, id_: str) -> Page:
    circuit = catalogue.circuits[id_]
    labels = {node.id: node.label for node in circuit.nodes}
    facts = [
        ("Task", circuit.task),
        ("Paper", f"{catalogue.papers[circuit.paper].title} ({circuit.paper})"),
        ("Known from", ", ".join(circuit.evidence)),
        *(("Runs here", command) for command in circuit_commands(circuit, hub_id(catalogue, id_))),
        ("Runs not", circuit.untested or ""),
        *(("Note", text) for text in circuit.notes),
    ]
    nodes = [
        [
            node.label,
            catalogue.heads[node.head_type].name if node.head_type else "",
            " ".join(node.heads),
            node.positions or "",
        ]
        for node in circuit.nodes
    ]
    edges = [[labels[edge.source], edge.kind, labels[edge.target], edge.note or ""] for edge in circuit.edges]
    tables = [
        ("Nodes", ["Node", "Head type", "Heads", "Acts at"], nodes),
        ("Edges", ["From", "Through", "To", "Note"], edges),
    ]
    return Page("", "", circuit.name, circuit.model or "", facts, tables)


def hub_id(catalogue: Catalogue, circuit: str) -> str:
    """The repository of the model in which a circuit was found; MODEL where the catalogue knows none."""
    named = catalogue.circuits[circuit].model
    found = [one for shape in catalogue.shapes.values() if named in shape.names for one in shape.hub_ids]
    return found[0] if found else "MODEL"


def claim_value(claim: Claim) -> str:
    """The claim's value with its unit, such as `92 %`."""
    return "" if claim.value is None else f"{claim.value:g} {claim.unit or ''}".strip()


def _claim(catalogue: Catalogue, id_: str) -> Page:
    claim = catalogue.claims[id_]
    facts = [
        ("Claim", claim.statement),
        ("Paper", f"{catalogue.papers[claim.paper].title} ({claim.paper})"),
        ("Model", f"{claim.model} ({claim.hub_id})" if claim.hub_id else claim.model),
        ("Revision", claim.revision or ""),
        ("Metric", claim.metric or ""),
        ("Value", claim_value(claim)),
        ("Stated in", claim.where),
        ("Known from", claim.evidence),
    ]
    heads = [[h.head, h.role or "", "" if h.value is None else f"{h.value:g}"] for h in claim.heads]
    name = catalogue.heads[claim.head_type].name
    return Page(
        "", "", f"{name} in {claim.model}", claim.head_type, facts, [("Heads", ["Head", "Role", "Value"], heads)]
    )


def _stage(catalogue: Catalogue, id_: str) -> Page:
    stage = catalogue.stages[id_]
    rows = [
        [dimension.name, ", ".join(h.name for h in catalogue.heads.values() if h.dimension == dimension.id)]
        for dimension in stage.dimensions
    ]
    return Page(
        "", "", stage.name, id_, [("About", stage.description)], [("Dimensions", ["Dimension", "Head types"], rows)]
    )


def _papers(papers: Iterable[Paper]) -> tuple[str, list[str], list[list[str]]]:
    return "Papers", ["Date", "Title", "Id"], [[str(paper.date), paper.title, paper.id] for paper in papers]


def _claims(catalogue: Catalogue, claims: Iterable[Claim]) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [catalogue.heads[c.head_type].name, c.model, " ".join(h.head for h in c.heads) or c.statement, c.id]
        for c in claims
    ]
    return "Claims", ["Head type", "Model", "Heads", "Id"], rows
