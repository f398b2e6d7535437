"""Finding a circuit on one half of the prompts, and judging on the other how large it must be.

`recovered` is (F(C) - F(none)) / (F(M) - F(none)), of means over examples: 0 with all heads knocked out, 1 for the whole
model; more than 1 where heads that work against the answer are missing. A circuit is good enough when the low end of the 95%
interval of `recovered` reaches the target, and the mean is not above 2 - target.

The half that ranks, grows and prunes never says when to stop: that half would be fitted. As heads that help and heads that
hurt come in, `recovered` rises and falls, and a short beginning of a ranking can pass by luck; so a size counts when the next
larger one that is tried is good enough too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from headatlas.choices import CIRCUIT_SEARCH
from headatlas.circuits.circuit import Node
from headatlas.circuits.evaluate import Interval
from headatlas.circuits.knockout import EMPTY, WHOLE, Knockout, State, tokens_at
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.gradient_estimate import estimates
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent

BETWEEN = 8  # sizes that are tried at once between a circuit that is too small and one that is large enough
PATIENCE = 3  # heads that a greedy search adds although none of them brings it nearer
STUCK = 8  # single heads in a row that cannot go, after which the order is measured anew
LEAST = 4  # examples, so that each half has an interval


@dataclass(frozen=True)
class Step:
    """A circuit that was tried: its number of nodes, and what it recovers on the half that finds and the half that judges."""

    size: int
    found: Interval
    judged: Interval


@dataclass(frozen=True)
class Discovery:
    """The nodes found, best first by the order they were found in, and how the search went.

    reached: whether the circuit is good enough on the judging half. recovered, judged: on the finding and on the judging half.
    ranking: all nodes by the estimated effect of knocking each out, with these effects [node]. curve: the sizes that were tried
    while it grew; monotone: whether what is recovered rose all along. tried: circuits measured.
    """

    nodes: tuple[Node, ...]
    reached: bool
    recovered: Interval
    judged: Interval
    ranking: tuple[Node, ...]
    effects: tuple[float, ...]
    curve: tuple[Step, ...]
    tried: int

    @property
    def monotone(self) -> bool:
        """Whether larger circuits of the curve always recovered more, on the judging half."""
        values = [step.judged.value for step in sorted(self.curve, key=lambda step: step.size)]
        return values == sorted(values)


def discover(
    knockout: Knockout,
    *,
    positions: Sequence[str] = (),
    method: str = "attribution",
    target: float = 0.9,
    largest: int | None = None,
    split: int = 0,
    progress: Progress | None = None,
) -> Discovery:
    """A small circuit that recovers `target` of what the whole model does on the knockout's prompts.

    positions: named positions at which heads may be part of it each on its own; none: heads everywhere.
    method: attribution ranks nodes by the estimated effect of knocking each out (attribution patching) and measures the
    first so-many of the ranking; greedy measures every node at each step and adds the one that helps most. Both then take
    out again what is not needed. largest: nodes at most. split: seed of the draw of the two halves. Raises BadInput.
    """
    CIRCUIT_SEARCH.demand(method)
    if not 0 < target < 1:
        raise BadInput(f"The target {target} must lie between 0 and 1.", "Write for example 0.9.")
    if len(knockout.batch) < LEAST:
        raise BadInput(
            f"A circuit is found on half of the prompts and judged on the other; {len(knockout.batch)} are too few.",
            f"Give {LEAST} or more, better 32.",
        )
    search = _Search(knockout, target, split, progress or Silent())
    ranking, effects = _ranking(knockout, positions, search.finding)
    most = len(ranking) if largest is None else min(largest, len(ranking))
    if most < 1:
        raise BadInput("A circuit needs at least one head.", "Give --largest 1 or more.")
    found = search.along(ranking, most) if method == "attribution" else search.greedily(ranking, most)
    curve = tuple(search.steps)
    if search.good(search.measured(found).judged):
        found = search.pruned(found)
    last = search.measured(found)
    return Discovery(
        tuple(found), search.good(last.judged), last.found, last.judged, tuple(ranking), effects, curve, search.tried
    )


def halves(n: int, split: int = 0) -> tuple[Array, Array]:
    """The numbers of the examples that find and of those that judge; another draw for another `split`."""
    order = np.random.default_rng(split).permutation(n)
    return np.sort(order[::2]), np.sort(order[1::2])


def recovered(knockout: Knockout, circuits: Sequence[Sequence[Node]], rows: Array | None = None) -> list[Interval]:
    """What each circuit recovers, over some of the examples or all; measured side by side. Raises BadInput."""
    whole, empty = knockout.measure([WHOLE, EMPTY])
    others = knockout.measure([State(frozenset(nodes)) for nodes in circuits])
    if rows is not None:
        whole, empty, others = whole[rows], empty[rows], others[:, rows]
    return [Interval.ratio(mine - empty, whole - empty, knockout.protocol.ratio) for mine in others]


class _Search:
    """Circuits that were tried, and what they recover on either half."""

    def __init__(self, knockout: Knockout, target: float, split: int, progress: Progress) -> None:
        self.knockout, self.target, self.progress = knockout, target, progress
        self.steps: list[Step] = []
        self.tried = 0
        self.finding, self.judging = halves(len(knockout.batch), split)

    def all_measured(self, circuits: Sequence[Sequence[Node]]) -> list[Step]:
        """Each circuit on both halves."""
        halves = [recovered(self.knockout, circuits, rows) for rows in (self.finding, self.judging)]
        self.tried += len(circuits)
        return [Step(len(nodes), *pair) for nodes, pair in zip(circuits, zip(*halves, strict=True), strict=True)]

    def measured(self, nodes: Sequence[Node]) -> Step:
        """One circuit on both halves."""
        return self.all_measured([nodes])[0]

    def good(self, share: Interval) -> bool:
        """Whether a circuit is good enough on a half."""
        return share.low >= self.target and share.value <= 2 - self.target

    def along(self, ranking: Sequence[Node], most: int) -> list[Node]:
        """The shortest beginning of a ranking that is good enough, and whose next larger one is; else the best of them."""
        sizes = sorted({min(most, round(1.5**i)) for i in range(64)})
        tried: dict[int, Step] = {}
        for size in sizes:
            self._try(ranking, [size], tried)
            self.progress.say(f"{size} of {most} heads recover {_said(tried[size].judged)}")
            if len(tried) > 1 and all(self.good(step.judged) for step in list(tried.values())[-2:]):
                break
        best = self._shortest(tried, len(ranking))
        if best is None:
            nearest = min(tried.values(), key=lambda step: (_distance(step.judged), step.size))
            return list(ranking[: nearest.size])
        below = max((size for size in tried if size < best), default=0)
        between = sorted({round(x) for x in np.linspace(below + 1, best, BETWEEN + 1)} - set(tried))
        self._try(ranking, between, tried)
        return list(ranking[: self._shortest(tried, len(ranking)) or best])

    def _try(self, ranking: Sequence[Node], sizes: Sequence[int], tried: dict[int, Step]) -> None:
        found = self.all_measured([ranking[:size] for size in sizes]) if sizes else []
        self.steps += found
        tried.update({step.size: step for step in found})

    def _shortest(self, tried: dict[int, Step], every: int) -> int | None:
        """The smallest size that is good enough, and so is the next larger one tried; that of all heads needs none."""
        sizes = sorted(tried)
        good = [self.good(tried[size].judged) for size in sizes]
        for i, size in enumerate(sizes):
            if good[i] and (size == every or (i + 1 < len(sizes) and good[i + 1])):
                return size
        return None

    def greedily(self, ranking: Sequence[Node], most: int) -> list[Node]:
        """Node after node, each the one that brings the circuit nearest to the whole model on the finding half.

        Where none brings it nearer, the best of them joins all the same, PATIENCE times: heads may only work together.
        """
        found: list[Node] = []
        nearest, best, waited = 1.0, 0, 0  # no heads recover 0
        while len(found) < most and waited < PATIENCE:
            left = [node for node in ranking if node not in found]
            steps = self.all_measured([[*found, node] for node in left])
            chosen = int(np.argmin([abs(1 - step.found.value) for step in steps]))
            found, step = [*found, left[chosen]], steps[chosen]
            self.steps.append(step)
            self.progress.say(f"{len(found)} heads recover {_said(step.judged)}; {left[chosen]} joined")
            if self.good(step.judged):
                return found
            off = abs(1 - step.found.value)
            waited = 0 if off < nearest else waited + 1
            if off < nearest:
                nearest, best = off, len(found)
        return found[: max(best, 1)]

    def pruned(self, found: list[Node]) -> list[Node]:
        """The circuit without the nodes that it does not need to stay good enough on the finding half.

        In each round every node is left out alone, which says in what order they can go: those first whose loss changes
        least. Of these as many as can go together go. A round in which none can go alone ends it. Where
        the judging half disagrees, what was taken out last comes back.
        """
        gone: list[Node] = []
        while len(found) > 1:
            now = self.measured(found).found.value
            alone = self.all_but_one(found)
            order = sorted(
                (i for i, step in enumerate(alone) if self.good(step.found)),
                key=lambda i: abs(alone[i].found.value - now),
            )
            out = self._most([found[i] for i in order], found)
            if not out:
                break
            found, gone = [node for node in found if node not in out], [*gone, *out]
            self.progress.say(f"{len(found)} heads are left")
        back = 0
        while back < len(gone) and not self.good(self.measured([*found, *gone[len(gone) - back :]]).judged):
            back = min(len(gone), max(back + 1, round(1.5 * back)))
        return [*found, *gone[len(gone) - back :]]

    def all_but_one(self, nodes: Sequence[Node]) -> list[Step]:
        """The circuit without each of its nodes; computed from that node's layer on, what lies before being the same."""
        rest = [[node for node in nodes if node != other] for other in nodes]
        self.knockout.measure([State(frozenset(left)) for left in rest], beside=State(frozenset(nodes)))
        return self.all_measured(rest)

    def _most(self, order: Sequence[Node], found: Sequence[Node]) -> list[Node]:
        """Of `order` the nodes without which the circuit stays good enough: many at once, where that fails half as many."""
        out: list[Node] = []
        at, size, failed = 0, min(len(order), len(found) - 1), 0
        while at < len(order) and failed < STUCK:
            chunk = order[at : at + size]
            rest = [node for node in found if node not in out and node not in chunk]
            if rest and self.good(self.measured(rest).found):
                out, at, failed = [*out, *chunk], at + len(chunk), 0
            elif len(chunk) > 1:
                size = len(chunk) // 2
            else:
                at, failed = at + 1, failed + 1
        return out


def _distance(share: Interval) -> float:
    """How far the farther end of an interval lies from 1."""
    ends = np.nan_to_num([share.low, share.high], nan=np.inf)
    return float(np.abs(1 - ends).max())


def _said(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _ranking(knockout: Knockout, positions: Sequence[str], rows: Array) -> tuple[list[Node], tuple[float, ...]]:
    """All nodes by the size of the estimated effect of knocking each out of the whole model, largest first; the effects [node]."""
    sweep, batch = knockout.sweep, knockout.batch
    named_positions: dict[str, Tensor | None] = {name: tokens_at(batch, name) for name in positions}
    named_positions = named_positions or {"all": None}
    known = knockout.store.get("ranking")
    if known is None:
        # The first-order effect of the very replacement that knocks a head out.
        known = estimates(knockout.model, replace(sweep, positions=named_positions), knockout.memory)
        knockout.store.put("ranking", known)
    felt = stats.mean(known[rows]).ravel()
    heads: list[HeadId] = [head_set[0] for head_set in sweep.head_sets]
    nodes = [Node(head, name if positions else None) for head in heads for name in named_positions]
    order = np.argsort(-np.abs(np.nan_to_num(felt)), kind="stable")
    return [nodes[i] for i in order], tuple(map(float, felt[order]))
