"""Long work on circuits goes on where it was interrupted: sets that were measured lie in `<file>.partial` until the file is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headatlas.errors import StoreError
from headatlas.methods.sweeps.checkpoint import FolderStore
from headatlas.methods.sweeps.run import ChunkStore, NoStore
from headatlas.store import claimed, partial_of, writing


@contextlib.contextmanager
def unfinished(out: str | Path | None, identity: Mapping[str, Any]) -> Iterator[ChunkStore]:
    """A ledger for work that ends in the file `out`; what it holds goes when the work is done without an error.

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
