"""From the task to the text: roles that detectors observed, and what becomes of them at the events of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headatlas.atlas import Atlas
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.pages.kinds import PAIRS
from headatlas.pages.result import HeadPages, Role
from headatlas.report.text_pages import demand_model

# Head types of the catalogue whose condition and act are a known kind of reading.
ROLES = {
    "previous-head": "previous", "induction-head": "follows-same", "duplicate-head": "same-token", "subword-merge-head": "sub-word",
    "punctuation-head": "delimiter", "delimiter-head": "delimiter",
}  # fmt: skip


def roles_of(atlas: str | Path, model: Model) -> dict[HeadId, dict[str, str]]:
    """Head -> kind of reading -> the detector that observed the role, in a run of `mine` about this model.

    Raises StoreError, and BadInput for a run of other weights.
    """
    found: dict[HeadId, dict[str, str]] = {}
    known = Atlas(atlas)
    data = known.data
    demand_model(model.name, model.sha256(), data, known.run)
    for detector in data["detectors"]:
        kind = ROLES.get(detector["head_type"])
        for row in detector["heads"] if kind else ():
            head = HeadId(row["layer"], row["head"], row.get("stack") or "decoder")
            found.setdefault(head, {}).setdefault(str(kind), detector["name"])
    return found


def played(found: HeadPages, head: HeadId, observed: Mapping[str, str]) -> tuple[Role, ...]:
    """What becomes on text of the roles that detectors observed of a head: kind of reading -> detector."""
    i = found.heads.index(head)
    roles = []
    for kind, detector in observed.items():
        met, does, rests, mass = found.counts.met[i, list(PAIRS).index(kind)]
        roles.append(Role(kind, detector, int(met), int(does), int(rests), float(mass / max(met, 1))))
    return tuple(roles)
