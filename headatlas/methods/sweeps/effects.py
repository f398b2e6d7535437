"""What a sweep over heads found: the metric under each change, per example, with its effect, interval and p-values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.render.escape import shown
from headatlas.scores import grid

HeadSet = tuple[HeadId, ...]  # heads that are changed together: one head, a KV group, any set
EXACT = 12  # up to so many examples all sign flips are counted
FLIPS = 9999


@dataclass(frozen=True)
class HeadEffect:
    """One change: mean effect on the metric with its 95% interval over examples, p of no effect, q over all measured.

    share: the effect as a share (see HeadEffects.share), with its interval. estimate: what attribution patching estimated.
    """

    heads: HeadSet
    position: str
    effect: float
    low: float
    high: float
    p: float
    q: float
    share: float
    share_low: float
    share_high: float
    estimate: float

    def __repr__(self) -> str:
        return f"HeadEffect({self.name} at {self.position}: {self.effect:+.3g}, {self.low:+.3g} to {self.high:+.3g}, q {self.q:.2g})"

    @property
    def head(self) -> HeadId:
        """The head, the first of several."""
        return self.heads[0]

    @property
    def name(self) -> str:
        """The heads as text."""
        return " ".join(str(head) for head in self.heads)


@dataclass(frozen=True)
class HeadEffects:
    """The metric under each change of a sweep.

    values: [example, head_set, position]; NaN where not measured, or where an example has no such position.
    base: [example] the metric of the run that was changed. other: that of the run whose values were put in (patching).
    estimate: [head_set, position] estimated mean effects, where triage ran. kind: ablation, denoising or noising.
    """

    kind: str
    head_sets: tuple[HeadSet, ...]
    positions: tuple[str, ...]
    values: Array
    base: Array
    other: Array | None = None
    estimate: Array | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The first head of each head_set."""
        return tuple(head_set[0] for head_set in self.head_sets)

    @property
    def effects(self) -> Array:
        """[example, head_set, position] the metric under the change minus the metric without."""
        return self.values - self.base[:, None, None]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[head_set, position] which changes were measured."""
        return np.asarray(~np.isnan(self.values).all(0))

    @property
    def unmeasured(self) -> int:
        """How many changes triage left out."""
        return int((~self.measured).sum())

    @property
    def span(self) -> Array:
        """[example] what shares are shares of: clean minus corrupted in patching, the clean metric in ablation."""
        if self.other is None:
            return self.base
        return self.other - self.base if self.kind == "denoising" else self.base - self.other

    def share(self) -> tuple[Array, Array, Array]:
        """[head_set, position] mean effect over mean span, and its 95% interval: examples are drawn for both at once.

        Denoising: (patched - corrupted) / (clean - corrupted), 1 where the head alone brings everything back.
        Noising: (patched - clean) / (clean - corrupted), -1 where the head alone destroys everything.
        Ablation: (ablated - clean) / clean, -1 where nothing is left of the metric.
        """
        effects, span = self.effects.reshape(len(self.base), -1), self.span
        if (
            self.other is None and self.facts.get("metric") == "kl"
        ):  # nothing diverges from itself: there is no share of 0
            nothing = np.full(self.values.shape[1:], np.nan)
            return nothing, nothing, nothing
        n = len(span)
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=1000) / n
        present = ~np.isnan(effects)
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # changes that were not measured have no numbers
            found = (weights @ np.where(present, effects, 0.0)) / (weights @ (present * span[:, None]))
            whole = np.where(present, effects, 0.0).sum(0) / (present * span[:, None]).sum(0)
            low, high = np.nanquantile(np.where(np.isfinite(found), found, np.nan), [0.025, 0.975], axis=0)
        shape = self.values.shape[1:]
        unknown = ~present.any(0)
        return tuple(np.where(unknown, np.nan, x).reshape(shape) for x in (whole, low, high))  # type: ignore[return-value]

    @cached_property
    def _lines(self) -> tuple[HeadEffect, ...]:
        mean = stats.mean(self.effects)
        low, high = stats.interval(self.effects)
        p = sign_flip_p(self.effects)
        columns = [mean, low, high, p, stats.false_discovery(p), *self.share()]
        estimate = self.estimate if self.estimate is not None else np.full(mean.shape, np.nan)
        names = ("effect", "low", "high", "p", "q", "share", "share_low", "share_high", "estimate")

        def line(i: int, j: int) -> HeadEffect:
            numbers = {name: float(column[i, j]) for name, column in zip(names, [*columns, estimate], strict=True)}
            return HeadEffect(self.head_sets[i], self.positions[j], **numbers)

        return tuple(line(i, j) for i in range(len(self.head_sets)) for j in range(len(self.positions)))

    def summary(self) -> list[HeadEffect]:
        """One line per change, measured or not (NaN), in the order of head_sets and positions."""
        return list(self._lines)

    def top(self, k: int) -> list[HeadEffect]:
        """The `k` measured changes with the largest effects of either sign."""
        known = [line for line in self._lines if not np.isnan(line.effect)]
        return sorted(known, key=lambda line: -abs(line.effect))[:k]

    def grid(self, position: str | None = None, stack: str | None = None) -> Array:
        """[layer, head] mean effects at one position (the first unless named), NaN where not measured."""
        if position is not None and position not in self.positions:
            raise BadInput(f"Unknown position '{position}'.", f"Choose one of {', '.join(self.positions)}.")
        column = self.positions.index(position) if position is not None else 0
        mean = stats.mean(self.effects)[:, column]
        pairs = {head: value for head_set, value in zip(self.head_sets, mean, strict=True) for head in head_set}
        return grid(tuple(pairs), np.array(list(pairs.values())), stack)

    def agreement(self) -> float:
        """Rank agreement (Spearman) of estimates with measured effects over all that were measured; NaN without triage."""
        if self.estimate is None or int(self.measured.sum()) < 3:
            return float("nan")
        mean = stats.mean(self.effects)
        return float(scipy_stats.spearmanr(self.estimate[self.measured], mean[self.measured]).statistic)

    def __repr__(self) -> str:
        best = ", ".join(f"{line.name} {line.effect:+.3g}" for line in self.top(3))
        left = f", {self.unmeasured} left unmeasured" if self.unmeasured else ""
        metric = f" in {self.facts['metric']}" if "metric" in self.facts else ""
        lines = [f"HeadEffects({self.kind}{metric}: {int(self.measured.sum())} changes{left}; largest {best})"]
        tokens = self.facts.get("top_token")
        if tokens:
            before = ", ".join(repr(shown(one, lines=False)) for one in tokens["before"][:4])
            lines.append(f"  likeliest next token {before}; another one under {len(tokens['after'])} changes")
            for name, after in list(tokens["after"].items())[:5]:
                lines.append(f"  without {name}: {', '.join(repr(shown(one, lines=False)) for one in after[:4])}")
        return "\n".join(lines)


def sign_flip_p(effects: Array, seed: int = 0) -> Array:
    """Two-sided p that effects [example, ...] are as likely to be above as below zero, by flipping their signs.

    All flips are counted for up to 12 examples, else 9999 random ones. NaN examples are left out; NaN with none left.
    """
    n = len(effects)
    flat = effects.reshape(n, -1)
    present = ~np.isnan(flat)
    if n <= EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(FLIPS, n))
    known = np.where(present, flat, 0.0)
    observed = np.abs(known.sum(0))
    reached = np.zeros(flat.shape[1])
    for part in np.array_split(signs, max(1, len(signs) * flat.shape[1] // 10_000_000)):
        # A hair of tolerance, so that flips equal to the observed sum but for rounding are counted as equal.
        reached += (np.abs(part @ known) >= observed * (1 - 1e-9)).sum(0)
    p = reached / len(signs) if n <= EXACT else (reached + 1) / (len(signs) + 1)
    result: Array = np.where(present.any(0), p, np.nan).reshape(effects.shape[1:])
    return result
