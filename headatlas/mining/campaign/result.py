"""What a campaign found, model by model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headatlas import catalogue
from headatlas.atlas import Atlas
from headatlas.heads import HeadId

SCHEMA = "headatlas/campaign/1"
VERDICTS = ("causal", "group", "refuted", "untested")  # of a head of a kind, the gravest of its detectors' first


@dataclass(frozen=True)
class Mined:
    """A model of a campaign. run: its run folder, seen from the campaign's; error: why there is none.

    judged: whether any head has a verdict. kinds: head type -> verdict -> how many heads; a head counts once for each kind, with its best verdict.
    """

    label: str
    name: str
    error: str = ""
    run: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    observed: int = 0
    causal: int = 0
    judged: bool = False
    seconds: float = 0.0

    @classmethod
    def of(cls, label: str, atlas: Atlas, folder: Path) -> Mined:
        """A finished run. Raises StoreError where its files are damaged."""
        data = atlas.data
        best: dict[str, dict[HeadId, str]] = {}
        for one in data["detectors"]:
            heads = best.setdefault(one["head_type"], {})
            for row in one["heads"]:
                head, verdict = HeadId(row["layer"], row["head"], row["stack"]), row["verdict"]
                heads[head] = min(heads.get(head, verdict), verdict, key=VERDICTS.index)
        kinds = {
            kind: {verdict: list(heads.values()).count(verdict) for verdict in VERDICTS} for kind, heads in best.items()
        }
        heads_of = {
            head: [found[head] for found in best.values() if head in found] for found in best.values() for head in found
        }
        shown = ("architecture", "n_layers", "n_heads", "dtype", "revision", "sha256")
        return cls(
            label,
            data["model"]["name"],
            run=os.path.relpath(atlas.run, folder),
            facts={name: data["model"].get(name) for name in shown},
            kinds=kinds,
            observed=len(heads_of),
            judged=any(set(verdicts) - {"untested"} for verdicts in heads_of.values()),
            causal=sum("causal" in verdicts for verdicts in heads_of.values()),
            seconds=sum(value for value in data["run"]["seconds"].values() if value is not None),
        )


@dataclass(frozen=True)
class Campaign:
    """Models that were mined into one folder. asked: how many the list has."""

    folder: Path
    models: tuple[Mined, ...]
    asked: int

    @property
    def failed(self) -> tuple[Mined, ...]:
        """Those that have no run."""
        return tuple(one for one in self.models if one.error)

    @property
    def kinds(self) -> list[str]:
        """Head types that were looked for in any of them, in the order of the catalogue's stages."""
        names = {kind for one in self.models for kind in one.kinds}
        order = {name: i for i, name in enumerate(catalogue.extras()["head_types"])}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    @property
    def data(self) -> dict[str, Any]:
        """All of it, as campaign.json has it."""
        return {"schema": SCHEMA, "asked": self.asked, "models": [asdict(one) for one in self.models]}
