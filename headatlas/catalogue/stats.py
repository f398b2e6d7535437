"""Counts the catalogue: papers by year, stage, head type and method, claims, and how much rests on what evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.filters import has_code, venues

# Kinds of evidence from the one that stands best to the one that only recalls.
STRENGTH = ("measured", "code", "paper", "reference", "abstract", "secondary", "upstream", "recall")


def stats(catalogue: Catalogue) -> dict[str, Any]:
    """All counts, as plain data."""
    papers, heads, claims = catalogue.papers.values(), catalogue.heads.values(), catalogue.claims.values()
    summaries = [paper.summary.evidence for paper in papers if paper.summary]
    return {
        "totals": {
            "papers": len(papers),
            "head_types": len(heads),
            "methods": len(catalogue.methods),
            "benchmarks": len(catalogue.benchmarks),
            "circuits": len(catalogue.circuits),
            "claims": len(claims),
            "claimed_heads": sum(len(claim.heads) for claim in claims),
            "papers_with_claims": len({claim.paper for claim in claims}),
            "papers_with_code": sum(map(has_code, papers)),
            "papers_with_authors": sum(bool(paper.authors) for paper in papers),
            "papers_with_summary": len(summaries),
            "corrections": sum(len(paper.corrections) for paper in papers),
        },
        "papers": {
            "section": _counts(paper.section for paper in papers),
            "year": dict(sorted(Counter(str(paper.date.year) for paper in papers).items(), reverse=True)),
            "stage": _ordered(catalogue.stages, (stage for paper in papers for stage in catalogue.stages_of(paper))),
            "head_type": _most({head.id: len(catalogue.papers_for(head.id)) for head in heads}),
            "method": _most({id_: len(catalogue.papers_with_method(id_)) for id_ in catalogue.methods}),
            "benchmark": _most({id_: len(catalogue.papers_on_benchmark(id_)) for id_ in catalogue.benchmarks}),
            "model": _counts(model for paper in papers for model in paper.models),
            "venue": _counts(venue for paper in papers for venue in venues(paper)[:1]),
        },
        "head_types": {
            "stage": _ordered(catalogue.stages, (head.stage for head in heads)),
            "dimension": _counts(head.dimension for head in heads),
            "placed_by": _counts(head.placed_by for head in heads),
        },
        "claims": {
            "head_type": _counts(claim.head_type for claim in claims),
            "model": _counts(claim.model for claim in claims),
            "paper": _counts(claim.paper for claim in claims),
        },
        "evidence": {
            "summaries": _evidence(summaries),
            "head_types": _evidence(head.evidence for head in heads),
            "circuits": _evidence(circuit.evidence for circuit in catalogue.circuits.values()),
            "claims": _evidence([claim.evidence] for claim in claims),
        },
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return _most(Counter(values))


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """Most first, then by name; nothing is left out."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _ordered(order: Iterable[str], values: Iterable[str]) -> dict[str, int]:
    counts = Counter(values)
    return {name: counts[name] for name in order}


def _evidence(statements: Iterable[Iterable[str]]) -> dict[str, dict[str, int]]:
    """For each kind of evidence, of how many statements it is the best, the only, or one of several.

    The bests add up to the number of statements.
    """
    kinds = [set(statement) for statement in statements]
    best = _ordered(STRENGTH, (min(own, key=STRENGTH.index) for own in kinds))
    only = _ordered(STRENGTH, (kind for own in kinds if len(own) == 1 for kind in own))
    named = _ordered(STRENGTH, (kind for own in kinds for kind in own))
    return {kind: {"best": best[kind], "only": only[kind], "named": named[kind]} for kind in STRENGTH}
