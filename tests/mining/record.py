"""Write down what this build makes of the toy: a finished run, and three that were interrupted.

    python -m tests.mining.record FILE.zip

runs.zip was made so by the build before mining had typed records, and again when verdicts changed their meaning (what scans say
stayed, but for the intervals of scores); test_recorded_runs.py holds today's build to it.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import headatlas as ha
from tests.mining import echo

WHERE = "headatlas.mining.planning.detectors"
IDENTITY = "headatlas.mining.run.identity_of"
SOURCE = "headatlas.mining.run.own_identity"
SETTINGS = {"n": 12, "seed": 3}
# Name of an interrupted run: the first report to its progress that it did not survive.
INTERRUPTED = {
    "two-scans": ("advance", "hopeless"),
    "all-scans": ("say", "echo: verdict on"),
    "one-verdict": ("say", "echo-swapped: verdict on"),
}


class Interrupts:
    """A progress that interrupts its run at the first report of a kind that begins with `text`."""

    def __init__(self, kind: str, text: str) -> None:
        self.at = kind, text

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        for step, _ in steps:
            self._report("plan", step)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self._report("advance", step)

    def say(self, line: str) -> None:
        self._report("say", line)

    def _report(self, kind: str, text: str) -> None:
        if kind == self.at[0] and text.startswith(self.at[1]):
            raise KeyboardInterrupt


def record(folder: Path) -> None:
    """Leave the finished and the interrupted runs in `folder`."""
    model = echo.model()
    # Of the model the identity holds the weights alone, and nothing of the toy's source: these no edit nor library changes.
    with (
        mock.patch(WHERE, return_value=echo.DETECTORS),
        mock.patch(IDENTITY, return_value={}),
        mock.patch(SOURCE, return_value={}),
    ):
        ha.mine(model, out=folder / "finished", **SETTINGS)
        for name, at in INTERRUPTED.items():
            try:
                ha.mine(model, out=folder / name, progress=Interrupts(*at), **SETTINGS)
            except KeyboardInterrupt:
                continue
            raise AssertionError(f"{name} was not interrupted")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        record(Path(place))
        with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(path for path in Path(place).rglob("*") if path.is_file()):
                archive.write(file, file.relative_to(place))
