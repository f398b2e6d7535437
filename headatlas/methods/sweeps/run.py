"""Measuring a sweep: one change per head (and per position), each measured exactly, in pieces that can be kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas import engines
from headatlas.engines import Unit
from headatlas.errors import BadInput
from headatlas.methods.sweeps.cached_runs import GB, CachedRuns
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.gradient_estimate import estimate
from headatlas.methods.sweeps.plan import ChunkStore, Make, NoStore, Sweep, examples_at_once, side_of
from headatlas.methods.sweeps.plan import metric_of as metric_of
from headatlas.model import Model
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Part, Progress, Silent

GRADIENT = 3.0  # a run with its backward pass costs about three runs


def run(
    model: Model,
    sweep: Sweep,
    *,
    triage: int | None = None,
    memory: int = 4 * GB,
    store: ChunkStore | None = None,
    step: str = "measure",
    progress: Progress | None = None,
) -> HeadEffects:
    """Measure every change of the sweep, or with `triage` the K that attribution patching ranks highest.

    Memory beside the weights stays below `memory` bytes. step: the name under which `progress` is told of the changes
    that are measured.
    """
    began = time.perf_counter()
    store = store if store is not None else NoStore()
    if triage is not None and sweep.metric.settle is not None:
        raise BadInput(
            f"{sweep.metric.name} has no gradient that could rank changes.", "Leave --triage out, or name --heads."
        )
    batch, n = sweep.batch, len(sweep.batch)
    estimated = _estimated(model, sweep, memory, store) if triage is not None else None
    wanted = _wanted(estimated, triage, (len(sweep.head_sets), len(sweep.positions)))
    exists = _exists(sweep)
    values = np.full((n, len(sweep.head_sets), len(sweep.positions)), np.nan)
    base = np.full(n, np.nan)
    notes: list[str] = []
    forwards = 0.0 if triage is None else GRADIENT
    size = examples_at_once(model, sweep, memory)
    layers = _layers(sweep.head_sets)
    slices = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    counted = Part(progress or Silent(), step, int(wanted.sum()) * len(slices))
    pairs = {
        layer: [(i, j) for i in members for j in range(len(sweep.positions)) if wanted[i, j]]
        for layer, members in layers.items()
    }

    def fill(rows: slice, clean: Array, found: Mapping[LayerKey, Array]) -> None:
        base[rows] = clean
        for layer, measured in found.items():
            for number, (i, j) in enumerate(pairs[layer]):
                values[rows, i, j] = np.where(exists[rows, j], measured[number], np.nan)

    units: deque[Unit[_Measured]] = deque()
    for rows in slices:
        known = {layer: store.get(_name(rows, layer)) for layer in layers if pairs[layer]}
        clean, missing = store.get(_name(rows)), [layer for layer, found in known.items() if found is None]
        if clean is not None:
            fill(rows, clean, {layer: found for layer, found in known.items() if found is not None})
        counted.advance(step, sum(len(pairs[layer]) for layer, found in known.items() if found is not None))
        if clean is None or missing:
            units += _units(
                sweep, rows, memory, {layer: pairs[layer] for layer in (known if clean is None else missing)}
            )
    for _, done in engines.current().map(model, units, counted):
        store.put(_name(done.rows), done.clean)
        for layer, measured in done.found.items():
            store.put(_name(done.rows, layer), measured)
        fill(done.rows, done.clean, done.found)
        forwards += done.forwards * (done.rows.stop - done.rows.start) / n
        notes += [note for note in done.notes if note not in notes]
    facts = {
        **sweep.facts,
        "examples_at_once": size,
        "forwards": round(forwards, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "notes": notes,
    }
    names_of = tuple(sweep.positions)
    values, base = (sweep.metric.settled(one, batch) for one in (values, base))
    return HeadEffects(sweep.kind, sweep.head_sets, names_of, values, base, None, estimated, facts)


@dataclass(frozen=True)
class _Measured:
    """What a unit of a sweep gives: the metric of unchanged runs [example], and by layer that of each change [change, example]."""

    rows: slice
    clean: Array
    found: Mapping[LayerKey, Array]
    forwards: float
    notes: Sequence[str]


class _Shared:
    """What units on the same examples share in one process: the cached run, and how edits are made. It is not sent to others."""

    def __init__(self, sweep: Sweep, rows: slice, memory: int) -> None:
        self.sweep, self.rows, self.memory = sweep, rows, memory
        self.held: tuple[CachedRuns, Make] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": None}

    def of(self, model: Model) -> tuple[CachedRuns, Make]:
        """Made when it is asked for first."""
        if self.held is None:
            sweep, rows = self.sweep, self.rows
            other = sweep.run_on.rows(rows) if sweep.run_on is not None else None
            cached = CachedRuns(model, sweep.batch.rows(rows), sweep.metric, run_on=other, memory=self.memory)
            self.held = cached, sweep.prepare(rows)
        return self.held


def _units(
    sweep: Sweep, rows: slice, memory: int, pairs: Mapping[LayerKey, Sequence[tuple[int, int]]]
) -> Iterator[Unit[_Measured]]:
    """The units that measure these changes, (head set, position) by layer, on some examples.

    Here one for each layer, so that each is kept as soon as it is there. For workers, each of which must make a cached run of
    its own, two for each of them, of layers that lie apart: later ones cost less.
    """
    workers, layers = engines.current().workers, list(pairs)
    n = max(1, len(layers)) if workers == 1 else max(1, min(len(layers), 2 * workers))
    shared, positions = _Shared(sweep, rows, memory), list(sweep.positions.values())
    for number in range(n):
        mine = layers[number::n]
        last = number == n - 1

        def work(model: Model, progress: Progress, mine: Sequence[LayerKey] = mine, last: bool = last) -> _Measured:
            before = shared.held[0].forwards if shared.held is not None else 0.0
            cached, make = shared.of(model)
            found = {}
            for layer in mine:
                runs = [make(sweep.head_sets[i], _rows(positions[j], rows)) for i, j in pairs[layer]]
                found[layer] = cached.measure(runs, progress=progress)
            if last:
                shared.held = None  # the next examples' run takes its room
            return _Measured(rows, cached.clean, found, cached.forwards - before, cached.notes)

        cost = sum(len(pairs[layer]) for layer in mine) * float(rows.stop - rows.start)
        yield Unit(_name(rows, *mine[:1]), work, cost)


def _name(rows: slice, layer: LayerKey | None = None) -> str:
    """Under what a piece is kept: of the unchanged runs, or of the changes in a layer."""
    return f"{rows.start}-{rows.stop}.{'base' if layer is None else '-'.join(map(str, layer))}"


def _estimated(model: Model, sweep: Sweep, memory: int, store: ChunkStore) -> Array:
    """[head_set, position] effects estimated from a gradient, kept with the finished pieces."""
    known = store.get("estimate")
    if known is None:
        known = estimate(model, sweep, memory)
        store.put("estimate", known)
    return known


def _wanted(estimated: Array | None, triage: int | None, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """[head_set, position] which changes are measured."""
    if estimated is None or triage is None:
        return np.ones(shape, dtype=bool)
    if triage < 1:
        raise BadInput(
            f"--triage {triage} would measure nothing.", "Give the number of changes to measure, such as 30."
        )
    order = np.argsort(-np.abs(np.nan_to_num(estimated)).ravel(), kind="stable")[:triage]
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


def _exists(sweep: Sweep) -> NDArray[np.bool_]:
    """[example, position] whether an example has such a position."""
    columns = []
    for name, positions in sweep.positions.items():
        batch = side_of(sweep.batch, sweep.head_sets, sweep.component, name)
        if positions is None:
            columns.append(torch.ones(len(batch), dtype=torch.bool))
        else:
            each = positions.expand(len(batch), -1)
            columns.append(((each >= 0) & batch.mask.gather(1, each.clamp(min=0))).any(1))
    return torch.stack(columns, 1).numpy()
