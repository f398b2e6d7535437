"""Attention by distance: which mixtures of a few waves make a head attend 1 token back, 5 tokens back, or just nearby.

A rotary model turns each pair of dimensions of q and k by (frequency x position); a model with learned positions is
given the same waves as its position table. Either way the part of the attention logit that depends on positions is
sum_m a_m cos(w_m d) - b_m sin(w_m d) with d = query position - key position, and a, b are ours to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from headatlas.ops.types import Array

# What a unit of weight on a wave costs, in units of error.
_COST = 3e-3


@dataclass(frozen=True)
class Kernel:
    """A mixture of waves. values[d] is what it adds to the logit of the key d tokens back; `waves` indexes frequencies."""

    waves: tuple[int, ...]
    cosine: Array
    sine: Array
    values: Array

    def times(self, gain: float) -> Kernel:
        """The same shape, `gain` times as strong."""
        return Kernel(self.waves, self.cosine * gain, self.sine * gain, self.values * gain)


def rotary_base(d_head: int, context: int) -> tuple[float, int]:
    """(rope theta, number of fast pairs): the other pairs turn by at most a quarter radian over the whole context.

    Fast pairs, 3 of 8, tell positions apart; slow ones compare contents at any distance.
    """
    fast = max(3, d_head * 3 // 16)
    return float((4.0 * context) ** (d_head / (2 * fast))), fast


def rotary_frequencies(d_head: int, theta: float) -> Array:
    """Radians a token, one for each pair of dimensions, fastest first."""
    return np.asarray(theta ** (-np.arange(0, d_head, 2) / d_head), dtype=np.float64)


def table_frequencies(count: int, context: int) -> Array:
    """Radians a token for a learned position table: from two-token waves to one that spans the context."""
    return np.geomspace(2.2, np.pi / context, count)


def only(offset: int, frequencies: Array, waves: Sequence[int], context: int) -> Kernel:
    """1 at `offset`, as low as possible at every other distance."""
    wanted = np.zeros(context)
    wanted[offset] = 1.0
    return _flattest(wanted, np.ones(context), frequencies, waves)


def near(width: int, frequencies: Array, waves: Sequence[int], context: int) -> Kernel:
    """1 for distances below `width`, 0 well beyond; the half width in between falls off."""
    distance = np.arange(context)
    wanted = np.clip(1.0 - (distance - width + 1) / (width / 2 + 1), 0.0, 1.0)
    care = np.where((distance >= width) & (wanted > 0), 0.25, 1.0)
    return _flattest(wanted, care, frequencies, waves)


def fading(levels: Sequence[float], frequencies: Array, waves: Sequence[int], context: int) -> Kernel:
    """levels[d] for the first distances, 0 from twice as many on; in between it falls off."""
    distance, count = np.arange(context), len(levels)
    wanted = np.interp(distance, [*range(count), 2 * count], [*levels, 0.0])
    care = np.where((distance >= count) & (distance < 2 * count), 0.25, 1.0)
    return _flattest(wanted, care, frequencies, waves)


def recent(reach: int, frequencies: Array, waves: Sequence[int], context: int) -> Kernel:
    """0 here, falling evenly to -1 at `reach` tokens back, and staying there."""
    wanted = -np.minimum(np.arange(context) / reach, 1.0)
    care = np.where(np.arange(context) < reach, 1.0, 0.5)
    return _flattest(wanted, care, frequencies, waves)


def apart(hole: int, flat: int, frequencies: Array, waves: Sequence[int], context: int) -> Kernel:
    """Lower by 1 at fewer than `hole` tokens back than on average from `flat` tokens to half the context.

    Between hole and flat nothing is asked; from flat on it is as even as the waves allow.
    """
    steps, half = np.arange(context), context // 2
    waves = tuple(waves)
    basis = _basis(steps, frequencies[list(waves)])
    wanted, care = np.where(steps < hole, -1.0, 0.0), np.ones(context)
    care[:hole] = context / hole  # the few excluded distances weigh as much as all the others
    care[hole:flat] = 0.0
    care[half:] = 0.1
    care[flat : 4 * flat] = 4.0  # near repeats are the common ones
    # A little shrinkage keeps the weights on the waves small; the last column is the constant.
    scaled = basis * care[:, None] ** 0.5
    shrink = 3e-4 * context * np.eye(basis.shape[1])
    shrink[-1, -1] = 0.0
    weights: Array = np.linalg.solve(scaled.T @ scaled + shrink, scaled.T @ (care**0.5 * wanted)).astype(np.float64)
    kernel = _kernel(waves, weights, basis)
    # One scale for all: the depth of the hole is 1 whatever the waves could do.
    return kernel.times(1.0 / (kernel.values[flat:half].mean() - kernel.values[:hole].max()))


def _flattest(wanted: Array, care: Array, frequencies: Array, waves: Sequence[int]) -> Kernel:
    """The mixture whose largest error against `wanted` is smallest, up to a constant (softmax does not see one).

    Weights cost a little, so that waves which nearly cancel are not blown up against each other.
    """
    waves = tuple(waves)
    basis = _basis(np.arange(len(wanted)), frequencies[list(waves)])
    rows, aim, weight = basis[care > 0], wanted[care > 0], care[care > 0]
    slack = -1.0 / weight[:, None]
    n = basis.shape[1] - 1  # the last column is the constant
    ones = rows[:, -1:]
    solved = linprog(
        np.concatenate([np.full(2 * n, _COST), [0.0, 1.0]]),  # weights up, weights down, constant, largest error
        A_ub=np.block([[rows[:, :-1], -rows[:, :-1], ones, slack], [-rows[:, :-1], rows[:, :-1], -ones, slack]]),
        b_ub=np.concatenate([aim, -aim]),
        bounds=[(0, None)] * (2 * n) + [(None, None), (0, None)],
    )
    return _kernel(waves, solved.x[:n] - solved.x[n : 2 * n], basis)


def _basis(steps: Array | NDArray[np.int64], frequencies: Array) -> Array:
    angle = np.outer(steps, frequencies)
    return np.concatenate([np.cos(angle), -np.sin(angle), np.ones((len(angle), 1))], axis=1)


def _kernel(waves: tuple[int, ...], weights: Array, basis: Array) -> Kernel:
    count = len(waves)
    return Kernel(waves, weights[:count], weights[count : 2 * count], basis[:, : 2 * count] @ weights[: 2 * count])
