"""Long work on circuits goes on where it was interrupted: sets that were measured lie in `<file>.partial` until the file is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headatlas.errors import StoreError
from headatlas.methods.keeping import Pieces, partial_of
from headatlas.methods.sweep import Forgetful, Ledger
from headatlas.store import read_json, write_json, writing


@contextlib.contextmanager
def unfinished(out: str | Path | None, identity: Mapping[str, Any]) -> Iterator[Ledger]:
    """A ledger for work that ends in the file `out`; what it holds goes when the work is done without an error.

    identity: what decides the numbers, with an "id"; pieces of other work in the same place are thrown away.
    out=None: nothing is kept. Raises StoreError where `out` exists, or another program works on it.
    """
    if out is None:
        yield Forgetful()
        return
    final = Path(out)
    if final.exists():
        raise StoreError(f"{final} exists already.", "Choose another file with --out, or remove it.")
    place = partial_of(final)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{place}.lock")
    try:
        with lock.acquire(timeout=0):
            known = place / "run.json"
            if known.exists() and read_json(known).get("id") != identity["id"]:
                with writing(place):
                    shutil.rmtree(place)
                    place.mkdir()
            write_json(known, dict(identity))
            yield Pieces(place)
            with writing(place):
                shutil.rmtree(place)
    except Timeout as error:
        raise StoreError(
            f"Another program is writing to {final} right now.", "Wait for it, or choose another file."
        ) from error
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
