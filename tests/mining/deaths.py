"""Deaths and faults at any operation on files: each open for writing, rename, removal, new folder and fsync is counted.

Python tells an audit hook of all of them but fsync, which is wrapped. A hook cannot be taken away, so there is one, which
does nothing while no fault is asked for.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault:
    """Calls `strike(operation, path)` at the n-th operation below `folder`, counted from 1; counts on behind it."""

    def __init__(self, folder: Path, n: int, strike: Callable[[str, str], None]) -> None:
        self.folder, self.n, self.strike, self.count = str(folder), n, strike, 0

    def see(self, operation: str, path: str) -> None:
        """One operation."""
        if path.startswith(self.folder):
            self.count += 1
            if self.count == self.n:
                self.strike(operation, path)


_active: list[Fault] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _active:
        return
    if event in _CHANGES:
        _active[-1].see(event, os.fspath(args[0]))  # type: ignore[arg-type]
    elif event == "open" and isinstance(args[0], str | os.PathLike) and isinstance(args[2], int) and args[2] & _WRITES:
        _active[-1].see(event, os.fspath(args[0]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def fault(at: Fault) -> Iterator[Fault]:
    """While this runs, `at` sees every operation. Disks are not waited for: what a program's death leaves needs no disk."""

    def fsync(opened: int) -> None:
        at.see("os.fsync", os.readlink(f"/proc/self/fd/{opened}"))

    with mock.patch.object(os, "fsync", fsync):
        _active.append(at)
        try:
            yield at
        finally:
            _active.remove(at)


def dies(operation: str, path: str) -> None:
    """The program is gone, no `finally` runs; a new file that was not on the disk yet is there by half."""
    if operation == "os.fsync" and path.endswith(".half"):
        os.truncate(path, os.path.getsize(path) // 2)
    os._exit(9)


def fails(number: int) -> Callable[[str, str], None]:
    """The system refuses one operation with this error, such as errno.ENOSPC."""

    def strike(operation: str, path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return strike
