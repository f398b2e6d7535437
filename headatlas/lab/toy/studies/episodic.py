"""Heads that recall lists as people do come with in-context learning. Ji-An et al. 2024.

The likeness is that of the detector `cmr-like`, read here from the model's own eager attention.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.lab.measure import attend
from headatlas.lab.toy.data import repeated_tokens
from headatlas.lab.toy.probes import by_head, losses
from headatlas.lab.toy.repeats import Sizes, trained_on_repeats
from headatlas.lab.toy.study import Claim, Panel, Study, held_out, order
from headatlas.lab.training.loop import Measure, Training
from headatlas.lab.training.options import TrainOptions
from headatlas.methods.recall_by_lag import LAGS, PEAK, distances

_SIZES, _EXAMPLES, _ITEMS = Sizes(vocab=128, length=64, width=64, heads=2, batch=32), 32, 24


def _lists(n: int, chance: torch.Generator) -> Tensor:
    """[n, 1 + 2 items] token 0, then a list of distinct tokens twice."""
    items = torch.rand(n, _SIZES.vocab - 1, generator=chance).argsort(-1)[:, :_ITEMS] + 1
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), items, items], 1)


def _by_lag(pattern: Tensor) -> Tensor:
    """[head, lag] attention [n, head, query, key] from items of the second copy to those of the first, by their distance."""
    queries = torch.arange(_ITEMS) + 1 + _ITEMS
    curves = []
    for lag in LAGS:
        keys = torch.arange(_ITEMS) + 1 + lag
        inside = (keys >= 1) & (keys <= _ITEMS)
        curves.append(pattern[:, :, queries[inside], keys[inside]].mean((0, 2)))
    return torch.stack(curves, -1)


def _likeness(curves: Tensor) -> list[float]:
    """Of each head: 1 minus the distance from the nearest curve of CMR, 0 for heads without a peak."""
    even = float((torch.arange(_ITEMS) + 2 + _ITEMS).float().reciprocal().mean())
    near = 1 - distances(curves.double().numpy()).min(-1)
    peaked = curves.max(-1).values.numpy() >= PEAK * even
    return [float(x) for x in np.where(peaked, np.clip(np.nan_to_num(near), 0, 1), 0.0)]


def _measure(seed: int) -> Measure:
    chance = held_out(seed)
    lists, texts = _lists(_EXAMPLES, chance), repeated_tokens(_EXAMPLES, _SIZES.length, _SIZES.vocab, chance)

    def measured(model: Any) -> dict[str, float]:
        each = losses(model(texts).logits, texts)
        curves = _by_lag(attend(model, lists)[0][1])
        likeness = _likeness(curves)
        best = curves[int(np.argmax(likeness))]
        return {
            "in-context gain": float(each[:, 1:8].mean() - each[:, -20:].mean()),
            "held-out loss": float(each.mean()),
            **by_head("likeness to recall", 1, likeness),
            **{f"lag {lag:+d}": float(best[LAGS.index(lag)]) for lag in (-1, 1, 2, 3)},
        }

    return measured


def _first(run: Training) -> int:
    """The place of the first point at which a head is like recall by the paper's bound; the last one where none is."""
    values = run.series("likeness to recall")
    return next((i for i, value in enumerate(values) if value >= 0.5), len(values) - 1)


def _graded(run: Training) -> float:
    """How far attention falls from lag 1 over 2 to 3 when a head first is like recall: the share of neighbours in order."""
    lags = [run.series(f"lag +{lag}")[_first(run)] for lag in (1, 2, 3)]
    return order(*(-x for x in lags))


episodic = Study(
    name="episodic",
    about="repeated words; attention by lag is compared with human recall",
    paper="ji-an-2024-cmr-episodic-memory",
    variants=(trained_on_repeats(_SIZES, TrainOptions(1000, learning_rate=2e-3), _measure),),
    claims=(
        Claim("likeness of the best head to recall at the end", lambda r: r["plain"].last("likeness to recall"), least=0.5),
        Claim("no head is like recall before training", lambda r: r["plain"].series("likeness to recall")[0], most=0.5),
        Claim("heads like recall come with in-context learning: the step of the first over that of half the gain",
              lambda r: r["plain"].reaches("likeness to recall", 0.5) / r["plain"].halfway("in-context gain"),
              least=1 / 3, most=3.0),
        Claim("forwards more than backwards: attention at lag +1 over lag -1 at the end",
              lambda r: r["plain"].last("lag +1") / max(r["plain"].last("lag -1"), 1e-6), least=2.0),
        Claim("attention falls with the lag when a head first is like recall (share of lags 1, 2, 3 in order)",
              lambda r: _graded(r["plain"]), least=1.0),
    ),
    panels=(
        Panel("likeness to human recall of the best head", {"likeness": ("plain", "likeness to recall")}, {"CMR-like": 0.5}),
        Panel("in-context gain (nats)", {"early minus late loss": ("plain", "in-context gain")}),
        Panel("attention of that head by lag", {f"lag {lag:+d}": ("plain", f"lag {lag:+d}") for lag in (-1, 1, 2, 3)}),
    ),
    ablated="held-out loss",
)  # fmt: skip
