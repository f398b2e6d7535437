"""One change per head (and per position), each measured exactly: what ablation and patching of all heads have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.cached_runs import GB, CachedRuns
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.gradient_estimate import estimate
from headatlas.methods.sweeps.memory_budget import peak_of
from headatlas.model import Model
from headatlas.model.runs.cached_forward import cache_run
from headatlas.ops.types import Array, LayerKey
from headatlas.task import Batch, Metric

if TYPE_CHECKING:
    from headatlas.model.core.dispatch import Edit

GRADIENT = 3.0  # a run with its backward pass costs about three runs
Make = Callable[[HeadSet, Tensor | None], Sequence["Edit"]]  # the edits of one change: which heads, at which positions
Prepare = Callable[[slice], Make]  # the same for some examples of the batch


class ChunkStore(Protocol):
    """Where finished pieces are kept, so that an interrupted sweep goes on from there."""

    def get(self, name: str) -> Array | None: ...  # noqa: D102
    def put(self, name: str, values: Array) -> None: ...  # noqa: D102


class NoStore:
    """Keeps nothing."""

    def get(self, name: str) -> Array | None:
        """Nothing is known."""
        return None

    def put(self, name: str, values: Array) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Sweep:
    """What to change and measure.

    head_sets: heads that change together. positions: name -> positions [example or 1, n] of each change, None for all.
    prepare: how to make the edits for some examples. run_on: the prompts to run if not the batch's own (denoising).
    """

    kind: str
    batch: Batch
    metric: Metric
    head_sets: tuple[HeadSet, ...]
    positions: Mapping[str, Tensor | None]
    component: str
    prepare: Prepare
    run_on: Batch | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def positions_of(batch: Batch, positions: str) -> dict[str, Tensor | None]:
    """Where each change acts: "all" at once, "each" position on its own, or a named position of the batch such as "end"."""
    if positions == "all":
        return {"all": None}
    if positions == "each":
        last = int(batch.mask.any(0).nonzero().max())
        return {str(i): torch.tensor([[i]]) for i in range(last + 1)}
    if positions not in batch.positions:
        known = ", ".join(["all", "each", *sorted(batch.positions)])
        raise BadInput(f"These prompts have no position '{positions}'.", f"Choose one of {known}.")
    value = batch.positions[positions]
    return {positions: value.reshape(len(batch), -1)}


def head_sets_for(model: Model, heads: Sequence[HeadId | HeadSet] | None, component: str) -> tuple[HeadSet, ...]:
    """One head_set per head, or per KV group where keys or values are changed; sets of heads as given. Raises BadInput."""
    if heads is None:
        heads = model.heads
    head_sets = tuple((head,) if isinstance(head, HeadId) else tuple(head) for head in heads)
    model.require([head for head_set in head_sets for head in head_set])
    if component not in ("k", "v"):
        return head_sets
    grouped = []
    for head_set in head_sets:
        for head in head_set:
            layer = model.layer(head.layer, head.stack)
            size = layer.n_heads // layer.n_groups
            first = head.head // size * size
            grouped.append(tuple(HeadId(head.layer, first + i, head.stack) for i in range(size)))
    return tuple(dict.fromkeys(grouped))


def run(
    model: Model,
    sweep: Sweep,
    *,
    triage: int | None = None,
    memory: int = 4 * GB,
    ledger: ChunkStore | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> HeadEffects:
    """Measure every change of the sweep, or with `triage` the K that attribution patching ranks highest.

    `tick(done, total)` is called as changes are measured. Memory beside the weights stays below `memory` bytes.
    """
    began = time.perf_counter()
    ledger = ledger if ledger is not None else NoStore()
    batch, n = sweep.batch, len(sweep.batch)
    guess = _guess(model, sweep, memory, ledger) if triage is not None else None
    wanted = _wanted(guess, triage, (len(sweep.head_sets), len(sweep.positions)))
    exists = _exists(batch, sweep.positions)
    values = np.full((n, len(sweep.head_sets), len(sweep.positions)), np.nan)
    base = np.full(n, np.nan)
    notes: list[str] = []
    forwards = 0.0 if triage is None else GRADIENT
    size = examples_at_once(model, sweep, memory)
    layers = _layers(sweep.head_sets)
    total, done = int(wanted.sum()) * len(range(0, n, size)), 0

    def more(some: int) -> None:
        nonlocal done
        done += some
        tick(done, total)

    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        names = {layer: f"{start}-{rows.stop}.{'-'.join(map(str, layer))}" for layer in layers}
        known = {layer: ledger.get(name) for layer, name in names.items()}
        clean = ledger.get(f"{start}-{rows.stop}.base")
        replay: CachedRuns | None = None
        if clean is None or any(found is None for found in known.values()):
            other = sweep.run_on.rows(rows) if sweep.run_on is not None else None
            replay = CachedRuns(model, batch.rows(rows), sweep.metric, run_on=other, memory=memory)
            make = sweep.prepare(rows)
            clean = replay.clean
            ledger.put(f"{start}-{rows.stop}.base", clean)
        base[rows] = clean
        for layer, members in layers.items():
            pairs = [(i, j) for i in members for j in range(len(sweep.positions)) if wanted[i, j]]
            found = known[layer]
            if found is None and pairs:
                assert replay is not None
                places = list(sweep.positions.values())
                runs = [make(sweep.head_sets[i], _rows(places[j], rows)) for i, j in pairs]
                found = replay.measure(runs, tick=more)
                ledger.put(names[layer], found)
            else:
                more(len(pairs))
            for number, (i, j) in enumerate(pairs):
                assert found is not None
                values[rows, i, j] = np.where(exists[rows, j], found[number], np.nan)
        if replay is not None:
            forwards += replay.forwards * (rows.stop - rows.start) / n
            notes += [note for note in replay.notes if note not in notes]
    facts = {
        **sweep.facts,
        "examples_at_once": size,
        "forwards": round(forwards, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "notes": notes,
    }
    names_of = tuple(sweep.positions)
    return HeadEffects(sweep.kind, sweep.head_sets, names_of, values, base, None, guess, facts)


def _guess(model: Model, sweep: Sweep, memory: int, ledger: ChunkStore) -> Array:
    known = ledger.get("estimate")
    if known is None:
        known = estimate(model, sweep, memory)
        ledger.put("estimate", known)
    return known


def _wanted(guess: Array | None, triage: int | None, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """[head_set, position] which changes are measured."""
    if guess is None or triage is None:
        return np.ones(shape, dtype=bool)
    if triage < 1:
        raise BadInput(
            f"--triage {triage} would measure nothing.", "Give the number of changes to measure, such as 30."
        )
    order = np.argsort(-np.abs(np.nan_to_num(guess)).ravel(), kind="stable")[:triage]
    wanted = np.zeros(shape, dtype=bool)
    wanted.ravel()[order] = True
    return wanted


def _layers(head_sets: Sequence[HeadSet]) -> dict[LayerKey, list[int]]:
    """Numbers of the head_sets by the layer of their first head, in order."""
    layers: dict[LayerKey, list[int]] = {}
    for i, head_set in enumerate(head_sets):
        first = min(head_set, key=lambda head: head.layer)
        layers.setdefault((first.stack, first.layer), []).append(i)
    return layers


def _rows(positions: Tensor | None, rows: slice) -> Tensor | None:
    return positions if positions is None or len(positions) == 1 else positions[rows]


def _exists(batch: Batch, named_positions: Mapping[str, Tensor | None]) -> NDArray[np.bool_]:
    """[example, position] whether an example has such a position."""
    columns = []
    for positions in named_positions.values():
        if positions is None:
            columns.append(torch.ones(len(batch), dtype=torch.bool))
        else:
            places = positions.expand(len(batch), -1)
            columns.append(((places >= 0) & batch.mask.gather(1, places.clamp(min=0))).any(1))
    return torch.stack(columns, 1).numpy()


def metric_of(model: Model, batch: Batch, metric: Metric, *, run_on: Batch | None = None) -> Array:
    """[example] the metric on a batch; run_on: other prompts of the same shape, run in its place."""
    prompts = run_on if run_on is not None else batch
    size = max(1, 4096 // batch.tokens.shape[1])
    scores = []
    for start in range(0, len(batch), size):
        part = batch.rows(slice(start, start + size))
        logits = model.forward(prompts.rows(slice(start, start + size)), logit_positions=metric.positions(part))
        scores.append(metric.score(logits.cpu(), part).double().numpy())
    return np.concatenate(scores)


def examples_at_once(model: Model, sweep: Sweep, memory: int) -> int:
    """How many examples are swept together, judged by what one longest example takes."""
    batch = sweep.batch
    longest = int(batch.mask.sum(1).argmax())
    one = replace(batch.rows([longest]), control=None, counterfactual=None)
    positions = sweep.metric.positions(one)

    def kept_run() -> object:
        return (
            cache_run(model, one, logit_positions=positions)
            if model.restarts
            else model.forward(one, logit_positions=positions)
        )

    _, peak = peak_of(kept_run, model.hf.parameters())
    # Twice: the kept run, and values of another run or a pass of changed runs beside it.
    return max(1, min(len(batch), int(memory / (2.5 * peak))))
