"""Drafts the entry of a paper from what arXiv says of it; the summary is left for a human."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from headatlas.catalogue.curation import entry_file
from headatlas.catalogue.curation.arxiv_client import Arxiv, arxiv_id
from headatlas.catalogue.curation.arxiv_feed import Found
from headatlas.catalogue.curation.propose import Proposal, propose
from headatlas.catalogue.curation.target import Target
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.rules.papers import section_of
from headatlas.catalogue.schema import Link, Paper
from headatlas.errors import BadInput


@dataclass(frozen=True)
class Added:
    """A new file, and what its author should know."""

    path: Path
    paper: Paper
    found: Found
    proposals: tuple[Proposal, ...]
    left: tuple[Problem, ...]  # what `papers check` would still complain of


def add(identifier: str, *, target: Target, arxiv: Arxiv, id: str | None = None) -> Added:
    """Fetch a paper's metadata and write its entry; BadInput where it is known, ArxivError where arXiv has none."""
    wanted = arxiv_id(identifier)
    target.refuse_known(arxiv=wanted)
    found = arxiv.paper(wanted)
    if found.withdrawn:
        raise BadInput(
            f"arXiv {wanted} ('{found.title[:120]}') has been withdrawn.", "Withdrawn papers are not listed."
        )
    target.refuse_known(arxiv=wanted, title=found.title)
    names = target.names
    proposals = propose(
        found.title,
        found.abstract,
        heads=names.heads.values(),
        methods=names.methods.values(),
        benchmarks=names.benchmarks.values(),
        papers=names.papers.values(),
    )
    paper = draft(found, proposals, id=id or _new_id(found, target))
    unsure = [proposal for proposal in proposals if not proposal.sure]
    text = entry_file.compose(
        paper,
        reasons={f"{proposal.kind}/{proposal.id}": proposal.reason for proposal in proposals},
        head_note=f"Drafted from the metadata of {found.link}. Check every line against the paper.",
        foot_note=_to_do(found, paper, unsure),
    )
    left = tuple(target.problems(paper, text))
    return Added(entry_file.write(target.folder, paper, text), paper, found, tuple(proposals), left)


def _new_id(found: Found, target: Target) -> str:
    return entry_file.entry_id(found.title, found.published.year, found.authors, target.names.papers)


def draft(found: Found, proposals: Sequence[Proposal], *, id: str) -> Paper:
    """The entry as far as metadata and outright mentions go."""

    def named(kind: str) -> list[str]:
        return [proposal.id for proposal in proposals if proposal.kind == kind and proposal.sure]

    code = [
        Link(kind="code", url=url, venue="GitHub" if "github.com/" in url else None)
        for url in found.code
        if len(url) <= 300
    ]
    try:
        return Paper(
            id=id,
            title=found.title,
            authors=list(found.authors),
            date=found.published.date(),
            venue="arXiv",
            section=section_of(found.published.date()),
            arxiv=found.arxiv,
            doi=_doi(found),
            links=[Link(kind="paper", url=found.link, venue="arXiv"), *code],
            heads=named("heads"),
            methods=named("methods"),
            models=named("models"),
            benchmarks=named("benchmarks"),
        )
    except ValidationError as error:
        hint = "Give a valid --id." if error.errors()[0]["loc"] == ("id",) else "Write the entry by hand."
        raise BadInput(
            f"The entry for arXiv {found.arxiv} would not be valid: {entry_file.first_fault(error)}.", hint
        ) from error


def _doi(found: Found) -> str | None:
    """The paper's DOI where arXiv names exactly one."""
    return found.doi if found.doi and re.fullmatch(r"10\.\d{4,9}/\S+", found.doi) else None


def _to_do(found: Found, paper: Paper, unsure: Sequence[Proposal]) -> str:
    lines = []
    if found.journal:
        lines.append(f'venue: arXiv names "{found.journal}".')
    if found.doi and paper.doi is None:
        lines.append(f'doi: arXiv names "{found.doi}".')
    if not paper.heads:
        lines.append("heads: no head type is named outright; add ids from `headatlas list head-types`.")
    if unsure:
        lines.append("Perhaps also:")
        lines += [f"  {proposal.kind}: {proposal.id} ({proposal.reason})" for proposal in unsure]
    return "\n".join([*lines, "", entry_file.SUMMARY_HINT] if lines else [entry_file.SUMMARY_HINT])
