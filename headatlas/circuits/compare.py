"""How much two circuits have in common: heads, heads at positions, edges."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass
from typing import Any

from headatlas.catalogue.model_names import find_weights, identity_key
from headatlas.circuits.circuit import Circuit
from headatlas.errors import BadInput


def _model(circuit: Circuit) -> str:
    """Which model a circuit is of: by the weights that it was found in, where they are a published model's, else by the name."""
    known = find_weights(str(circuit.facts.get("sha256")))
    return identity_key(known.id if known is not None else str(circuit.model))


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
    models = {_model(circuit) for circuit in (found, reference) if circuit.model}
    if len(models) == 2:
        raise BadInput(
            f"'{found.name}' is of {found.model}, '{reference.name}' of {reference.model}; the same numbers are other heads there.",
            "Compare circuits of one model; of a copy of a known one, say --as.",
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
