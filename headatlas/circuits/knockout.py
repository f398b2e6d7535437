"""What a task is worth with everything outside a circuit knocked out: the one measurement behind all numbers on circuits.

A head that is knocked out gives a replacement (its mean over other prompts, its value on the counterfactual, or zero);
MLPs, norms and embeddings are left to do what they do. Circuit numbers depend on how this is done (Miller et al. 2024,
arXiv 2407.08734), so a `Protocol` goes into every result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.choices import EDIT, MEAN, RATIO
from headatlas.circuits.circuit import Node
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.ablation import replacements
from headatlas.methods.sweeps.cached_runs import GB, Beside, CachedRuns
from headatlas.methods.sweeps.plan import ChunkStore, Make, NoStore, Sweep, examples_at_once, positions_of
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.renamed import old_names
from headatlas.task import Batch, Metric

if TYPE_CHECKING:
    from headatlas.model import Edit

Nodes = frozenset[Node]
SOME = 25  # sets of heads after which it is said how many were measured


@dataclass(frozen=True)
class Protocol:
    """How heads are knocked out, and how examples are brought together.

    ablation: mean, resample (the counterfactual's value) or zero. mean: overall, position or template (per position and
    wording, as in the IOI paper). reference: other prompts to take means over; None: the batch's counterfactuals, or itself.
    ratio: ratio-of-means, or mean-of-ratios, where examples on which the whole model does badly weigh more.
    """

    ablation: str = "mean"
    mean: str = "overall"
    reference: Batch | None = None
    ratio: str = "ratio-of-means"

    def __post_init__(self) -> None:
        EDIT.demand(self.ablation)
        MEAN.demand(self.mean)
        RATIO.demand(self.ratio)

    def facts(self, batch: Batch) -> dict[str, Any]:
        """What a result says of how it was measured."""
        source = "the prompts themselves" if batch.counterfactual is None else "their counterfactuals"
        if self.reference is not None:
            source = f"{len(self.reference)} other prompts"
        return {
            "ablation": self.ablation,
            "mean": self.mean if self.ablation == "mean" else None,
            "mean_over": source if self.ablation == "mean" else None,
            "granularity": "nodes",
            "mlps": "left in place",
            "ratio": self.ratio,
        }


class State(NamedTuple):
    """Which heads work: those in `kept` (None: all), less those in `removed`."""

    kept: Nodes | None
    removed: Nodes = frozenset()

    @property
    def key(self) -> str:
        """A name to keep its values under."""
        kept = "all" if self.kept is None else " ".join(sorted(map(str, self.kept)))
        text = f"{kept} - {' '.join(sorted(map(str, self.removed)))}"
        return f"set-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


WHOLE = State(None)
EMPTY = State(frozenset())


@dataclass
class _Counted(Silent):
    """Says now and then how many sets of heads were measured; how many there will be depends on what is found."""

    progress: Progress
    done: int = 0

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Count the sets that a pass measured."""
        before, self.done = self.done, self.done + amount
        if self.done // SOME > before // SOME:
            self.progress.say(f"{self.done} sets of heads measured")


class Knockout:
    """The metric of one batch with only some heads at work, per example; each state is measured once."""

    def __init__(
        self,
        model: Model,
        batch: Batch,
        metric: Metric,
        protocol: Protocol,
        *,
        memory: int = 4 * GB,
        store: ChunkStore | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.batch, self.metric, self.protocol, self.memory = model, batch, metric, protocol, memory
        self.store: ChunkStore = store if store is not None else NoStore()
        self._told = _Counted(progress or Silent())
        self.measured = 0  # states that were run, not read from the store
        head_sets = tuple((head,) for head in model.heads)
        prepare = replacements(model, batch, head_sets, protocol.ablation, protocol.mean, "all", protocol.reference)
        self.sweep = Sweep(
            "circuit", batch, metric, head_sets, {"all": None}, "z", prepare, facts=protocol.facts(batch)
        )
        self._known: dict[State, Array] = {}
        self._only: tuple[CachedRuns, Make] | None = None

    def __call__(self, state: State) -> Array:
        """[example] the metric in this state."""
        return self.measure([state])[0]

    def measure(self, states: Sequence[State], *, beside: State | None = None) -> Array:
        """[state, example] the metric in each state; those not known yet are measured side by side. Raises BadInput.

        beside: a state that all of these are like but for a few heads, from whose first layer on they then are computed.
        """
        new = [state for state in dict.fromkeys(states) if state not in self._known]
        for state in list(new):
            known = self.store.get(state.key)
            if known is not None:
                self._known[state] = known
                new.remove(state)
        if new:
            self.require(node for state in new for node in (*(state.kept or ()), *state.removed))
            for state, found in zip(new, self._run(new, beside), strict=True):
                self._known[state] = found
                self.store.put(state.key, found)
            self.measured += len(new)
        return np.stack([self._known[state] for state in states])

    def require(self, nodes: Iterable[Node]) -> None:
        """Raise BadInput for a head or a position that does not exist."""
        for node in nodes:
            self.model.require([node.head])
            if node.position is not None:
                self._where(node.position, slice(None), node.head.stack)

    # ---- running ------------------------------------------------------------------------------------------------
    def _run(self, states: Sequence[State], beside: State | None) -> Array:
        n, size = len(self.batch), examples_at_once(self.model, self.sweep, self.memory)
        if size >= n:
            if self._only is None:
                self._only = self._cached(slice(0, n))
            return self._pass(*self._only, slice(0, n), states, beside)
        pieces = []
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            pieces.append(self._pass(*self._cached(rows), rows, states, beside))
        return np.concatenate(pieces, 1)

    def _cached(self, rows: slice) -> tuple[CachedRuns, Make]:
        cached = CachedRuns(self.model, self.batch.rows(rows), self.metric, memory=self.memory)
        return cached, self.sweep.prepare(rows)

    def _pass(
        self, cached: CachedRuns, make: Make, rows: slice, states: Sequence[State], beside: State | None
    ) -> Array:
        outs = [self._out(state, rows) for state in states]
        runs = [self._edits(out, make) for out in outs]
        like = None if beside is None or not cached.restarts else self._out(beside, rows)
        known = None
        # A run computes the tokens at which something is knocked out: all that are real, where a head is out everywhere.
        if like is not None and all(self._somewhere(out, rows) for out in (like, *outs)):
            changed = [[head for head in out if not torch.equal(out[head], like[head])] for out in outs]
            differ = [[edit for head in heads for edit in make((head,), None)] for heads in changed]
            known = Beside(self._edits(like, make), differ)
        return cached.measure(runs, beside=known, progress=self._told)

    def _somewhere(self, out: Mapping[HeadId, Tensor], rows: slice) -> bool:
        """Whether at least one head is knocked out at every real token."""
        return any(torch.equal(where, self.batch.side(head.stack).mask[rows]) for head, where in out.items())

    def _out(self, state: State, rows: slice) -> dict[HeadId, Tensor]:
        """For each head the tokens [example, pos] at which it does not work."""
        found: dict[HeadId, Tensor] = {}
        kept, removed = _by_head(state.kept), _by_head(state.removed)
        for head in self.model.heads:
            real = self.batch.side(head.stack).mask[rows]
            out = torch.zeros_like(real) if state.kept is None else real.clone()
            for at in (kept or {}).get(head, ()):
                out &= ~self._where(at, rows, head.stack)
            for at in (removed or {}).get(head, ()):
                out |= self._where(at, rows, head.stack) & real
            found[head] = out
        return found

    def _edits(self, where: Mapping[HeadId, Tensor], make: Make) -> list[Edit]:
        """The edits that put replacements in for all that does not work, those of the same tokens in one."""
        together: dict[tuple[bytes, int], tuple[Tensor, list[HeadId]]] = {}
        for head, out in where.items():
            if bool(out.any()):
                together.setdefault((out.numpy().tobytes(), out.shape[1]), (out, []))[1].append(head)
        return [edit for out, heads in together.values() for edit in make(tuple(heads), _positions(out))]

    def _where(self, position: str | None, rows: slice, stack: str) -> Tensor:
        """[example, pos] whether a token of the stack stands at the named position."""
        batch = self.batch.side(stack)
        mask = batch.mask[rows]
        if position is None:
            return torch.ones_like(mask)
        tokens = tokens_at(batch, position)
        tokens = tokens if len(tokens) == 1 else tokens[rows]
        columns = torch.arange(mask.shape[1])
        return (columns[None, :, None] == tokens[:, None, :]).any(-1)


def tokens_at(batch: Batch, position: str) -> Tensor:
    """[example or 1, n] the tokens that a named position means. Raises BadInput."""
    if position in ("all", "each"):
        raise BadInput(f"'{position}' does not name single tokens.", "Leave positions out for all tokens.")
    tokens = positions_of(batch, position)[position]
    assert tokens is not None
    return tokens


def _by_head(nodes: Nodes | None) -> dict[HeadId, list[str | None]] | None:
    if nodes is None:
        return None
    found: dict[HeadId, list[str | None]] = {}
    for node in nodes:
        found.setdefault(node.head, []).append(node.position)
    return found


def _positions(out: Tensor) -> Tensor:
    """[example, n] the positions at which `out` [example, pos] is True, -1 for fillers."""
    width = int(out.sum(1).max())
    order = (~out).long().argsort(dim=1, stable=True)[:, :width]
    return torch.where(out.gather(1, order), order, -1)


__getattr__ = old_names(__name__)
