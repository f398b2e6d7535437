"""Steering: push heads' outputs along a direction while the model runs, and measure what it does beside random directions.

direction: along what; dose: how much it does; generation: what the model then writes; workflow: all of it in one call.
"""

from headatlas.apply.steering.direction import (
    DIRECTIONS,
    Steering,
    best_heads,
    find,
    name_of,
    one_in_twenty,
    position_of,
    toward,
)
from headatlas.apply.steering.dose import (
    Dose,
    Doses,
    data_of,
    edited_metric,
    measure,
    parse_alphas,
    toward_metric,
)
from headatlas.apply.steering.generation import generate
from headatlas.apply.steering.workflow import Steered, SteerOptions, steer

__all__ = [
    "DIRECTIONS",
    "Dose",
    "Doses",
    "SteerOptions",
    "Steered",
    "Steering",
    "best_heads",
    "data_of",
    "edited_metric",
    "find",
    "generate",
    "measure",
    "name_of",
    "one_in_twenty",
    "parse_alphas",
    "position_of",
    "steer",
    "toward",
    "toward_metric",
]
