"""Attribution: a guess at how much every part of a model matters for an answer, from few runs, with a part of it measured.

direct: what each head writes straight into the answer's logit. atp: attribution patching of heads, gradient times change
(Nanda 2023; for queries and keys behind the softmax, AtP*, Kramar et al. 2024). eap, eap-ig: the same for edges between
parts (Syed et al. 2023; Hanna et al. 2024). Guesses rank; how well they do is said with every result: some parts, those
ranked highest and others spread evenly over all ranks, are measured exactly, and the two rankings compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from headatlas.errors import BadInput
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.attribution.edge_patching import edge_effects
from headatlas.methods.direct_logit_attribution import direct_effects
from headatlas.methods.sweeps.ablation import ablate
from headatlas.methods.sweeps.activation_patching import plan
from headatlas.methods.sweeps.cached_runs import GB
from headatlas.methods.sweeps.effects import sign_flip_p
from headatlas.methods.sweeps.gradient_estimate import estimates
from headatlas.methods.sweeps.run import run
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric, logit_difference

METHODS = ("direct", "atp", "eap", "eap-ig")
SPREAD = 16  # parts measured for the rank agreement beside the highest
SCHEMA = "headatlas/attribution/1"


@dataclass(frozen=True)
class Line:
    """One part: its mean guess with a 95% interval over examples, and the same measured exactly (NaN where it was not)."""

    part: str
    estimate: float
    low: float
    high: float
    exact: float
    exact_low: float
    exact_high: float
    p: float


@dataclass(frozen=True)
class Attribution:
    """Guesses for all parts of one kind, heads or edges.

    parts: names. values: [example, part] guesses. exact: [example, part] measured effects, NaN where not measured.
    """

    method: str
    parts: tuple[str, ...]
    values: Array
    exact: Array
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def mean(self) -> Array:
        """[part] mean guesses."""
        return stats.mean(self.values)

    @cached_property
    def order(self) -> NDArray[np.int_]:
        """Numbers of the parts, largest guess of either sign first."""
        return np.argsort(-np.abs(self.mean), kind="stable")

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[part] which were measured."""
        return np.asarray(~np.isnan(self.exact).all(0))

    def agreement(self) -> float:
        """Spearman's rank correlation of guesses with measured effects over the parts measured; NaN below three."""
        known = self.measured
        if int(known.sum()) < 3:
            return float("nan")
        return float(scipy_stats.spearmanr(self.mean[known], stats.mean(self.exact[:, known])).statistic)

    def top(self, k: int) -> list[Line]:
        """The `k` parts with the largest guesses of either sign."""
        return self.lines(self.order[:k])

    def lines(self, which: NDArray[np.int_]) -> list[Line]:
        """The parts of these numbers."""
        if not len(which):
            return []
        guess, exact = self.values[:, which], self.exact[:, which]
        low, high = stats.bootstrap(guess)
        exact_low, exact_high = stats.bootstrap(exact)
        columns = np.stack(
            [stats.mean(guess), low, high, stats.mean(exact), exact_low, exact_high, sign_flip_p(exact)], 1
        )
        return [Line(self.parts[i], *map(float, row)) for i, row in zip(which, columns, strict=True)]


def attribute(
    model: Model,
    batch: Batch,
    *,
    method: str = "direct",
    metric: Metric = logit_difference,
    direction: str = "denoising",
    component: str = "z",
    positions: str = "all",
    steps: int = 5,
    verify: int = 0,
    spread: int = SPREAD,
    memory: int = 4 * GB,
    about: Mapping[str, Any] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Attribution:
    """Guess the effect of every head (direct, atp) or edge (eap, eap-ig) on the metric, and measure some of them.

    verify: how many of the highest are measured exactly; spread: how many more, evenly over all ranks. What is measured is
    the guess's own question: for direct, what the metric loses when a head is silenced at the last position (its direct
    effect is a part of that); else what patching it changes. direction, component, positions: see `patch`; component and positions
    are atp's only. steps: eap-ig's. Raises BadInput, UnsupportedModel.
    """
    if method not in METHODS:
        raise BadInput(f"There is no method '{method}'.", f"Choose one of {', '.join(METHODS)}.")
    if verify < 0 or spread < 0:
        raise BadInput(f"--verify {verify} is no number of parts.", "Give 0 or more.")
    if method != "atp" and (component != "z" or positions != "all"):
        raise BadInput(
            f"AttentionLayer and positions are not chosen for {method}.", "Leave them out, or use --method atp."
        )
    if component not in ("z", "q", "k", "v"):
        raise BadInput(f"Heads are not attributed at '{component}'.", "Choose one of z, q, k, v.")
    began = time.perf_counter()
    names, values, measure, more = _guess(
        model, batch, method, metric, direction, component, positions, steps, memory, tick
    )
    guessed = time.perf_counter() - began
    chosen = select(values, verify, spread)
    exact = np.full(values.shape, np.nan)
    if len(chosen):
        exact[:, chosen] = measure(chosen)
    facts = {
        "method": method,
        "metric": metric.name,
        "unit": metric.unit,
        "measured_highest": min(verify, len(names)),
        "measured_spread": len(chosen) - min(verify, len(names)),
        "seconds": {"guess": round(guessed, 2), "measure": round(time.perf_counter() - began - guessed, 2)},
        **more,
        **(about or {}),
    }
    return Attribution(method, names, values, exact, facts)


def select(values: Array, verify: int, spread: int) -> NDArray[np.int_]:
    """Numbers of the `verify` parts with the largest mean guesses, and of `spread` others at even distances in rank."""
    order = np.argsort(-np.abs(stats.mean(values)), kind="stable")
    rest = order[verify:]
    count = min(spread, len(rest))
    even = np.linspace(0, len(rest) - 1, count).round().astype(int) if count else np.zeros(0, dtype=int)
    chosen: NDArray[np.int_] = np.concatenate([order[:verify], rest[np.unique(even)]])
    return chosen


Guess = tuple[tuple[str, ...], Array, Callable[[NDArray[np.int_]], Array], dict[str, Any]]


def _guess(
    model: Model,
    batch: Batch,
    method: str,
    metric: Metric,
    direction: str,
    component: str,
    positions: str,
    steps: int,
    memory: int,
    tick: Callable[[int, int], None],
) -> Guess:
    """Names, guesses [example, part], how to measure parts by number [example, n], and facts."""
    if method == "direct":
        found = direct_effects(model, batch, metric)

        def silence(chosen: NDArray[np.int_]) -> Array:
            heads = [found.heads[i] for i in chosen]
            lost = ablate(model, batch, heads, metric=metric, edit="zero", positions="end", memory=memory, tick=tick)
            return -lost.effects[:, :, 0]

        rest = {name: float(value.mean()) for name, value in found.others.items()}
        more = {"total": float(found.total.mean()), "others": rest, "notes": list(found.notes)}
        return tuple(map(str, found.heads)), found.values, silence, more
    if method == "atp":
        sweep = plan(model, batch, None, metric, direction, component, positions)
        if len(sweep.positions) > 1:
            raise BadInput(
                "Attribution takes one position or all of them.", "For each position: headatlas patch --triage."
            )
        guess = estimates(model, sweep, memory, exact_softmax=True)[:, :, 0]

        def patched(chosen: NDArray[np.int_]) -> Array:
            some = replace(sweep, head_sets=tuple(sweep.head_sets[i] for i in chosen))
            return run(model, some, memory=memory, tick=tick).effects[:, :, 0]

        names = tuple(" ".join(map(str, head_set)) for head_set in sweep.head_sets)
        return names, guess, patched, {"direction": direction, "site": component, "positions": positions}
    some_steps = steps if method == "eap-ig" else None
    graph, guess = edge_scores(
        model, batch, metric, direction=direction, steps=some_steps, memory=memory, tick=lambda done, total: None
    )
    edges = graph.edges()

    def carried(chosen: NDArray[np.int_]) -> Array:
        return edge_effects(model, batch, metric, graph, [edges[i] for i in chosen], direction=direction, tick=tick)

    more = {"direction": direction, "writers": len(graph.writers), "readers": len(graph.readers)}
    if some_steps is not None:
        more |= {"steps": some_steps, "rule": "middles of equal steps between the prompts' embeddings"}
    return tuple(graph.name(edge) for edge in edges), guess, carried, more


def data_of(found: Attribution, top: int | None = None) -> dict[str, Any]:
    """The result as plain data: facts, rank agreement, and parts, largest guess first (all, or `top` and all measured)."""
    which = found.order if top is None else [i for r, i in enumerate(found.order) if r < top or found.measured[i]]
    names = ("estimate", "low", "high", "exact", "exact_low", "exact_high", "p")
    return {
        "schema": SCHEMA,
        "run": dict(found.facts),
        "n_examples": len(found.values),
        "n_parts": len(found.parts),
        "measured": int(found.measured.sum()),
        "agreement": found.agreement(),
        "parts": [
            {"part": line.part, **{name: getattr(line, name) for name in names}}
            for line in found.lines(np.asarray(which, dtype=int))
        ],
    }
