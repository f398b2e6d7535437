"""`headatlas show` over a folder of many runs."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

from rich.console import Console

import headatlas as ha
from tests.report import synthetic


def _write(folder: Path, name: str, created: str) -> Path:
    """What `show` reads of a run."""
    atlas = synthetic.atlas()
    atlas["model"]["name"], atlas["run"]["created"] = name, created
    for entry in atlas["detectors"]:
        entry["about"] = {"doc": "", "formula": "", "range": ""}
    folder.mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(atlas), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"created": created}), encoding="utf-8")
    return folder


def test_the_newest_of_500_runs_is_shown_within_a_second(tmp_path: Path) -> None:
    first = _write(tmp_path / "runs" / "model-0" / "run-0", "an older one", "2025-01-01T00:00:00+00:00")
    for file in first.iterdir():
        os.utime(file, (0, 0))
    for index in range(1, 499):
        folder = tmp_path / "runs" / f"model-{index % 20}" / f"run-{index}"
        folder.mkdir(parents=True)
        for file in first.iterdir():
            os.link(file, folder / file.name)
    _write(tmp_path / "runs" / "model-3" / "run-499", "the newest", "2026-01-01T00:00:00+00:00")
    screen = Console(file=io.StringIO(), width=80)
    began = time.process_time()
    screen.print(ha.show(tmp_path / "runs"))
    assert time.process_time() - began < 1
    assert "the newest" in screen.file.getvalue()  # type: ignore[attr-defined]
