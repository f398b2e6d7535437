"""Is a circuit enough, is all of it there, and is all of it needed? Faithfulness, completeness and minimality.

Wang et al. 2022 (IOI), section 4. F(S) is the metric with only the heads of S at work, M the whole model, C the circuit:
faithfulness |F(M) - F(C)|; completeness |F(C without K) - F(M without K)| for sets K of its heads; minimality of a head v:
the largest |F(C without K and v) - F(C without K)| over sets K that lack v.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headatlas.circuits.circuit import Circuit, Node
from headatlas.circuits.knockout import EMPTY, WHOLE, Knockout, Nodes, State
from headatlas.errors import BadInput
from headatlas.ops import stats
from headatlas.ops.types import Array

CHOICES = 10  # heads among which a step of the greedy search for K chooses, as in the paper
STEPS = 10  # heads that it adds at most


@dataclass(frozen=True)
class Interval:
    """A mean over examples with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array, unit: str = "") -> Interval:
        """The mean of values [example]. unit: "share" for a metric that lies between 0 and 1."""
        return cls(float(values.mean()), *stats.interval_of(values, unit))

    @classmethod
    def ratio(cls, over: Array, under: Array, how: str) -> Interval:
        """over / under, both [example]: of the means, with examples drawn for both at once, or the mean of the ratios.

        Raises BadInput where something would be divided by zero.
        """
        if how == "mean-of-ratios":
            if bool((under == 0).any()):
                raise BadInput("An example has a denominator of 0, so it has no ratio.", "Use ratio-of-means.")
            return cls.of(over / under)
        n = len(under)
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=1000) / n
        if float(under.mean()) == 0:
            raise BadInput(
                "Knocking out all heads changes the metric by nothing on average, so no share of it can be recovered."
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high = np.nanquantile((weights @ over) / (weights @ under), [0.025, 0.975])
        return cls(float(over.mean() / under.mean()), float(low), float(high))


@dataclass(frozen=True)
class Faithfulness:
    """The metric of whole model, circuit and no heads; share: F(C) / F(M); recovered: (F(C) - F(none)) / (F(M) - F(none))."""

    whole: Interval
    circuit: Interval
    empty: Interval
    gap: float
    share: Interval
    recovered: Interval


@dataclass(frozen=True)
class Gap:
    """A set K of the circuit's heads and how differently circuit and whole model take its loss; share: |gap| / F(M)."""

    kind: str
    removed: tuple[Node, ...]
    circuit: float
    whole: float
    gap: Interval
    share: float


@dataclass(frozen=True)
class Need:
    """A node and the set K without which its loss is felt most; share: |effect| / F(M)."""

    node: Node
    kind: str
    removed: tuple[Node, ...]
    effect: Interval
    share: float


@dataclass(frozen=True)
class CircuitTest:
    """All three answers with the protocol they were measured by; a criterion that was not asked for is None.

    facts: what decided the numbers (model, prompts, protocol), where the whole test was one call.
    """

    circuit: Circuit
    protocol: Mapping[str, Any]
    faithfulness: Faithfulness
    completeness: tuple[Gap, ...] | None
    minimality: tuple[Need, ...] | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = self.faithfulness
        return f"CircuitTest({self.circuit!r}; {found.share.value:.1%} of the whole model, recovers {found.recovered.value:.1%})"

    def data(self) -> dict[str, Any]:
        """As JSON."""
        part = lambda one: {name: _plain(value) for name, value in vars(one).items()}  # noqa: E731
        return {
            "schema": "headatlas/circuit-test/1",
            "circuit": self.circuit.data(),
            "protocol": dict(self.protocol),
            "faithfulness": part(self.faithfulness),
            "completeness": None if self.completeness is None else [part(one) for one in self.completeness],
            "minimality": None if self.minimality is None else [part(one) for one in self.minimality],
            **({"run": dict(self.facts)} if self.facts else {}),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return vars(value)
    if isinstance(value, tuple) and not isinstance(value, Node):
        return [str(one) for one in value]
    return str(value) if isinstance(value, Node) else value


def evaluate(
    circuit: Circuit,
    knockout: Knockout,
    *,
    criteria: Sequence[str] = ("completeness", "minimality"),
    draws: int = 10,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> CircuitTest:
    """Faithfulness, and the criteria asked for. draws: random sets K (each head with probability a half).

    facts: what the result says of the whole run, beside the protocol. Raises BadInput.
    """
    for one in criteria:
        if one not in ("completeness", "minimality"):
            raise BadInput(f"Unknown criterion '{one}'.", "Choose completeness, minimality or both.")
    nodes = frozenset(circuit.nodes)
    faithful = faithfulness(nodes, knockout)
    rng = np.random.default_rng(seed)
    complete = completeness(circuit, knockout, draws, rng) if "completeness" in criteria else None
    minimal = minimality(circuit, knockout, draws, rng) if "minimality" in criteria else None
    positions = sorted({node.position for node in circuit.nodes if node.position is not None})
    protocol = {
        **knockout.sweep.facts,
        "positions": positions or "all",
        "metric": knockout.metric.name,
        "unit": knockout.metric.unit,
        "n_examples": len(knockout.batch),
        "draws": draws,
        "seed": seed,
    }
    return CircuitTest(circuit, protocol, faithful, complete, minimal, facts or {})


def faithfulness(nodes: Nodes, knockout: Knockout) -> Faithfulness:
    """How much of what the whole model does the circuit does alone."""
    whole, mine, empty = knockout.measure([WHOLE, State(nodes), EMPTY])
    how, unit = knockout.protocol.ratio, knockout.metric.unit
    return Faithfulness(
        Interval.of(whole, unit), Interval.of(mine, unit), Interval.of(empty, unit), abs(float(whole.mean() - mine.mean())),
        Interval.ratio(mine, whole, how), Interval.ratio(mine - empty, whole - empty, how),
    )  # fmt: skip


def completeness(circuit: Circuit, knockout: Knockout, draws: int, rng: np.random.Generator) -> tuple[Gap, ...]:
    """Gaps for nothing, for each class, for random sets and for a set sought greedily, in this order."""
    nodes = frozenset(circuit.nodes)
    sets: list[tuple[str, Nodes]] = [("nothing", frozenset())]
    sets += [(f"class {name}", frozenset(members)) for name, members in circuit.classes.items()]
    sets += [("random", _half(circuit.nodes, rng)) for _ in range(draws)]
    knockout.measure([state for _, k in sets for state in (State(nodes - k), State(None, k))])
    sets.append(("greedy", _greedy(nodes, knockout, rng)))
    return tuple(_gap(kind, nodes, k, knockout) for kind, k in sets)


def minimality(circuit: Circuit, knockout: Knockout, draws: int, rng: np.random.Generator) -> tuple[Need, ...]:
    """For each node the set K, of nothing, the classes and random sets, at which its loss is felt most."""
    nodes = frozenset(circuit.nodes)
    shared = [("nothing", frozenset[Node]())] + [(f"class {name}", frozenset(k)) for name, k in circuit.classes.items()]
    shared += [("random", _half(circuit.nodes, rng)) for _ in range(draws)]
    trials = {node: list(dict.fromkeys((kind, k - {node}) for kind, k in shared)) for node in circuit.nodes}
    states = [
        state
        for node, sets in trials.items()
        for _, k in sets
        for state in (State(nodes - k), State(nodes - k - {node}))
    ]
    values = dict(zip(states, knockout.measure(states), strict=True))
    scale = abs(float(knockout(WHOLE).mean()))
    found = []
    for node, sets in trials.items():
        changes = [values[State(nodes - k - {node})] - values[State(nodes - k)] for _, k in sets]
        best = int(np.argmax([abs(change.mean()) for change in changes]))
        kind, k = sets[best]
        effect = Interval.of(changes[best])
        found.append(Need(node, kind, tuple(sorted(k, key=str)), effect, abs(effect.value) / scale))
    return tuple(found)


def _gap(kind: str, nodes: Nodes, k: Nodes, knockout: Knockout) -> Gap:
    mine, whole, clean = knockout.measure([State(nodes - k), State(None, k), WHOLE])
    gap = Interval.of(mine - whole)
    return Gap(
        kind, tuple(sorted(k, key=str)), float(mine.mean()), float(whole.mean()), gap,
        abs(gap.value) / abs(float(clean.mean())),
    )  # fmt: skip


def _half(nodes: Sequence[Node], rng: np.random.Generator) -> Nodes:
    """Each node with probability a half."""
    return frozenset(node for node, taken in zip(nodes, rng.random(len(nodes)) < 0.5, strict=True) if taken)


def _greedy(nodes: Nodes, knockout: Knockout, rng: np.random.Generator) -> Nodes:
    """A set K with a large gap: node after node, each the one of a random choice that widens the gap most."""
    k: Nodes = frozenset()
    size: Callable[[Array, Array], float] = lambda mine, whole: abs(float(mine.mean() - whole.mean()))  # noqa: E731
    widest = size(*knockout.measure([State(nodes), WHOLE]))
    for _ in range(min(STEPS, len(nodes) - 1)):
        left = sorted(nodes - k, key=str)
        chosen = [left[i] for i in rng.permutation(len(left))[:CHOICES]]
        mine = knockout.measure([State(nodes - k - {node}) for node in chosen])
        whole = knockout.measure([State(None, k | {node}) for node in chosen])
        gaps = [size(*pair) for pair in zip(mine, whole, strict=True)]
        best = int(np.argmax(gaps))
        if gaps[best] <= widest:
            break
        widest, k = gaps[best], k | {chosen[best]}
    return k
