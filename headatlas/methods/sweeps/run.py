"""Measuring a sweep: one change per head (and per position), each measured exactly, in pieces that can be kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.methods.sweeps.cached_runs import GB, CachedRuns
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.gradient_estimate import estimate
from headatlas.methods.sweeps.plan import ChunkStore, NoStore, Sweep, examples_at_once, side_of
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
    counted = Part(progress or Silent(), step, int(wanted.sum()) * len(range(0, n, size)))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        names = {layer: f"{start}-{rows.stop}.{'-'.join(map(str, layer))}" for layer in layers}
        known = {layer: store.get(name) for layer, name in names.items()}
        clean = store.get(f"{start}-{rows.stop}.base")
        cached: CachedRuns | None = None
        if clean is None or any(found is None for found in known.values()):
            other = sweep.run_on.rows(rows) if sweep.run_on is not None else None
            cached = CachedRuns(model, batch.rows(rows), sweep.metric, run_on=other, memory=memory)
            make = sweep.prepare(rows)
            clean = cached.clean
            store.put(f"{start}-{rows.stop}.base", clean)
        base[rows] = clean
        for layer, members in layers.items():
            pairs = [(i, j) for i in members for j in range(len(sweep.positions)) if wanted[i, j]]
            found = known[layer]
            if found is None and pairs:
                assert cached is not None
                positions = list(sweep.positions.values())
                runs = [make(sweep.head_sets[i], _rows(positions[j], rows)) for i, j in pairs]
                found = cached.measure(runs, progress=counted)
                store.put(names[layer], found)
            elif pairs:
                counted.advance(step, len(pairs))
            for number, (i, j) in enumerate(pairs):
                assert found is not None
                values[rows, i, j] = np.where(exists[rows, j], found[number], np.nan)
        if cached is not None:
            forwards += cached.forwards * (rows.stop - rows.start) / n
            notes += [note for note in cached.notes if note not in notes]
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
