"""What a measurement may cost and where its result is kept: the options that most methods share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headatlas.methods.sweeps.memory_budget import parse_size


@dataclass(frozen=True)
class RunOptions:
    """How a measurement is run; what is measured does not depend on it.

    memory: what may be used beside the weights, in bytes or as text such as "4GB". out: where the result is kept (a folder
    for sweeps over heads, a file for circuits); the same call goes on from what an interrupted one left there.
    Raises BadInput for text that is no amount of memory.
    """

    memory: int | str = "4GB"
    out: str | Path | None = None

    def __post_init__(self) -> None:
        _ = self.bytes  # text that cannot be read is refused at once, not after the model was loaded

    @property
    def bytes(self) -> int:
        """`memory` in bytes."""
        return parse_size(self.memory) if isinstance(self.memory, str) else self.memory


@dataclass(frozen=True)
class SweepOptions(RunOptions):
    """How a sweep over heads is run.

    triage: measure only that many changes, those that attribution patching ranks highest; all of them where it is None.
    """

    triage: int | None = None
