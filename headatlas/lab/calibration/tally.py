"""What one detector did on models in which the truth is known, as lists that add up over models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np

Tallies = dict[tuple[str, str], "Tally"]  # by detector, and by what its seeds are for: "tuning" or "reported"


@dataclass
class Tally:
    """What one detector did on one part of the grid."""

    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    observed: list[bool] = field(default_factory=list)
    verdicts: list[tuple[str, bool]] = field(default_factory=list)  # (verdict, really matters alone)
    curve: list[tuple[float, float]] = field(default_factory=list)  # (real share on target, score)
    fake: list[tuple[bool, str]] = field(default_factory=list)  # fake induction heads: observed, verdict
    controls: list[bool] = field(default_factory=list)  # observed, over all heads of the controls
    chance: dict[str, list[float]] = field(default_factory=dict)  # p-values in models of random weights, by their kind

    def add(self, other: Tally) -> None:
        """Count what another one counted, too."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, dict):
                for kind, values in theirs.items():
                    mine.setdefault(kind, []).extend(values)
            else:
                mine.extend(theirs)

    @property
    def curve_rows(self) -> list[list[float]]:
        """[strength, mean score, lowest, highest] by strength."""
        by: dict[float, list[float]] = {}
        for share, score in self.curve:
            by.setdefault(share, []).append(score)
        return [[share, float(np.mean(v)), float(np.min(v)), float(np.max(v))] for share, v in sorted(by.items())]

    def rates(self) -> dict[str, float | int | None]:
        """The numbers that are reported; None where nothing was counted."""
        from sklearn.metrics import roc_auc_score  # here, since it takes a second to import

        labels, observed = np.array(self.labels, bool), np.array(self.observed, bool)
        both = bool(labels.any()) and not bool(labels.all())
        judged = [matters for word, matters in self.verdicts if word == "causal"]
        true = [word == "causal" for word, matters in self.verdicts if matters]
        refuted = [not matters for word, matters in self.verdicts if word == "refuted"]
        return {
            "auc": float(roc_auc_score(labels, self.scores)) if both else None,
            "precision": float(labels[observed].mean()) if observed.any() else None,
            "recall": float(observed[labels].mean()) if labels.any() else None,
            "verdict_precision": float(np.mean(judged)) if judged else None,
            "verdict_recall": float(np.mean(true)) if true else None,
            "refuted_precision": float(np.mean(refuted)) if refuted else None,
            "false_discovery": float(np.mean(self.controls)) if self.controls else None,
            "positives": int(labels.sum()),
            "negatives": int((~labels).sum()),
            "control_heads": len(self.controls),
        }


def merge(into: Tallies, more: Tallies) -> None:
    """Add tallies up, detector by detector."""
    for key, one in more.items():
        into.setdefault(key, Tally()).add(one)


def as_json(tallies: Mapping[tuple[str, str], Tally]) -> dict[str, dict[str, object]]:
    """By detector, then by what the seeds are for."""
    found: dict[str, dict[str, object]] = {}
    for (name, half), one in tallies.items():
        found.setdefault(name, {})[half] = asdict(one)
    return found
