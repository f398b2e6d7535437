"""How a small model is trained, and at which steps it is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headatlas.choices import Choice
from headatlas.errors import BadInput
from headatlas.model.given import demand_numbers

DECAY = Choice(("none", "linear", "cosine"), "The learning rate cannot fall by '{}'.")


@dataclass(frozen=True)
class TrainOptions:
    """AdamW (Loshchilov & Hutter 2019) with a warm-up and a fall of the learning rate.

    warmup: steps in which the rate rises linearly to `learning_rate`. decay: "none", or "linear" or "cosine" down to a
    tenth. clip: largest norm of the gradient. per_decade: how many checkpoints for each factor of ten in steps.
    keep_every: steps after which the state is kept at the latest, so that an interrupted training can go on.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 50
    decay: str = "none"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    per_decade: int = 12
    keep_every: int = 500

    def __post_init__(self) -> None:
        demand_numbers(self)
        DECAY.demand(self.decay)
        if self.steps < 1:
            raise BadInput(f"A toy needs at least 1 step, got {self.steps}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = step / self.steps
        falling = {"none": 1.0, "linear": 1 - 0.9 * done, "cosine": 0.55 + 0.45 * math.cos(math.pi * done)}[self.decay]
        return self.learning_rate * rising * falling

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The steps of checkpoints: 0, 1, then even on a log scale, and the last."""
        powers = range(math.ceil(self.per_decade * math.log10(self.steps)) + 1)
        spread = {min(self.steps, round(10 ** (power / self.per_decade))) for power in powers}
        return tuple(sorted(spread | {0, self.steps}))
