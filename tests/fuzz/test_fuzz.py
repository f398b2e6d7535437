"""Damaged and hostile files of every kind are read or refused in one line: no traceback, no hang, no memory bomb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.__main__ import SECONDS
from tests.fuzz.kinds import KINDS

ROOT = Path(__file__).parents[2]
MEGABYTES = 1000
# Three kinds whose every case loads a model are tried in the long suite only.
SHORT = [name for name in KINDS if name not in ("tokenizer", "tokenizer-config", "index")]
BY_LINES = [name for name, kind in KINDS.items() if kind.file.endswith((".json", ".jsonl", ".yaml", ".md"))]


def tried(first: int, cases: int, *arguments: str) -> list[dict[str, Any]]:
    """Every case with its outcome; one process a kind."""
    command = [sys.executable, "-m", "tests.fuzz", str(first), str(cases), *arguments]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=1500, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"kind"')]
    assert found, done.stderr[-2000:]
    return found


def assert_well_taken(found: Sequence[dict[str, Any]], cases: int) -> None:
    bad = [one for one in found if one["outcome"] not in ("read", "refused")]
    assert bad == [], "\n\n".join(f"{one['kind']} {one['seed']} {one['change']}\n{one['about']}" for one in bad)
    assert len(found) == cases
    assert max(one["mb"] for one in found) < MEGABYTES
    assert max(one["seconds"] for one in found) < SECONDS


def test_damaged_files_are_read_or_refused():
    found = tried(0, 3, *SHORT)
    assert_well_taken(found, 3 * len(SHORT))
    assert len(found) >= 60
    assert sum(one["outcome"] == "refused" for one in found) > len(found) / 2


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused():
    assert_well_taken(tried(1000, 40), 40 * len(KINDS))


@pytest.mark.slow
def test_large_files_are_refused_within_memory():
    """20 MB of empty lists, a line of 100 MB and a list of 25 million numbers."""
    assert_well_taken(tried(0, 3, "--large", *BY_LINES), 3 * len(BY_LINES))
