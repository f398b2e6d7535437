"""Attribution: an estimate of how much every part of a model matters for an answer, from few runs, with a part of it measured.

direct: what each head writes straight into the answer's logit. atp: attribution patching of heads, gradient times change
(Nanda 2023; for queries and keys behind the softmax, AtP*, Kramar et al. 2024). eap, eap-ig: the same for edges between
parts (Syed et al. 2023; Hanna et al. 2024). Estimates rank; how well they do is said with every result: some parts, those
ranked highest and others spread evenly over all ranks, are measured exactly, and the two rankings compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from headatlas.choices import ATTRIBUTED, ATTRIBUTION
from headatlas.errors import BadInput
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.attribution.edge_patching import edge_effects
from headatlas.methods.direct_logit_attribution import direct_effects
from headatlas.methods.former import former_arguments
from headatlas.methods.options import RunOptions
from headatlas.methods.prompts import MeasuredPrompts, Prompts, prompts_for
from headatlas.methods.sweeps.ablation import ablate
from headatlas.methods.sweeps.activation_patching import plan
from headatlas.methods.sweeps.effects import sign_flip_p
from headatlas.methods.sweeps.gradient_estimate import estimates
from headatlas.methods.sweeps.run import run
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.given import demand_numbers
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Part, Progress, Silent
from headatlas.store import write_json

SPREAD = 16  # parts measured for the rank agreement beside the highest
SCHEMA = "headatlas/attribution/1"


@dataclass(frozen=True)
class Line:
    """One part: its mean estimate with a 95% interval over examples, and the same measured exactly (NaN where it was not)."""

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
    """Estimates for all parts of one kind, heads or edges.

    parts: names. values: [example, part] estimates. exact: [example, part] measured effects, NaN where not measured.
    """

    method: str
    parts: tuple[str, ...]
    values: Array
    exact: Array
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def mean(self) -> Array:
        """[part] mean estimates."""
        return stats.mean(self.values)

    @cached_property
    def order(self) -> NDArray[np.int_]:
        """Numbers of the parts, largest estimate of either sign first."""
        return np.argsort(-np.abs(self.mean), kind="stable")

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[part] which were measured."""
        return np.asarray(~np.isnan(self.exact).all(0))

    def __repr__(self) -> str:
        best = ", ".join(f"{self.parts[i]} {self.mean[i]:+.3g}" for i in self.order[:3])
        measured = f", {int(self.measured.sum())} measured" if self.measured.any() else ""
        return f"Attribution({self.method}: {len(self.parts)} parts estimated{measured}; largest {best})"

    def agreement(self) -> float:
        """Spearman's rank correlation of estimates with measured effects over the parts measured; NaN below three."""
        known = self.measured
        if int(known.sum()) < 3:
            return float("nan")
        return float(scipy_stats.spearmanr(self.mean[known], stats.mean(self.exact[:, known])).statistic)

    def top(self, k: int) -> list[Line]:
        """The `k` parts with the largest estimates of either sign."""
        return self.lines(self.order[:k])

    def lines(self, which: NDArray[np.int_]) -> list[Line]:
        """The parts of these numbers."""
        if not len(which):
            return []
        estimate, exact = self.values[:, which], self.exact[:, which]
        low, high = stats.interval(estimate)
        exact_low, exact_high = stats.interval(exact)
        columns = np.stack(
            [stats.mean(estimate), low, high, stats.mean(exact), exact_low, exact_high, sign_flip_p(exact)], 1
        )
        return [Line(self.parts[i], *map(float, row)) for i, row in zip(which, columns, strict=True)]


@dataclass(frozen=True)
class AttributionOptions:
    """How much work goes into an attribution, and where it is written.

    steps: eap-ig's, runs that the gradient is averaged over. spread: how many parts, evenly over all ranks, are measured
    beside the highest. memory: what may be used beside the weights, in bytes or as text such as "4GB". out: a JSON file for
    every part. Raises BadInput for text that is no amount of memory.
    """

    steps: int = 5
    spread: int = SPREAD
    memory: int | str = "4GB"
    out: str | Path | None = None

    def __post_init__(self) -> None:
        demand_numbers(self)
        _ = self.run

    @property
    def run(self) -> RunOptions:
        """The memory as what is measured exactly takes it."""
        return RunOptions(self.memory)


@former_arguments(AttributionOptions, site="component")
def attribute(
    model: Model,
    batch: Inputs | Prompts,
    *,
    method: str = "direct",
    direction: str = "denoising",
    component: str = "z",
    positions: str = "all",
    verify: int = 0,
    options: AttributionOptions | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Estimate the effect of every head (direct, atp) or edge (eap, eap-ig) on the metric, and measure some of them.

    batch: the prompts, as `model.forward` takes them, or `Prompts`, which names a task, a file or another metric than the logit
    difference. Where there are no answers, the model's first choice is compared with its second. verify: how many of
    the highest are measured exactly, beside `options.spread` others. What is measured is the estimate's own question: for
    direct, what the metric loses when a head is zero-ablated at the last position (its direct effect is a part of that); else
    what patching it changes. direction, component, positions: see `patch`; component and positions are atp's only. Raises
    BadInput, UnsupportedModel.
    """
    options, progress = options or AttributionOptions(), progress or Silent()
    ATTRIBUTION.demand(method)
    if verify < 0 or options.spread < 0:
        raise BadInput(f"--verify {verify} and spread {options.spread} count parts.", "Give 0 or more.")
    if method != "atp" and (component != "z" or positions != "all"):
        raise BadInput(f"Component and positions are not chosen for {method}.", "Leave them out, or use --method atp.")
    ATTRIBUTED.demand(component)
    given = prompts_for(model, batch, progress)
    began = time.perf_counter()
    if method == "direct":
        parts = _direct(model, given, options, progress)
    elif method == "atp":
        parts = _patching(model, given, direction, component, positions, options, progress)
    else:
        parts = _edges(model, given, direction, options.steps if method == "eap-ig" else None, options, progress)
    estimated = time.perf_counter() - began
    chosen = select(parts.values, verify, options.spread)
    exact = np.full(parts.values.shape, np.nan)
    if len(chosen):
        exact[:, chosen] = parts.measure(chosen)
    highest = min(verify, len(parts.names))
    facts = {
        "method": method,
        "metric": given.metric.name,
        "unit": given.metric.unit,
        "measured_highest": highest,
        "measured_spread": len(chosen) - highest,
        "seconds": {"guess": round(estimated, 2), "measure": round(time.perf_counter() - began - estimated, 2)},
        **parts.facts,
        "model": model.name,
        **given.facts,
    }
    found = Attribution(method, parts.names, parts.values, exact, facts)
    if options.out is not None:
        write_json(Path(options.out), data_of(found))
    return found


def select(values: Array, verify: int, spread: int) -> NDArray[np.int_]:
    """Numbers of the `verify` parts with the largest mean estimates, and of `spread` others at even distances in rank."""
    order = np.argsort(-np.abs(stats.mean(values)), kind="stable")
    rest = order[verify:]
    count = min(spread, len(rest))
    even = np.linspace(0, len(rest) - 1, count).round().astype(int) if count else np.zeros(0, dtype=int)
    chosen: NDArray[np.int_] = np.concatenate([order[:verify], rest[np.unique(even)]])
    return chosen


@dataclass(frozen=True)
class _Estimated:
    """Names of the parts, estimates [example, part], how to measure parts by number [example, n], and facts."""

    names: tuple[str, ...]
    values: Array
    measure: Callable[[NDArray[np.int_]], Array]
    facts: Mapping[str, Any]


def _direct(model: Model, given: MeasuredPrompts, options: AttributionOptions, progress: Progress) -> _Estimated:
    """What each head writes straight into the answer's logit."""
    batch, metric = given.batch, given.metric
    found = direct_effects(model, batch, metric)

    def silence(chosen: NDArray[np.int_]) -> Array:
        heads = [found.heads[i] for i in chosen]
        lost = ablate(
            model,
            Prompts(batch=batch, metric=metric),
            heads,
            edit="zero",
            positions="end",
            options=options.run,
            progress=Part(progress, "measure"),
        )
        return -lost.effects[:, :, 0]

    rest = {name: float(value.mean()) for name, value in found.others.items()}
    more = {"total": float(found.total.mean()), "others": rest, "notes": list(found.notes)}
    return _Estimated(tuple(map(str, found.heads)), found.values, silence, more)


def _patching(
    model: Model,
    given: MeasuredPrompts,
    direction: str,
    component: str,
    positions: str,
    options: AttributionOptions,
    progress: Progress,
) -> _Estimated:
    """The first-order effect of patching each head (attribution patching)."""
    sweep = plan(model, replace(given, facts={}), None, direction, component, positions)
    if len(sweep.positions) > 1:
        raise BadInput("Attribution takes one position or all of them.", "For each position: headatlas patch --triage.")
    memory = options.run.bytes
    values = estimates(model, sweep, memory, exact_softmax=True)[:, :, 0]

    def patched(chosen: NDArray[np.int_]) -> Array:
        some = replace(sweep, head_sets=tuple(sweep.head_sets[i] for i in chosen))
        return run(model, some, memory=memory, progress=progress).effects[:, :, 0]

    names = tuple(" ".join(map(str, head_set)) for head_set in sweep.head_sets)
    return _Estimated(names, values, patched, {"direction": direction, "site": component, "positions": positions})


def _edges(
    model: Model,
    given: MeasuredPrompts,
    direction: str,
    steps: int | None,
    options: AttributionOptions,
    progress: Progress,
) -> _Estimated:
    """The first-order effect of patching each edge, at one gradient or averaged over `steps` of them."""
    batch, metric = given.batch, given.metric
    graph, values = edge_scores(model, batch, metric, direction=direction, steps=steps, memory=options.run.bytes)
    edges = graph.edges()

    def carried(chosen: NDArray[np.int_]) -> Array:
        some = [edges[i] for i in chosen]
        told = Part(progress, "measure")
        return edge_effects(model, batch, metric, graph, some, direction=direction, progress=told)

    facts: dict[str, Any] = {
        "direction": direction, "writers": len(graph.writers), "readers": len(graph.readers),
    }  # fmt: skip
    if steps is not None:
        facts |= {"steps": steps, "rule": "middles of equal steps between the prompts' embeddings"}
    return _Estimated(tuple(graph.name(edge) for edge in edges), values, carried, facts)


def data_of(found: Attribution, top: int | None = None) -> dict[str, Any]:
    """The result as plain data: facts, rank agreement, and parts, largest estimate first (all, or `top` and all measured)."""
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
