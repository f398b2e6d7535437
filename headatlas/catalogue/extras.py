"""What the mining program and its reports ask of the catalogue: a head type, its stage, its papers."""

from __future__ import annotations

from typing import Any

from headatlas.catalogue.load import load
from headatlas.catalogue.own import OwnHeadType, own_head_type
from headatlas.catalogue.schema import HeadType, Paper, Stage

SURVEY = "zheng-2024-survey"  # the paper that stages and methods follow


def head_type(id_or_alias: str) -> HeadType | OwnHeadType:
    """The head type with this id, name or alias, or of a user's own; raises UnknownName with the nearest name."""
    return own_head_type(id_or_alias) or load().head_type(id_or_alias)


def stage_of(head_type_id: str) -> Stage:
    """The survey's stage that the head type belongs to."""
    return load().stage_of(head_type_id)


def papers_for(head_type_id: str) -> tuple[Paper, ...]:
    """The papers on a head type, oldest first."""
    return load().papers_for(head_type_id)


def paper_url(paper: Paper) -> str:
    """Where to read the paper: its first link to a paper, or its first link."""
    return next((link.url for link in paper.links if link.kind == "paper"), paper.links[0].url)


def extras() -> dict[str, Any]:
    """Stages and head types with their papers as plain data, for a report that stands alone."""
    catalogue = load()
    return {
        "stages": [{"id": s.id, "name": s.name, "description": s.description} for s in catalogue.stages.values()],
        "head_types": {
            head.id: {
                "name": head.name,
                "stage": head.stage,
                "dimension": catalogue.dimension_name(head),
                "role": head.role,
                "papers": [
                    {"id": paper.id, "title": paper.title, "year": paper.date.year, "url": paper_url(paper)}
                    for paper in catalogue.papers_for(head.id)
                ],
            }
            for head in catalogue.heads.values()
        },
    }
