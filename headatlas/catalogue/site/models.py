"""The models that papers, claims, circuits, runs and replications speak of, one for all the ways in which it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from headatlas.catalogue.files.boards import Replication
from headatlas.catalogue.model_names import find_model, identity_key
from headatlas.catalogue.schema import Claim, ModelShape, Paper, PublishedCircuit
from headatlas.catalogue.site.atlases import Sighting
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.words import slug


@dataclass
class ModelPage:
    """What is known of one model. name: as it is mostly written; names: all ways. seen: (head type id, what a run saw)."""

    path: str
    name: str
    names: tuple[str, ...]
    shape: ModelShape | None
    papers: list[Paper] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    circuits: list[PublishedCircuit] = field(default_factory=list)
    seen: list[tuple[str, Sighting]] = field(default_factory=list)
    replications: list[Replication] = field(default_factory=list)

    @property
    def others(self) -> tuple[str, ...]:
        """The other ways of writing it."""
        return tuple(name for name in self.names if name != self.name)

    @property
    def amount(self) -> int:
        """How much there is on it."""
        return len(self.papers) + len(self.claims) + len(self.circuits) + len(self.seen) + len(self.replications)


def model_pages(context: SiteContext) -> list[ModelPage]:
    """All models, those first of which most is known; addresses are made of names, a number keeps equal ones apart.

    A claim may be about "all models examined": of claims and circuits those count that a paper lists or the catalogue knows.
    """
    written: dict[str, Counter[str]] = {}
    for name in _names(context):
        written.setdefault(identity_key(name), Counter())[name] += 1
    pages: dict[str, ModelPage] = {}
    taken: Counter[str] = Counter()
    for key, spelt in sorted(written.items()):
        shape = find_model(next(iter(spelt)))
        name = shape.names[0] if shape is not None else min(spelt, key=lambda one: (-spelt[one], one))
        address = slug(name)
        taken[address] += 1
        number = f"-{taken[address]}" if taken[address] > 1 else ""
        names = tuple(sorted({*spelt, name}))
        pages[key] = ModelPage(f"models/{address}{number}.html", name, names, shape)
    for paper in context.newest:
        for key in dict.fromkeys(map(identity_key, paper.models)):
            pages[key].papers.append(paper)
    for claim in context.catalogue.claims.values():
        if (key := identity_key(claim.model)) in pages:
            pages[key].claims.append(claim)
    for circuit in context.catalogue.circuits.values():
        if circuit.model and (key := identity_key(circuit.model)) in pages:
            pages[key].circuits.append(circuit)
    for head_type, found in context.sightings.items():
        for seen in found:
            pages[identity_key(seen.shown)].seen.append((head_type, seen))
    for one in context.replications:
        pages[identity_key(one.shown)].replications.append(one)
    return sorted(pages.values(), key=lambda page: (-page.amount, page.name.lower(), page.path))


def _names(context: SiteContext) -> Iterator[str]:
    for paper in context.newest:
        yield from paper.models
    claimed = (claim.model for claim in context.catalogue.claims.values())
    drawn = (circuit.model for circuit in context.catalogue.circuits.values() if circuit.model)
    yield from (name for name in (*claimed, *drawn) if find_model(name) is not None)
    yield from (seen.shown for found in context.sightings.values() for seen in found)
    yield from (one.shown for one in context.replications)
