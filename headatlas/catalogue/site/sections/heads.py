"""All head types by stage and group, and a page for each: what it does, who found it where, how to test for it."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.schema import HeadType, PublishedCircuit
from headatlas.catalogue.site.atlases import VERDICTS
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.circuit import drawing

_DRAWN = 1


def _pages(context: SiteContext) -> Iterator[Page]:
    heads = context.catalogue.heads.values()
    by_group = {
        dimension.id: sorted((h for h in heads if h.dimension == dimension.id), key=lambda head: head.name.lower())
        for stage in context.catalogue.stages.values()
        for dimension in stage.dimensions
    }
    yield Page("heads/index.html", "heads.html.j2", {"by_group": by_group})
    for head in heads:
        circuits = sorted(
            context.circuits_with.get(head.id, []), key=lambda circuit: (-_share(circuit, head), circuit.id)
        )
        shows = {
            "head": head,
            "stage": context.catalogue.stages[head.stage],
            "dimension": context.catalogue.dimension_name(head),
            "papers": context.papers_of[head.id][::-1],
            "claims": context.claims_of.get(head.id, []),
            "drawn": [(c, drawing(context.catalogue, c, root="../", chosen=head.id)) for c in circuits[:_DRAWN]],
            "circuits": circuits,
            "detectors": context.detectors.get(head.id, ()),
            "sightings": context.sightings.get(head.id, ()),
            "verdicts": VERDICTS,
            "related": [context.catalogue.heads[id_] for id_ in head.related],
        }
        yield Page(f"heads/{head.id}.html", "head.html.j2", shows)


def _share(circuit: PublishedCircuit, head: HeadType) -> float:
    """How much of the circuit is of this type: the one that is most about it is drawn large."""
    return sum(node.head_type == head.id for node in circuit.nodes) / len(circuit.nodes)


HEADS = Section("heads", _pages, "Head types", 2)
