"""How the program ends before it is done: by a signal, or because nobody reads what it writes. No traceback, nothing left held.

SIGTERM and SIGHUP become an exception, as Ctrl-C is one already, so that everything that is open is closed on the way out:
the cursor comes back, the lock of a run's folder is released, files that are half-written go. Exit codes are those of the
shell: 128 plus the signal's number.

Whoever reads standard output may stop when it has enough (`| head`); that is no error, and the command ends with 0. Where
standard error is closed, nobody follows the work: it ends with 141 (SIGPIPE), or 129 (SIGHUP) where a terminal is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

from headatlas.errors import StoreError

SIGNALS = ("SIGTERM", "SIGHUP")  # the second is not known to Windows
KEPT = "Runs with a folder kept what was finished; give the same command to go on."


class Ended(SystemExit):
    """The program ends here, with this exit code; `reason` is what the user is told, "" for nothing."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code)
        self.reason = reason


class _Guarded:
    """A standard stream that ends the program once nobody can read it; asked otherwise, it is the stream itself."""

    def __init__(self, stream: TextIO, name: str, code: int) -> None:
        self._stream, self._name, self._code = stream, name, code
        self._end: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        return self._try(lambda: self._stream.write(text), len(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self._stream.flush, None)

    def _try(self, do: Callable[[], Any], instead: Any) -> Any:
        try:
            found = do()
        except OSError as error:
            self._silence()
            self._end = self._end_by(error)
            found = instead
        # A progress bar writes in a thread of its own, where an exception would end nothing but the thread.
        if self._end is not None and threading.current_thread() is threading.main_thread() and not _leaving():
            end, self._end = self._end, None  # once: from now on it writes to nowhere
            raise end
        return found

    def _end_by(self, error: OSError) -> BaseException:
        if error.errno == errno.EPIPE:
            return Ended(self._code)
        if error.errno == errno.EIO:  # a terminal that was closed
            return Ended(128 + 1)
        return StoreError(f"The {self._name} cannot be written: {error.strerror}.", "Is the disk full?")

    def _silence(self) -> None:
        """What is still in the stream's buffer, and what others write there, goes nowhere from now on."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _leaving() -> bool:
    """Whether an exception is on its way out already: one more from a closed stream would take its place."""
    return sys.exc_info()[0] is not None and isinstance(sys.exc_info()[1], Ended | KeyboardInterrupt | StoreError)


@contextlib.contextmanager
def ending_well() -> Iterator[None]:
    """Signals and closed streams raise `Ended` in here; on exit, signals and streams are as before."""
    with contextlib.ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
                    signal.signal(number, _end)
                    undo.callback(signal.signal, number, signal.SIG_DFL)
        streams = {"stdout": ("standard output", 0), "stderr": ("standard error", 128 + 13)}
        for name, (told, code) in streams.items():
            stream = getattr(sys, name)
            if stream is None:  # closed before the program began; print would take the other one
                stream = undo.enter_context(open(os.devnull, "w", encoding="utf-8"))
            undo.callback(setattr, sys, name, getattr(sys, name))
            setattr(sys, name, cast(TextIO, _Guarded(stream, told, code)))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()


def _end(number: int, _: object) -> None:
    for name in SIGNALS:  # once is enough: what is being closed shall be closed to its end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    told = "" if signal.Signals(number).name == "SIGHUP" else f"ended by {signal.Signals(number).name}. {KEPT}"
    raise Ended(128 + number, told)
