"""Workers that Ray starts: the numbers of the local run, kills of workers and of the program, one load of a model for each.

Each starts Ray, which takes seconds: `pytest -m slow tests/engines`, with the package ray installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headatlas as ha
from headatlas.engines import Unit, current
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.lab.spec import PlantSpec, parse_head
from headatlas.progress import Silent
from headatlas.task import find_task
from tests import toys

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
TASKS = ["repeated", "prose", "registers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model with heads that get verdicts."""
    place = tmp_path_factory.mktemp("models") / "planted"
    heads = tuple(map(parse_head, ("0.0:previous", "1.0:induction", "0.2:duplicate")))
    ha.plant(PlantSpec(heads)).save(place)
    return place


@pytest.fixture(scope="module")
def engine():
    with ha.engine("ray", workers=1, threads=1) as found:
        yield found


class Heard(Silent):
    """Sums what it is told of each step."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.lines: list[str] = []

    def plan(self, steps: Any) -> None:
        self.sizes.update(steps)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self.done[step] = self.done.get(step, 0) + amount

    def say(self, line: str) -> None:
        self.lines.append(line)


def numbers(run: Path) -> dict[str, Any]:
    """atlas.json without what hangs on the time and the place."""
    data = json.loads((run / "atlas.json").read_text())
    return {**data, "run": {**data["run"], "created": None, "seconds": None}}


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("local") / "run"
    with ha.engine("local", threads=1):
        return numbers(ha.mine(ha.load(folder), tasks=TASKS, n=8, out=out).run)


def test_the_numbers_are_those_of_the_local_run_to_the_bit(engine, folder, local, tmp_path):
    told = Heard()
    found = numbers(ha.mine(ha.load(folder), tasks=TASKS, n=8, out=tmp_path / "run", progress=told).run)
    assert found == local
    assert any(row["verdict"] != "untested" for one in found["detectors"] for row in one["heads"])
    assert told.done == told.sizes


@pytest.mark.parametrize("edit", ["zero", "resample"])
def test_a_sweep_gives_what_it_gives_here(engine, folder, edit):
    """The cached run is made anew by each worker, from which on its changes are computed as here."""
    model = ha.load(folder)
    batch = find_task("repeated")(model.tokenizer, 6, 0)
    if edit == "resample":
        batch = replace(batch, counterfactual=batch.rows([5, 4, 3, 2, 1, 0]))
    told = Heard()
    found = ha.ablate(model, batch, edit=edit, metric="next-token-loss", progress=told)
    with ha.engine("local", threads=1):
        here = ha.ablate(model, batch, edit=edit, metric="next-token-loss")
    np.testing.assert_allclose(found.values, here.values, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.base, here.base)
    assert told.done["ablate"] == 8


def test_a_campaign_by_workers_is_the_campaign_here(engine, folder, tmp_path):
    models = [
        {"name": str(folder), "n": 4, "tasks": ["repeated"], "detectors": ["induction"], "seed": seed}
        for seed in (0, 1, 2)
    ]
    found = ha.campaign(models, tmp_path / "there", at_once=2)
    with ha.engine("local", threads=1):
        here = ha.campaign(models, tmp_path / "here")
    assert not found.failed
    assert [numbers(found.folder / one.run) for one in found.models] == [
        numbers(here.folder / one.run) for one in here.models
    ]


def test_a_worker_loads_a_model_once(engine, folder):
    model = ha.load(folder)
    units = deque(Unit(str(i), lambda model, progress: (os.getpid(), id(model))) for i in range(6))
    found = [result for _, result in current().map(model, units, Silent())]
    assert len(set(found)) == 1
    assert found[0][0] != os.getpid()


def test_a_worker_that_is_killed_has_its_unit_run_again(engine, folder, tmp_path):
    began, told = tmp_path / "began", Heard()

    def work(model: Any, progress: Any) -> int:
        progress.advance("step", 2, 3)
        time.sleep(1)  # so that it has been heard
        if not began.exists():
            began.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        progress.advance("step", 1, 3)
        return len(model.heads)

    model = ha.load(folder)
    ((_, found),) = current().map(model, deque([Unit("fatal", work)]), told)
    assert found == len(model.heads)
    assert told.done == {"step": 3}


def test_a_unit_that_kills_every_worker_is_told(engine, folder):
    def work(model: Any, progress: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    units = deque([Unit("fatal", work)])
    with pytest.raises(HeadAtlasError, match="fatal ended its worker 4 times"):
        list(current().map(ha.load(folder), units, Silent()))
    ((_, found),) = current().map(ha.load(folder), deque([Unit("next", lambda model, progress: 7)]), Silent())
    assert found == 7


def test_what_work_raises_is_raised_here(engine, folder):
    def work(model: Any, progress: Any) -> None:
        raise BadInput("No.", "Never.")

    with pytest.raises(BadInput, match=r"No\. Never\.") as caught:
        list(current().map(ha.load(folder), deque([Unit("wrong", work)]), Silent()))
    assert caught.value.hint == "Never."


def test_a_model_in_memory_is_refused_before_a_folder_is_made(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="load models by name"):
        ha.mine(ha.load(toys.llama()), n=4)
    assert not list(tmp_path.iterdir())


def test_no_cluster_at_an_address_is_one_line():
    code = "import headatlas as ha\nwith ha.engine('ray', address='127.0.0.1:1'): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "No Ray cluster could be joined at 127.0.0.1:1" in done.stderr.splitlines()[-1]


def test_a_killed_program_goes_on_where_it_was(folder, local, tmp_path):
    """Killed with -9 between two records: what was kept is not measured again, and the numbers are those of the local run."""
    out = tmp_path / "run"
    words = [sys.executable, "-m", "headatlas", "mine", str(folder), "--n", "8", "--engine", "ray", "--workers", "1",
             "--threads", "1", "--out", str(out), *(word for task in TASKS for word in ("--task", task))]  # fmt: skip
    kept = tmp_path / "run.partial" / "scans"
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        until = time.monotonic() + 300
        while not list(kept.glob("*.json")):
            assert time.monotonic() < until
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
    assert not out.exists()
    known = {path.stem for path in kept.glob("*.json")}
    second = subprocess.run(words, capture_output=True, text=True, check=True, timeout=400)
    assert {line.split(":")[0] for line in second.stderr.splitlines() if "kept from before" in line} >= known
    assert numbers(out) == local
