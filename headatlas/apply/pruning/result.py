"""What pruning found: orders, and for each the metric as heads go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headatlas.apply.pruning.orders import Order
from headatlas.apply.pruning.rounds import Rounds
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.render.numbers import number, signed

RANDOM = "random"


@dataclass(frozen=True)
class PrunedPoint:
    """The metric on held-out texts with some heads gone: kept, how many are left, share of all.

    value, low, high: its mean over texts with a 95% interval. rise: by how much it is worse than with all heads, rise_low to rise_high
    the paired interval. beyond: rise less that of the random orders at the same share (below 0: the order costs less than chance), with
    its paired interval; NaN where there are none. Of random orders: means over them, and of rise the least and the greatest.
    """

    kept: int
    share: float
    value: float
    low: float
    high: float
    rise: float
    rise_low: float
    rise_high: float
    beyond: float = float("nan")
    beyond_low: float = float("nan")
    beyond_high: float = float("nan")
    least: float = float("nan")
    greatest: float = float("nan")


@dataclass(frozen=True)
class Pruning:
    """orders, rounds: by name, what goes when. curves: by name, from all heads to none; "random" is the mean of the random orders.

    whole: the metric with every head in place. gated: of the order l0, the point at which its gates left off. means: what
    removed heads give, (stack, layer) -> [head, d_value]; None for zero. facts: model, prompts, metric, options.
    """

    heads: tuple[HeadId, ...]
    orders: Mapping[str, Order]
    rounds: Mapping[str, Rounds]
    curves: Mapping[str, tuple[PrunedPoint, ...]]
    whole: float
    whole_low: float
    whole_high: float
    gated: PrunedPoint | None = None
    means: Mapping[Any, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def removed(self, keep: float, order: str | None = None) -> tuple[HeadId, ...]:
        """The heads that are gone where about this share is kept, by one of the orders (the first). Raises BadInput."""
        name = next(iter(self.orders)) if order is None else order
        if name not in self.orders:
            raise BadInput(f"Heads were not ordered by {name}.", f"There are {', '.join(self.orders)}.")
        return self.rounds[name].removed(keep)

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        orders = {
            name: {
                **order.facts, "heads": list(map(str, order.heads)),
                "guarded": sorted(map(str, self.rounds[name].guarded)),
                "scores": {str(head): float(x) for head, x in zip(self.heads, order.score, strict=True)},
            }
            for name, order in self.orders.items()
        }  # fmt: skip
        return {
            **self.facts, "n_heads": len(self.heads), "whole": self.whole, "whole_low": self.whole_low,
            "whole_high": self.whole_high, "orders": orders,
            "curves": {name: [asdict(point) for point in points] for name, points in self.curves.items()},
            "gated": None if self.gated is None else asdict(self.gated),
        }  # fmt: skip

    def __repr__(self) -> str:
        told = []
        for name, points in self.curves.items():
            half = min(points, key=lambda point: abs(point.share - 0.5))
            told.append(f"{name} {signed(half.rise)} at {half.share:.0%}")
        unit = self.facts.get("unit") or ""
        metric = f"{self.facts.get('metric')} {number(self.whole)}{f' {unit}' if unit else ''}"
        return f"Pruning({len(self.heads)} heads, {metric}; worse by {', '.join(told)} kept)"
