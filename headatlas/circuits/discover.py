"""Finding a circuit: heads are added while the measured faithfulness grows, and those that are not needed taken out again.

`recovered` is (F(C) - F(none)) / (F(M) - F(none)), of means over examples: 0 with all heads knocked out, 1 for the whole
model; more than 1 where heads that work against the answer are missing. A circuit is good enough when recovered is
within 1 - target of 1, from either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from headatlas.choices import CIRCUIT_SEARCH
from headatlas.circuits.circuit import Node
from headatlas.circuits.knockout import EMPTY, WHOLE, Knockout, State, tokens_at
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.gradient_estimate import estimate
from headatlas.progress import Progress, Silent

BETWEEN = 8  # sizes that are tried at once between a circuit that is too small and one that is large enough
CHUNK = 8  # heads that are tried to be taken out at once


@dataclass(frozen=True)
class Step:
    """A circuit that was tried: its number of nodes, and what it recovers."""

    size: int
    recovered: float


@dataclass(frozen=True)
class Discovery:
    """The nodes found, best first by the order they were found in; all circuits tried; whether the target was reached."""

    nodes: tuple[Node, ...]
    steps: tuple[Step, ...]
    reached: bool
    recovered: float


def discover(
    knockout: Knockout,
    *,
    positions: Sequence[str] = (),
    method: str = "attribution",
    target: float = 0.9,
    largest: int | None = None,
    progress: Progress | None = None,
) -> Discovery:
    """A small circuit that recovers `target` of what the whole model does on the knockout's prompts.

    positions: named positions at which heads may be part of it each on its own; none: heads everywhere.
    method: attribution ranks nodes by the estimated effect of knocking each out (attribution patching) and measures the
    first so-many of the ranking; greedy measures every node at each step and adds the one that helps most. Both then take
    out again what is not needed. largest: nodes at most. Raises BadInput.
    """
    CIRCUIT_SEARCH.demand(method)
    if not 0 < target < 1:
        raise BadInput(f"The target {target} must lie between 0 and 1.", "Write for example 0.9.")
    search = _Search(knockout, target, progress or Silent())
    ranking = _ranking(knockout, positions)
    most = len(ranking) if largest is None else min(largest, len(ranking))
    if most < 1:
        raise BadInput("A circuit needs at least one head.", "Give --largest 1 or more.")
    grow = search.along if method == "attribution" else search.greedily
    found = grow(ranking, most)
    reached = search.near(found)
    if reached:
        found = search.pruned(found)
    return Discovery(tuple(found), tuple(search.steps), reached, search.recovered([found])[0])


class _Search:
    """Circuits that were tried, and what they recover."""

    def __init__(self, knockout: Knockout, target: float, progress: Progress) -> None:
        self.knockout, self.limit, self.progress = knockout, 1 - target, progress
        self.steps: list[Step] = []
        whole, empty = knockout.measure([WHOLE, EMPTY]).mean(1)
        self.empty, self.span = float(empty), float(whole - empty)
        if self.span == 0:
            raise BadInput(
                "Knocking all heads out changes nothing, so there is nothing for a circuit to recover.",
                "Choose another ablation or other prompts.",
            )

    def recovered(self, circuits: Sequence[Sequence[Node]]) -> list[float]:
        """What each circuit recovers; measured side by side."""
        values = self.knockout.measure([State(frozenset(nodes)) for nodes in circuits]).mean(1)
        found = [float(value) for value in (values - self.empty) / self.span]
        self.steps += [Step(len(nodes), share) for nodes, share in zip(circuits, found, strict=True)]
        return found

    def near(self, nodes: Sequence[Node]) -> bool:
        """Whether a circuit is good enough."""
        return abs(1 - self.recovered([nodes])[0]) <= self.limit

    def along(self, ranking: Sequence[Node], most: int) -> list[Node]:
        """The shortest beginning of a ranking that is good enough, of those tried; else the best of them."""
        sizes = sorted({min(most, round(1.5**i)) for i in range(64)})
        tried: dict[int, float] = {}
        for size in sizes:
            tried[size] = self.recovered([ranking[:size]])[0]
            self.progress.say(f"{size} of {most} heads recover {tried[size]:.1%}")
            if abs(1 - tried[size]) <= self.limit:
                break
        good = [size for size, share in tried.items() if abs(1 - share) <= self.limit]
        if good:
            below = max((size for size in tried if size < good[0]), default=0)
            between = sorted({round(x) for x in np.linspace(below + 1, good[0], BETWEEN + 1)} - set(tried))
            for size, share in zip(
                between, self.recovered([ranking[:size] for size in between]) if between else [], strict=True
            ):
                tried[size] = share
            good = [size for size, share in tried.items() if abs(1 - share) <= self.limit]
        best = min(good) if good else min(tried, key=lambda size: (abs(1 - tried[size]), size))
        return list(ranking[:best])

    def greedily(self, ranking: Sequence[Node], most: int) -> list[Node]:
        """Node after node, each the one that brings the circuit nearest to the whole model, while it comes nearer."""
        found: list[Node] = []
        off = 1.0  # no heads recover 0
        while len(found) < most and off > self.limit:
            left = [node for node in ranking if node not in found]
            shares = self.recovered([[*found, node] for node in left])
            best = int(np.argmin([abs(1 - share) for share in shares]))
            if abs(1 - shares[best]) >= off:
                break
            off, found = abs(1 - shares[best]), [*found, left[best]]
            self.progress.say(f"{len(found)} heads recover {shares[best]:.1%}; {left[best]} joined")
        return found

    def pruned(self, found: list[Node]) -> list[Node]:
        """The circuit without the nodes that it does not need to stay good enough, the last ones tried first, several at once."""
        before = len(found) + 1
        while len(found) < before:  # until a whole round takes nothing out
            before = len(found)
            queue = [found[i : i + CHUNK] for i in range(0, len(found), CHUNK)]
            while queue:
                chunk = queue.pop()
                rest = [node for node in found if node not in chunk]
                if rest and self.near(rest):
                    found = rest
                    self.progress.say(f"{len(found)} heads are left")
                elif len(chunk) > 1:
                    half = len(chunk) // 2
                    queue += [chunk[:half], chunk[half:]]
        return found


def _ranking(knockout: Knockout, positions: Sequence[str]) -> list[Node]:
    """All nodes by the size of the estimated effect of knocking each out of the whole model, largest first."""
    sweep, batch = knockout.sweep, knockout.batch
    named_positions: dict[str, Tensor | None] = {name: tokens_at(batch, name) for name in positions}
    named_positions = named_positions or {"all": None}
    known = knockout.store.get("ranking")
    if known is None:
        # The first-order effect of the very replacement that knocks a head out.
        known = estimate(knockout.model, replace(sweep, positions=named_positions), knockout.memory)
        knockout.store.put("ranking", known)
    heads: list[HeadId] = [head_set[0] for head_set in sweep.head_sets]
    nodes = [Node(head, name if positions else None) for head in heads for name in named_positions]
    order = np.argsort(-np.abs(known).ravel(), kind="stable")
    return [nodes[i] for i in order]
