"""Long work goes on where it was interrupted: finished pieces lie in `<out>.partial` until the result is there.

A sweep ends in a folder, which gets its name when everything is in it (`headatlas.methods.sweeps.effects_io` says what);
work on circuits ends in a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headatlas.errors import StoreError
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.effects_io import load, write
from headatlas.methods.sweeps.plan import ChunkStore, NoStore, Sweep
from headatlas.model import Model
from headatlas.model.identity import identity_of
from headatlas.ops.types import Array
from headatlas.reading import read_array
from headatlas.store import claimed, finished, give_name, of_run, partial_of, short_id, whole_file, writing
from headatlas.task import Batch
from headatlas.version import __version__


class FolderStore:
    """Finished pieces as NumPy files in a folder. Raises StoreError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> Array | None:
        """The piece kept under `name`, None where there is none."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            return None
        found: Array = read_array(of_run(path))
        return found

    def put(self, name: str, values: Array) -> None:
        """Keep a piece."""
        with whole_file(self.folder / f"{name}.npy") as half, half.open("wb") as file:
            np.save(file, values, allow_pickle=False)


class Checkpoint:
    """A sweep's folder while it runs: the finished result if there is one, else the store of pieces to go on with."""

    def __init__(self, final: Path | None, identity: Mapping[str, Any], result: HeadEffects | None = None) -> None:
        self.final, self.identity, self.result = final, identity, result
        self.store: ChunkStore = FolderStore(partial_of(final)) if final is not None and result is None else NoStore()

    def finish(self, found: HeadEffects, model: Model, sweep: Sweep) -> HeadEffects:
        """Write the result and give the folder its name; the result with its facts complete."""
        facts = {**self.identity, **found.facts}
        found = HeadEffects(
            found.kind, found.head_sets, found.positions, found.values, found.base, found.other, found.estimate, facts
        )
        if self.final is not None:
            place = partial_of(self.final)
            write(found, place)
            give_name(place, self.final)
            _tidy(self.final)
        return found


def _tidy(final: Path) -> None:
    """Remove the pieces from a finished sweep; they go after its name has come, so that nothing can be lost."""
    with writing(final):
        for piece in final.glob("*.npy"):
            piece.unlink(missing_ok=True)


@contextlib.contextmanager
def folder(out: str | Path | None, model: Model, sweep: Sweep, more: Mapping[str, Any]) -> Iterator[Checkpoint]:
    """The folder of a sweep: finished, resumed, or new; with out=None nothing is written. Raises StoreError."""
    identity = facts_of(model, sweep, more)
    if out is None:
        yield Checkpoint(None, identity)
        return
    final = Path(out)
    if finished(final, identity, "effects.json"):
        _tidy(final)
        yield Checkpoint(final, identity, load(final))
        return
    with claimed(final, identity):
        yield Checkpoint(final, identity)


@contextlib.contextmanager
def file(out: str | Path | None, identity: Mapping[str, Any]) -> Iterator[ChunkStore]:
    """The store of pieces of work that ends in the file `out`; what it holds goes when the work is done without an error.

    identity: what decides the numbers, with an "id"; pieces of other work in the same place are thrown away.
    out=None: nothing is kept. Raises StoreError where `out` exists, or another program works on it.
    """
    if out is None:
        yield NoStore()
        return
    final = Path(out)
    with writing(final):
        if final.exists():
            raise StoreError(f"{final} exists already.", "Choose another file with --out, or remove it.")
    with claimed(final, identity):
        place = partial_of(final)
        yield FolderStore(place)
        with writing(place):
            shutil.rmtree(place)


def facts_of(model: Model, sweep: Sweep, more: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers, with an id of twelve hexadecimal digits made of it."""
    source = model.source
    facts = {
        "model": model.name,
        "sha256": model.sha256(),
        "revision": source.revision if source is not None else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention_path": model.path,
        "bos": model.tokenizer.bos_policy,
        **identity_of(model),
        "kind": sweep.kind,
        "metric": sweep.metric.name,
        "unit": sweep.metric.unit,
        "prompts": digest(sweep.batch),
        "cells": len(sweep.head_sets),
        "headatlas": __version__,
        **sweep.facts,
        **more,
    }
    heads = [[str(head) for head in head_set] for head_set in sweep.head_sets]
    return {"id": short_id({**facts, "heads": heads}), **facts}


def digest(batch: Batch | None) -> str | None:
    """A hash of a batch's tokens, positions and labels, and of its counterfactual's."""
    if batch is None:
        return None
    parts = hashlib.sha256()
    for part in (batch, batch.counterfactual, batch.encoder):
        if part is not None:
            for name, value in [
                ("tokens", part.tokens),
                ("mask", part.mask),
                *sorted(part.positions.items()),
                *sorted(part.labels.items()),
            ]:
                parts.update(name.encode())
                parts.update(value.cpu().numpy().tobytes())
    return parts.hexdigest()[:16]
