"""How heads are pruned: what stands in their place, how evenly they go, and how gates are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headatlas.choices import REMOVED, SPREAD
from headatlas.errors import BadInput
from headatlas.model.given import demand_numbers


@dataclass(frozen=True)
class PruneOptions:
    """How heads are ordered and taken away.

    removal: what a removed head gives instead, zero or its mean output over the texts that heads are ordered on. spread: "model": heads go
    wherever they stand in the order (as Michel et al. and Voita et al. have it); "layer": equally many of each layer; "group":
    whole KV groups, equally many of each layer; "queries": equally many query heads of each KV group. A checkpoint gets
    smaller by what all layers lose. points: steps of the curve between all heads and none. draws: random orders beside.
    guard: heads of each layer that stay, its best by the order; with spread "model" alone. recompute: importance (Michel) is
    computed again at each of `points` steps, with what went before gone. penalty, steps, rate: of gates (L0): lambda in units of the
    metric for each open head, and steps of Adam. seed: of random orders, gates, and of what halves of prompts of one's own are.
    Raises BadInput.
    """

    removal: str = "zero"
    spread: str = "model"
    points: int = 10
    draws: int = 3
    guard: int = 0
    recompute: bool = False
    penalty: float = 0.01
    steps: int = 100
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        demand_numbers(self)
        REMOVED.demand(self.removal)
        SPREAD.demand(self.spread)
        if self.points < 1 or self.steps < 1 or self.draws < 0 or self.guard < 0:
            raise BadInput(
                "Pruning needs 1 point of the curve and 1 step of gates at least, and no fewer than 0 draws and guarded heads.",
                "Check the numbers given.",
            )
        if not 0 < self.penalty < math.inf or not 0 < self.rate < math.inf:
            raise BadInput(
                f"Gates have the penalty {self.penalty:g} and the rate {self.rate:g}.", "Give numbers above 0."
            )
        if self.guard and self.spread != "model":
            raise BadInput(
                f"A guard keeps heads of each layer where they go anywhere; spread '{self.spread}' is even by itself.",
                "Leave one of them out.",
            )
