"""How much two circuits have in common: heads, heads at positions, edges."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass
from typing import Any

from headatlas.circuits.circuit import Circuit
from headatlas.errors import BadInput


@dataclass(frozen=True)
class Overlap:
    """Two sets side by side. precision: the share of the first that is in the second; recall: the other way round.

    jaccard: common over all. None where there is nothing to divide by.
    """

    first: int
    second: int
    common: int
    jaccard: float | None
    precision: float | None
    recall: float | None

    @classmethod
    def of(cls, first: Collection[Hashable], second: Collection[Hashable]) -> Overlap:
        """The overlap of what was found (first) with what it is compared with (second)."""
        mine, theirs = set(first), set(second)
        common, union = len(mine & theirs), len(mine | theirs)
        share = lambda whole: common / whole if whole else None  # noqa: E731
        return cls(len(mine), len(theirs), common, share(union), share(len(mine)), share(len(theirs)))


def compare(found: Circuit, reference: Circuit) -> dict[str, Any]:
    """Overlap of heads, of nodes (heads at positions) and of edges, and which heads only one of the two has.

    Raises BadInput for circuits of different models, where the same numbers are other heads.
    """
    names = [{circuit.model, *circuit.facts.get("hub_ids", ())} for circuit in (found, reference) if circuit.model]
    if len(names) == 2 and not names[0] & names[1]:
        raise BadInput(
            f"'{found.name}' is of {found.model}, '{reference.name}' of {reference.model}; the same numbers are other heads there.",
            "Compare circuits of one model.",
        )
    mine, theirs = set(found.heads), set(reference.heads)
    return {
        "found": found.name,
        "reference": reference.name,
        "heads": asdict(Overlap.of(mine, theirs)),
        "nodes": asdict(Overlap.of(found.nodes, reference.nodes)),
        "edges": asdict(Overlap.of([edge.key for edge in found.edges], [edge.key for edge in reference.edges])),
        "common": [str(head) for head in sorted(mine & theirs)],
        "only_found": [str(head) for head in sorted(mine - theirs)],
        "only_reference": [str(head) for head in sorted(theirs - mine)],
    }
