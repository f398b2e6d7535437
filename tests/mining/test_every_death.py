"""A run that dies, or is refused an operation, at any of its operations on files goes on to the same atlas; nothing is lost."""

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from headatlas.errors import StoreError
from headatlas.methods.options import RunOptions
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import ablate
from headatlas.mining.task_scan import TaskScan
from headatlas.task import find_task
from tests import toys
from tests.mining.deaths import Fault, dies, fails, fault
from tests.mining.miner import Miner, kept

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
ENOUGH = 400  # more operations than a run has


@pytest.fixture(autouse=True)
def disks_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda opened: None)


def in_a_child(work: Any) -> int:
    """The exit code of a copy of this process that does `work` and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_death_at_every_operation(miner: Miner, tmp_path: Path):
    expected = miner.mine(tmp_path / "undisturbed")
    everything = set(miner.asked)
    finished_before = False
    for n in range(1, ENOUGH):
        place = tmp_path / str(n)
        out = place / "run"
        place.mkdir()

        def work(out: Path = out, place: Path = place, n: int = n) -> None:
            with fault(Fault(place, n, dies)):
                miner.mine(out)

        code = in_a_child(work)
        if code == 0:
            break
        assert code == 9
        was_kept, complete = kept(out), (out / "atlas.json").exists()
        assert complete >= finished_before  # once a run has its name, no later death takes it away
        finished_before = complete
        miner.asked.clear()
        assert miner.mine(out) == expected, n
        assert set(miner.asked) == (set() if complete else everything - was_kept), n
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "undisturbed").iterdir()}
        assert {path.name for path in place.iterdir()} <= {
            "run",
            "run.partial.lock",
        }  # nobody was left to remove a lock
        shutil.rmtree(place)
    assert finished_before
    assert 30 < n < ENOUGH - 1


@pytest.mark.slow
def test_a_refusal_at_every_operation(miner: Miner, tmp_path: Path):
    expected = miner.mine(tmp_path / "undisturbed")
    everything = set(miner.asked)
    refused = 0
    for n in range(1, ENOUGH):
        place = tmp_path / str(n)
        place.mkdir()
        number = (errno.ENOSPC, errno.EACCES, errno.EIO)[n % 3]
        out, at = place / "run", Fault(place, n, fails(number))
        try:
            with fault(at):
                assert miner.mine(out) == expected
        except StoreError as error:
            refused += 1
            told = str(error)
            assert os.strerror(number) in told
            assert "\n" not in told
        was_kept, complete = kept(out), (out / "atlas.json").exists()
        miner.asked.clear()
        assert miner.mine(out) == expected, n
        assert set(miner.asked) == (set() if complete else everything - was_kept), n
        assert "run.partial" not in {path.name for path in place.iterdir()}
        shutil.rmtree(place)
        if at.count < n:
            break
    assert refused > 20
    assert n < ENOUGH - 1


def test_a_torn_record_of_a_task_is_no_record(miner: Miner, tmp_path: Path):
    out = tmp_path / "run"
    miner.mine(out)
    scans = tmp_path / "scans"
    scan = next(found for (kind, _), found in miner._known.items() if kind == "scan")
    with pytest.raises(StoreError), fault(Fault(tmp_path / "scans", 6, fails(errno.ENOSPC))):
        scan.save(scans)
    assert TaskScan.load(scans, scan.task) is None
    scan.save(scans)
    assert TaskScan.load(scans, scan.task) is not None


def test_a_sweep_that_dies_at_any_operation_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, measured = toys.model("gqa"), []
    task = find_task("repeated")
    batch, real = task(model.tokenizer, 4, seed=0), checkpoint.FolderStore.put
    monkeypatch.setattr(
        checkpoint.FolderStore, "put", lambda self, name, x: measured.append(name) or real(self, name, x)
    )

    def sweep(out: Path) -> list[Any]:
        return ablate(model, batch, metric=task.metric, edit="zero", options=RunOptions(out=str(out))).values.tolist()

    expected = sweep(tmp_path / "undisturbed")
    everything = set(measured)
    assert everything
    for n in range(1, ENOUGH):
        out = tmp_path / str(n) / "sweep"
        out.parent.mkdir()

        def work(out: Path = out, n: int = n) -> None:
            with fault(Fault(out.parent, n, dies)):
                sweep(out)

        if in_a_child(work) == 0:
            break
        was_kept = {file.stem for place in (out, out.with_name("sweep.partial")) for file in place.glob("*.npy")}
        complete = (out / "effects.json").exists()
        measured.clear()
        assert sweep(out) == expected, n
        missing = set() if complete else everything - was_kept
        assert {name for name in measured if not name.endswith(".base")} == {  # a piece begins with the run it changes
            name for name in missing if not name.endswith(".base")
        }, n
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "undisturbed").iterdir()}
        shutil.rmtree(out.parent)
    assert 20 < n < ENOUGH - 1
