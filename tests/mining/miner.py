"""A toy that is mined from scans and verdicts measured once, so that runs take a moment; says what it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headatlas as ha
from headatlas.mining import run as mining
from headatlas.mining.verdicts import judge_task
from tests.mining import echo, record

DETECTORS = ("twins", "output-size")  # one with a verdict, one without


class Miner:
    """Mines the toy of echo.py from scans and verdicts that were measured once, and says which were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.asked = echo.model(), []
        monkeypatch.setattr(record.WHERE, lambda: {name: echo.DETECTORS[name] for name in DETECTORS})
        self._real = {"scan": mining.scan_task, "verdict": judge_task}
        self._known: dict[tuple[str, str], Any] = {}
        monkeypatch.setattr(mining, "scan_task", lambda *a, **k: self._once("scan", *a, **k))
        monkeypatch.setattr(mining, "judged_one_by_one", lambda *a, **k: iter([self._once("verdict", *a, **k)]))

    def _once(self, kind: str, model: ha.Model, task: Any, *more: Any, **options: Any) -> Any:
        self.asked.append((kind, task.name))
        if (kind, task.name) not in self._known:
            self._known[kind, task.name] = self._real[kind](model, task, *more, **options)
        return self._known[kind, task.name]

    def mine(self, out: Path) -> dict[str, Any]:
        """atlas.json without the time of day and of measuring."""
        data = ha.mine(self.model, out=out, **record.SETTINGS).data
        return {**data, "run": {**data["run"], "created": None, "seconds": None}}


def kept(out: Path) -> set[tuple[str, str]]:
    """What lies whole on the disk, by whatever name its folder goes: no run may have to measure it again."""
    found = set()
    for place in (out, out.with_name(f"{out.name}.partial")):
        for kind in ("scan", "verdict"):
            found |= {(kind, file.stem) for file in place.glob(f"{kind}s/*.json")}
    return found
