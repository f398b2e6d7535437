"""The numbers of a syntax measurement as one JSON object."""

from __future__ import annotations

from typing import Any

from headatlas.treebanks.constituents import LABELS
from headatlas.treebanks.dependencies import ALL, DIRECTIONS, Dependencies
from headatlas.treebanks.run import Syntax
from headatlas.treebanks.surface import OFFSETS, Surface
from headatlas.treebanks.trees import ORIENTATIONS


def data_of(found: Syntax) -> dict[str, Any]:
    """Facts, and for each measure what it gives for each head ("18.6" -> numbers) with its chance level."""
    data: dict[str, Any] = {**found.facts, "n": found.n, "left_out": list(found.left_out)}
    if found.dependencies is not None:
        data["dependencies"] = _dependencies(found.dependencies)
    if (trees := found.trees) is not None:
        rows = {
            str(head): dict(zip(ORIENTATIONS, row, strict=True))
            for head, row in zip(trees.heads, trees.uuas.tolist(), strict=True)
        }
        data["trees"] = {"edges": trees.n, "chance": trees.chain, "chance_is": "neighbours", "uuas": rows}
    if (parts := found.constituents) is not None:
        rows = {
            str(head): {"f1": value, "low": low, "high": high, "recall": dict(zip(LABELS, recall, strict=True))}
            for head, value, low, high, recall in zip(
                parts.heads,
                parts.f1.tolist(),
                parts.low.tolist(),
                parts.high.tolist(),
                parts.recall.tolist(),
                strict=True,
            )
        }
        data["constituents"] = {"sentences": parts.n, "chance": parts.baselines, "heads": rows}
    if (chains := found.coreference) is not None:
        rows = {
            str(head): {"accuracy": value, "low": low, "high": high}
            for head, value, low, high in zip(
                chains.heads, chains.accuracy.tolist(), chains.low.tolist(), chains.high.tolist(), strict=True
            )
        }
        data["coreference"] = {
            "mentions": chains.n,
            "chance": chains.nearest,
            "chance_is": "nearest mention",
            "heads": rows,
        }
    if (sieve := found.sieve) is not None:
        p = sieve.p().tolist()
        rows = {
            str(head): {
                role: {"mean": m, "sd": s, "p_at_most_3": q} for role, m, s, q in zip(sieve.roles, *row, strict=True)
            }
            for head, *row in zip(sieve.heads, sieve.mean.tolist(), sieve.sd.tolist(), p, strict=True)
        }
        data["sieve"] = {"texts": dict(zip(sieve.roles, sieve.n.tolist(), strict=True)), "chance": 1.0, "heads": rows}
    if (probe := found.probe) is not None:
        data["probe"] = {
            "uas": probe.uas, "chance": probe.by_distance, "chance_is": "the same classifier on distances", "words": probe.words,
            "sentences": probe.sentences,
            "weights": {str(head): {"to": to, "from": back} for head, (to, back) in zip(probe.heads, probe.weights.tolist(), strict=True)},
        }  # fmt: skip
    if found.surface is not None:
        data["surface"] = _surface(found.surface)
    if found.likeness is not None:
        data["likeness"] = {
            "heads": [str(head) for head in found.likeness.heads],
            "divergence": found.likeness.divergence.tolist(),
        }
    return data


def _dependencies(found: Dependencies) -> dict[str, Any]:
    relations = {}
    for column, name in enumerate(found.relations):
        ways = {}
        for way, direction in enumerate(DIRECTIONS):
            head, rate = found.best(name, direction)
            row = found.heads.index(head)
            ways[direction] = {
                "head": str(head), "rate": rate, "low": float(found.low[row, column, way]), "high": float(found.high[row, column, way]),
                "held_out": float(found.held_out[column, way]), "q": float(found.q[row, column, way]),
                "offset": int(found.offset[column, way]), "chance": float(found.offset_rate[column, way]),
                "rates": {str(one): float(value) for one, value in zip(found.heads, found.rate[:, column, way], strict=True)},
            }  # fmt: skip
        relations[name] = {"edges": int(found.n[column]), **ways}
    passing = [
        {"head": str(head), "relation": relation, "direction": direction, "rate": rate}
        for head, relation, direction, rate in found.passing()
    ]
    return {"relations": relations, "passing": passing, "all_is": f"{ALL}: every edge but punctuation's and the root's"}


def _surface(found: Surface) -> dict[str, Any]:
    rows = {}
    for i, head in enumerate(found.heads):
        best = int(found.at[i].argmax())
        rows[str(head)] = {
            "entropy": float(found.entropy[i]), "start": float(found.start[i]), "end": float(found.end[i]),
            "pieces": float(found.pieces[i]), "offset": OFFSETS[best], "offset_share": float(found.at[i, best]),
        }  # fmt: skip
    return {"uniform_entropy": found.uniform, "heads": rows}
