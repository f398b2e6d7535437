"""How often what is proposed for a paper is what the catalogue came to say of it, with intervals.

Each paper is read by a catalogue without it: by all the others, or by those that came before a day. Its text is its title and
our summary, as abstracts are not kept; code links, which are proposed from abstracts alone, are therefore not measured.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.curation.likeness import paper_text
from headatlas.catalogue.curation.propose import Kind, Proposal, propose
from headatlas.catalogue.schema import HeadType, Paper
from headatlas.ops.stats import share_interval

SINCE = datetime.date(2025, 2, 18)  # the day after the last paper of the first list


@dataclass(frozen=True)
class Agreement:
    """What was proposed of one kind, beside what the entries say. wanted: of it, what could be proposed at all."""

    read_by: str
    kind: str
    right: int
    proposed: int
    wanted: int

    @property
    def precision(self) -> tuple[float, float, float]:
        """Share of the proposals that are right, with its 95% interval (Wilson); NaN where there are none."""
        return _share(self.right, self.proposed)

    @property
    def recall(self) -> tuple[float, float, float]:
        """Share of what could be proposed that was, with its 95% interval (Wilson)."""
        return _share(self.right, self.wanted)


def _share(part: int, whole: int) -> tuple[float, float, float]:
    if not whole:
        return (float("nan"),) * 3
    return part / whole, *share_interval(part, whole)


def evaluate_proposals(catalogue: Catalogue, since: datetime.date = SINCE) -> list[Agreement]:
    """Head types (those named outright, and all), stages, methods, models and benchmarks: first each paper read by all the
    others, then those since a day by those before it. Of head types and models those count that the readers know.
    """
    papers = list(catalogue.papers.values())
    old, new = ([one for one in papers if (one.date >= since) == late] for late in (False, True))
    every = [(one, [other for other in papers if other.id != one.id]) for one in papers]
    return [
        *_agreements("all the others", catalogue, every),
        *_agreements("the old ones", catalogue, [(one, old) for one in new]),
    ]


def _agreements(
    read_by: str, catalogue: Catalogue, pairs: Sequence[tuple[Paper, Sequence[Paper]]]
) -> Iterator[Agreement]:
    counts: dict[str, list[int]] = {}
    for paper, readers in pairs:
        for kind, proposed, wanted in _compared(catalogue, paper, readers):
            counted = counts.setdefault(kind, [0, 0, 0])
            for place, n in enumerate((len(proposed & wanted), len(proposed), len(wanted))):
                counted[place] += n
    for kind, (right, n_proposed, n_wanted) in counts.items():
        yield Agreement(read_by, kind, right, n_proposed, n_wanted)


def _compared(catalogue: Catalogue, paper: Paper, readers: Sequence[Paper]) -> Iterator[tuple[str, set[str], set[str]]]:
    """Of each kind what is proposed for a paper, and what its entry says as far as the readers know it."""
    named = {head for reader in readers for head in reader.heads}
    heads = [head for head in catalogue.heads.values() if head.id in named]
    found = propose(
        paper.title,
        paper_text(paper).removeprefix(paper.title),
        heads=heads,
        methods=catalogue.methods.values(),
        benchmarks=catalogue.benchmarks.values(),
        papers=readers,
    )
    known = set(paper.heads) & named
    yield "head types, named outright", _ids(found, "heads", sure=True), known
    yield "head types, all", _ids(found, "heads"), known
    yield "stages", _stages(catalogue, _ids(found, "heads")), _stages(catalogue, known)
    yield "methods", _ids(found, "methods"), set(paper.methods)
    yield "models", _ids(found, "models"), set(paper.models) & {model for reader in readers for model in reader.models}
    yield "benchmarks", _ids(found, "benchmarks"), set(paper.benchmarks)


def _ids(found: Sequence[Proposal], kind: Kind, *, sure: bool = False) -> set[str]:
    return {one.id for one in found if one.kind == kind and (one.sure or not sure)}


def _stages(catalogue: Catalogue, heads: set[str]) -> set[str]:
    kinds: list[HeadType] = [catalogue.heads[head] for head in heads]
    return {kind.stage for kind in kinds}


def as_table(agreements: Sequence[Agreement]) -> str:
    """A Markdown table, as printed in the docs."""
    head = ["read by", "what", "right", "proposed", "there", "precision (95%)", "recall (95%)"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in agreements:
        shares = (
            "-" if math.isnan(share[0]) else "{:.2f} ({:.2f} to {:.2f})".format(*share)
            for share in (one.precision, one.recall)
        )
        lines.append(
            f"| {one.read_by} | {one.kind} | {one.right} | {one.proposed} | {one.wanted} | " + " | ".join(shares) + " |"
        )
    return "\n".join(lines)
