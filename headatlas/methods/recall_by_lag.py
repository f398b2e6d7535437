"""Attention by lag on a list given twice, and how near it is to human recall: the contextual maintenance and retrieval model.

Li et al. 2024: in the second copy of a random list, a head's attention to the items of the first copy, by their distance
from the current item (lag 0: the same item, +1: the one behind it), is compared with the conditional response probability of CMR, a
model of how people recall lists. People jump to near items, and forwards more than backwards.

CMR here, over n distinct items and one place behind the last, where recall ends: M = (I - (1 - beta_enc) T)^-1 T with T the
shift to the next item, so that M[i, j] = (1 - beta_enc)^(j - i - 1) for j > i. Recall of an item f: the next is drawn in proportion to
M^T t, and the context becomes t <- normed((1 - beta_rec) t + beta_rec t_in), t_in = normed((1 - gamma) f + gamma M f). With gamma = 0 and beta_rec = 1 the
curve is (1 - beta_enc)^(lag - 1) forwards and nothing backwards, but for the list's end.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.ops.types import Array
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated

REACH = 5  # lags compared, to either side
LAGS = tuple(range(-REACH, REACH + 1))
SHORT = 256  # items of a list whose pairs are formed all at once
ITEMS = 100  # on the list that CMR recalls, and the most that it recalls
STARTS, RUNS = 20, 10  # starting items of simulated recalls, evenly spaced, and recalls from each
ENCODING = tuple(round(0.1 * i, 1) for i in range(1, 11))
RETRIEVAL = TRACE = tuple(round(0.2 * i, 1) for i in range(6))
# A flat curve is as near to one of CMR's as its noise is small, so it counts as far from all.
PEAK = 5.0


class Fit(NamedTuple):
    """The curve of CMR that is nearest. distance: 0 the same shape, about 1 no likeness; NaN for heads without a peak."""

    distance: float
    beta_enc: float
    beta_rec: float
    gamma: float


@dataclass(frozen=True)
class RecallByLag:
    """Attention by lag. heads; curves: [head, lag] over LAGS; fits: one for each head; facts: how they were measured."""

    heads: tuple[HeadId, ...]
    curves: Array
    fits: tuple[Fit, ...]
    facts: Mapping[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        rows = zip(self.heads, self.curves, self.fits, strict=True)
        return {
            **self.facts,
            "lags": list(LAGS),
            "heads": [{"head": str(head), "curve": curve.tolist(), **fit._asdict()} for head, curve, fit in rows],
        }

    def nearest(self, k: int) -> list[tuple[HeadId, Array, Fit]]:
        """The k heads nearest to CMR, with their curves."""
        order = np.argsort([np.inf if np.isnan(fit.distance) else fit.distance for fit in self.fits], kind="stable")
        return [(self.heads[i], self.curves[i], self.fits[i]) for i in order[:k]]

    def __repr__(self) -> str:
        best = ", ".join(f"{head} {fit.distance:.2f}" for head, _, fit in self.nearest(3))
        return f"RecallByLag({len(self.heads)} heads; nearest to CMR {best})"


@torch.no_grad()
def recall_by_lag(model: Model, *, n: int = 8, seed: int = 0) -> RecallByLag:
    """Attention by lag of every head on `n` random lists given twice, and the curve of CMR that is nearest to it. Raises UnfitTask."""
    batch = repeated(model.tokenizer, n, seed)
    found: list[Tensor] = []
    model.forward(
        batch,
        watch=lambda layer: found.append(lag_curves(layer, batch).mean(0).cpu()),
        logit_positions=torch.zeros(1, dtype=torch.long),
    )
    curves = torch.cat(found).double().numpy()
    fits = tuple(fit(curve, floor(batch)) for curve in curves)
    facts = {"model": model.name, "n": n, "seed": seed, "period": batch.facts["period"]}
    return RecallByLag(model.heads, curves, fits, facts)


def lag_curves(layer: LayerView, batch: Batch) -> Tensor:
    """[example, head, lag] mean attention from items of the second copy to those of the first at each of LAGS; NaN where none is seen."""
    device = layer.q.device
    queries, same = (batch.positions[name].to(device) for name in ("second", "duplicate_key"))
    start, period = int(same.min()), batch.facts["period"]
    if period > SHORT:
        keys = [same + lag for lag in LAGS]
        inside = [(key >= start) & (key < start + period) for key in keys]
        curves = [layer.entries(queries, k.masked_fill(~i, -1)) for k, i in zip(keys, inside, strict=True)]
        return torch.stack([curve.float().nanmean(-1) for curve in curves], -1)
    items = torch.arange(start, start + period, device=device).expand(len(queries), -1)
    # All pairs of two short copies at once: picking the queries and keys of each lag costs far more than these products do.
    rows = layer.columns(items).float()  # [example, head, query, item of the first copy]
    rows = rows.gather(2, queries.clamp(min=0)[:, None, :, None].expand(-1, layer.n_heads, -1, period))
    places = (same - start)[..., None] + torch.tensor(LAGS, device=device)  # [example, item of the second copy, lag]
    inside = (places >= 0) & (places < period) & (queries >= 0)[..., None]
    found = rows.gather(3, places.clamp(0, period - 1)[:, None].expand(-1, layer.n_heads, -1, -1))
    return found.masked_fill(~inside[:, None], torch.nan).nanmean(2)


def floor(batch: Batch) -> float:
    """The least peak that counts: five times what a head gives each key that looks at all of them alike."""
    return PEAK / float(batch.positions["second"].float().mean() + 1)


def distances(curves: Array) -> Array:
    """[..., curve of CMR] distances of curves [..., lag]: mean square of the difference over the variance, both from 0 and to one height."""
    own = curves - curves.min(-1, keepdims=True)
    cmr = cmr_curves() - cmr_curves().min(-1, keepdims=True)
    cmr = cmr / cmr.max(-1, keepdims=True)
    height = own.max(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Both to height 1, multiplied out: of many heads and curves a product of matrices, not all their differences.
        shape = own / height
        squares = np.square(shape).mean(-1, keepdims=True) - 2 * shape @ cmr.T / len(LAGS) + np.square(cmr).mean(-1)
        found: Array = np.maximum(squares, 0.0) / shape.var(-1, keepdims=True)
    return found


def fit(curve: Array, least: float = 0.0) -> Fit:
    """The nearest curve of CMR to a curve [lag] whose peak is at least `least`."""
    if not np.isfinite(curve).all() or curve.max() < least or curve.max() == curve.min():
        return Fit(*[float("nan")] * 4)
    every = distances(curve)
    best = int(every.argmin())
    return Fit(float(every[best]), *PARAMETERS[best])


PARAMETERS = tuple(itertools.product(ENCODING, RETRIEVAL, TRACE))  # (beta_enc, beta_rec, gamma) of each curve
_KEPT = ("data", "cmr_curves.json")


@functools.cache
def cmr_curves() -> Array:
    """[curve, lag] what CMR recalls at each of LAGS, for PARAMETERS; kept in a file, since they take minutes to simulate."""
    kept = json.loads(resources.files("headatlas.methods").joinpath(*_KEPT).read_text(encoding="utf-8"))
    return np.array(kept["curves"])


def simulated(beta_enc: float, beta_rec: float, gamma: float, *, runs: int = RUNS, seed: int = 0) -> Array:
    """[lag] shares of CMR's transitions at LAGS over simulated recalls, `runs` from each of STARTS items."""
    rng = np.random.default_rng(seed)
    shift = np.eye(ITEMS + 1, k=1)
    m = np.linalg.solve(np.eye(ITEMS + 1) - (1 - beta_enc) * shift, shift)
    item = np.repeat(np.linspace(0, ITEMS - 1, STARTS + 2)[1:-1].astype(int), runs)
    context = np.eye(ITEMS + 1)[item]
    counts = np.zeros(len(LAGS))
    for _ in range(ITEMS):
        strength = context @ m
        total = strength.sum(1)
        # Recall ends at the place behind the last item, or where nothing is left to be found.
        open_ = total > 0
        item, context, strength, total = item[open_], context[open_], strength[open_], total[open_]
        if not len(item):
            break
        draw = rng.random(len(item)) * total
        following = np.minimum((strength.cumsum(1) <= draw[:, None]).sum(1), ITEMS)
        going = following < ITEMS
        item, context, following = item[going], context[going], following[going]
        lag = following - item
        near = np.abs(lag) <= REACH
        counts += np.bincount(lag[near] + REACH, minlength=len(LAGS))
        brought = _normed((1 - gamma) * np.eye(ITEMS + 1)[following] + gamma * m[:, following].T)
        context = _normed((1 - beta_rec) * context + beta_rec * brought)
        item = following
    found: Array = counts / max(counts.sum(), 1)
    return found


def _normed(rows: Array) -> Array:
    found: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found


if __name__ == "__main__":
    # Writes the file of curves anew.
    curves = [np.round(simulated(*one), 5).tolist() for one in PARAMETERS]
    place = Path(__file__).parent.joinpath(*_KEPT)
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"curves": curves}) + "\n", encoding="utf-8")
