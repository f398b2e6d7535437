"""Tries damaged files: `python -m tests.fuzz FIRST CASES [--large] KIND ...` prints one JSON line a case, each kind in its own process.

One process imports what takes seconds; each kind is a fork of it with memory and time of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.kinds import KINDS, Kind

SECONDS = 5  # of work; other programs on the same cores do not count
WALL = 120  # seconds of waiting
ADDRESSES = 6 << 30  # bytes of address space, most of it never touched: stops what would otherwise fill the machine


class Hang(BaseException):
    """A case took too long."""


def _late(*_: object) -> None:
    raise Hang


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries say off the output, which is for the results."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def case(kind: Kind, good: Path, folder: Path, seed: int, *, large: bool) -> dict[str, Any]:
    """One damaged file and what came of it: read, refused, or a fault of ours with its traceback."""
    from headatlas.errors import HeadAtlasError

    change = kind.case(good, folder, seed, large=large)
    began, about = time.process_time(), ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(folder)
        outcome = "read"
    except HeadAtlasError as error:
        about = str(error)
        lines = len(about.strip().splitlines())
        outcome = "refused" if (lines == 1 or error.lines) and len(about) < 3000 else "long"
    except Hang:
        outcome, about = "hang", traceback.format_exc()
    except BaseException:
        outcome, about = "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"change": change, "outcome": outcome, "seconds": round(time.process_time() - began, 2), "about": about}


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tried(name: str, first: int, cases: int, *, large: bool) -> None:
    """The cases of one kind, in this process."""
    kind = KINDS[name]
    signal.signal(signal.SIGALRM, _late)
    signal.signal(signal.SIGPROF, _late)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    with tempfile.TemporaryDirectory() as place:
        good = Path(place) / "good"
        good.mkdir()
        with quiet():
            kind.make(good)
            kind.read(good)  # what is refused whole would make every case pass
        for seed in range(first, first + cases):
            found = case(kind, good, Path(place) / str(seed), seed, large=large)
            shutil.rmtree(Path(place) / str(seed))
            print(json.dumps({"kind": name, "seed": seed, **found, "mb": round(megabytes())}), flush=True)


def main(first: int, cases: int, names: list[str], *, large: bool = False) -> int:
    """Try all kinds, one process after another; the number of processes that died."""
    import torch
    import transformers  # noqa: F401

    import headatlas as ha
    from tests.model import source_files  # noqa: F401

    torch.set_num_threads(1)
    _ = ha.load, ha.Atlas, ha.compare_circuits
    died = 0
    for name in names:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tried(name, first, cases, large=large)
                status = 0
            except BaseException:
                print(json.dumps({"kind": name, "seed": -1, "change": "", "outcome": "traceback", "seconds": 0,
                                  "about": traceback.format_exc(), "mb": megabytes()}), flush=True)  # fmt: skip
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        died += status != 0
        if os.WIFSIGNALED(status):
            print(json.dumps({"kind": name, "seed": -1, "change": "", "outcome": f"signal {os.WTERMSIG(status)}",
                              "seconds": 0, "about": "", "mb": 0}), flush=True)  # fmt: skip
    return died


if __name__ == "__main__":
    chosen = [name for name in sys.argv[3:] if name != "--large"]
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), chosen or list(KINDS), large="--large" in sys.argv))
