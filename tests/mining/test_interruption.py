"""Runs that are interrupted or killed go on from what they have done."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import headatlas as ha
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.mining import run as mining
from headatlas.progress import Progress, Silent

PLAIN = ["repeated", "prose", "registers"]  # where a test is not about all tasks


def test_an_interrupted_run_goes_on_from_the_last_finished_task(folder, tmp_path: Path, monkeypatch):
    model, out = ha.load(str(folder)), tmp_path / "run"
    done = []
    real = mining.scan_task

    def dies_at_the_third(model, task, *rest, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.name)
        return real(model, task, *rest, **options)

    monkeypatch.setattr(mining, "scan_task", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ha.mine(model, tasks=PLAIN, n=4, out=out)
    assert not out.exists()
    again = []
    monkeypatch.setattr(
        mining, "scan_task", lambda model, task, *a, **k: again.append(task.name) or real(model, task, *a, **k)
    )
    atlas = ha.mine(model, tasks=PLAIN, n=4, out=out)
    assert set(again).isdisjoint(done)
    assert {found["task"] for found in atlas.data["detectors"]} == {*done, *again}
    assert not (tmp_path / "run.partial").exists()


def test_a_killed_run_leaves_no_half_run_and_resumes(folder, tmp_path: Path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "headatlas", "mine", str(folder), "--n", "12", "--out", str(out)]
    command += [word for task in PLAIN for word in ("--task", task)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while not list(tmp_path.glob("run.partial/scans/*.json")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() or (out / "atlas.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kept from before" in done.stderr or "already" in done.stderr
    assert (out / "report.html").exists()


def test_verdicts_are_kept_when_a_run_is_interrupted_after_them(tmp_path: Path, monkeypatch):
    model = model_of(plant(PlantSpec((Head(0, 0, "previous"), Head(1, 1, "induction")), noise=0.02)))
    asked = []
    real = mining.judged_one_by_one
    monkeypatch.setattr(
        mining, "judged_one_by_one", lambda *given, **options: asked.append(1) or real(*given, **options)
    )
    with monkeypatch.context() as once:
        once.setattr(mining, "atlas_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ha.mine(model, ["previous-token", "induction"], n=8, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    atlas = ha.mine(model, ["previous-token", "induction"], n=8, out=tmp_path / "run")
    assert asked == [1]
    assert atlas.detectors("induction")[0]["heads"][0]["verdict"] == "causal"
    assert atlas.detectors("induction")[0]["group"]["metric"] == "next-token loss"
    assert sorted(path.name for path in atlas.run.iterdir() if path.is_dir()) == []


def test_verdicts_of_a_task_are_told_and_kept_detector_by_detector(tmp_path: Path, monkeypatch):
    model = model_of(plant(PlantSpec((Head(0, 0, "previous"), Head(1, 1, "induction")), noise=0.02)))
    detectors = ["induction", "previous-token", "cmr-like"]

    def mined(name: str, told: Progress) -> dict:
        data = ha.mine(model, detectors, tasks=["repeated"], n=8, out=tmp_path / name, progress=told).data
        return {**data, "run": {**data["run"], "created": None, "seconds": None}}

    undisturbed, whole = Lines(), Lines()
    expected = mined("undisturbed", undisturbed)
    told = undisturbed.of("not counted yet")
    judged = [one["name"] for one in expected["detectors"] if one["group"]]
    assert len(judged) >= 2
    assert sorted(line.split(": ")[1] for line in told) == sorted(judged)
    assert any(line.startswith("repeated: induction: causal 1.1 +") for line in told)
    real, seen = mining.judged_one_by_one, []

    def dies_behind_the_first(model, task, detectors, *rest, **options):
        seen.append([one.name for one in detectors])
        for found in real(model, task, detectors, *rest, **options):
            yield found
            if len(seen) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(mining, "judged_one_by_one", dies_behind_the_first)
    with pytest.raises(KeyboardInterrupt):
        mined("disturbed", whole)
    (first,) = (line.split(": ")[1] for line in whole.of("not counted yet"))
    again = Lines()
    assert mined("disturbed", again) == expected
    assert sorted(seen[1]) == sorted({*seen[0]} - {first})
    assert again.of("not counted yet") == [line for line in told if line.split(": ")[1] != first]
    assert again.moved["repeated: verdict"] == undisturbed.moved["repeated: verdict"]
    assert not (tmp_path / "disturbed" / "begun").exists()


class Lines(Silent):
    """Keeps what is said, and how far each step came."""

    def __init__(self) -> None:
        self.said, self.moved = [], Counter()

    def say(self, line: str) -> None:
        self.said.append(line)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self.moved[step] += amount

    def of(self, part: str) -> list[str]:
        """The lines that hold it."""
        return [line for line in self.said if part in line]


def interrupted(*_) -> None:
    raise KeyboardInterrupt
