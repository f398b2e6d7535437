"""Signals in the processes that tests start."""

from __future__ import annotations

import signal


def heard() -> None:
    """In a new process: signals end it, although whoever runs the tests may have them ignored (`nohup`, `&` in a script)."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
