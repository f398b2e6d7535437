"""A task's scan and its verdicts are units of work that can be done anywhere: arguments in, one record out."""

import inspect
import json
import pickle
import platform
import resource
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.engines.allocator import freed_memory_kept
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.mining.atlas_json import ModelFacts, RunFacts, atlas_json
from headatlas.mining.scan import scan_task
from headatlas.mining.task_scan import TaskScan, detector_json
from headatlas.mining.task_verdict import TaskVerdict
from headatlas.mining.verdicts import can_be_judged, judge_task, step_of, steps
from headatlas.progress import Silent
from headatlas.store import clean
from tests.mining import echo

N, SEED = 12, 3


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return echo.model()


def scanned(model: ha.Model, task) -> TaskScan:
    group = [one for one in echo.DETECTORS.values() if one.task is task]
    return scan_task(model, task, group, task(model.tokenizer, N, SEED))


def judged(model: ha.Model, scan: TaskScan, task) -> TaskVerdict:
    group = [one for one in echo.DETECTORS.values() if one.task is task]
    return judge_task(model, task, group, scan, n=N, seed=SEED, progress=Silent())


@pytest.fixture(scope="module")
def scan(model) -> TaskScan:
    return scanned(model, echo.echo)


@pytest.fixture(scope="module")
def verdict(model, scan) -> TaskVerdict:
    return judged(model, scan, echo.echo)


def assert_equal(first: TaskScan, second: TaskScan) -> None:
    """Bit for bit, NaN equal to NaN."""
    for a, b in zip(first.detectors, second.detectors, strict=True):
        assert clean(detector_json(first, a)) == clean(detector_json(second, b))
        assert [clean(asdict(line)) for line in a.lines] == [clean(asdict(line)) for line in b.lines]
        assert a.attention == b.attention
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.control, b.control)
    assert list(first.mean_z) == list(second.mean_z)
    assert all(torch.equal(first.mean_z[layer], second.mean_z[layer]) for layer in first.mean_z)
    rest = ("task", "baseline", "smallest", "skipped", "observed", "forward_seconds", "detect_seconds")
    for name in rest:
        assert getattr(first, name) == getattr(second, name), name


class Counted(Silent):
    """Counts what it is told of each step, and the most steps that were said at once."""

    def __init__(self) -> None:
        self.parts: dict[str, list[int]] = {}

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self.parts.setdefault(step, []).append(amount)


def test_progress_of_verdicts_adds_up_and_moves_during_checks(model, scan):
    group = [one for one in echo.DETECTORS.values() if one.task is echo.echo]
    told, checks = Counted(), ("removals", "same-answer", "transfer")
    judge_task(model, echo.echo, group, scan, n=N, seed=SEED, progress=told, checks=checks)
    assert list(told.parts) == [step_of(echo.echo)]
    assert sum(told.parts[step_of(echo.echo)]) == steps(scan, checks)
    assert steps(scan, ("removals",)) > steps(scan)
    alone = Counted()
    judge_task(model, echo.echo, group, scan, n=N, seed=SEED, progress=alone)
    assert sum(alone.parts[step_of(echo.echo)]) == steps(scan)
    assert len(told.parts[step_of(echo.echo)]) > len(alone.parts[step_of(echo.echo)])


def test_a_scan_says_what_was_found(scan: TaskScan):
    assert scan.observed["twins"][:2] == (HeadId(1, 3), HeadId(0, 2))
    assert scan.baseline is not None
    assert (scan.baseline.metric, scan.baseline.able, scan.reason) == ("logit difference", True, "")
    assert set(scan.mean_z) == {("decoder", layer) for layer in range(3)}
    assert scan.mean_z["decoder", 0].shape == (echo.HEADS, echo.HEAD)
    assert can_be_judged(scan)


def test_records_are_the_same_after_pickle_and_after_their_files(model, scan, verdict, tmp_path: Path):
    for task in (echo.echo, echo.unmeasured):  # the other has NaN, no metric, and a detector that was refused
        found = scan if task is echo.echo else scanned(model, task)
        assert_equal(pickle.loads(pickle.dumps(found)), found)
        found.save(tmp_path / "scans")
        kept = TaskScan.load(tmp_path / "scans", found.task)
        assert kept is not None
        assert_equal(kept, found)
    assert [one.detector for one in found.skipped] == ["refused"]
    assert repr(pickle.loads(pickle.dumps(verdict))) == repr(verdict)  # NaN is not equal to NaN
    verdict.save(tmp_path / "verdicts")
    assert repr(TaskVerdict.load(tmp_path / "verdicts", "echo")) == repr(verdict)
    assert TaskScan.load(tmp_path / "scans", "hopeless") is None
    assert TaskVerdict.load(tmp_path / "nowhere", "echo") is None


def test_an_atlas_of_kept_records_is_that_of_new_ones(model, scan, verdict, tmp_path: Path):
    facts, run = ModelFacts.of(model), RunFacts.now(model, "an-id", n=N, seed=SEED)
    scan.save(tmp_path)
    verdict.save(tmp_path / "verdicts")
    kept, kept_verdict = TaskScan.load(tmp_path, "echo"), TaskVerdict.load(tmp_path / "verdicts", "echo")
    atlases = [
        json.dumps(clean(atlas_json(facts, run, [], [one], {"echo": other})))
        for one, other in ((scan, verdict), (kept, kept_verdict), (scan, verdict))
    ]
    assert len(set(atlases)) == 1


def test_a_detector_without_verdict_says_why(model, scan, verdict):
    facts, run = ModelFacts.of(model), RunFacts.now(model, "an-id", n=N, seed=SEED)

    def reasons(verdicts) -> dict[str, str]:
        found = atlas_json(facts, run, [], [scan], verdicts)["detectors"]
        return {one["name"]: one["untested"] for one in found}

    assert reasons({"echo": verdict}) == {"before": "", "twins": ""}
    assert reasons({"echo": replace(verdict, detectors={})}) == {
        "before": "",
        "twins": "its verdict cannot be measured on this model",
    }
    assert set(reasons(None).values()) == {"verdicts were switched off"}


def test_a_task_that_the_model_does_not_do_gets_no_verdicts(model):
    hopeless = scanned(model, echo.hopeless)
    assert not can_be_judged(hopeless)
    with pytest.raises(BadInput, match="gets no verdicts on hopeless: the model does not do the task"):
        judged(model, hopeless, echo.hopeless)
    with pytest.raises(BadInput, match="gets no verdicts on unmeasured: the model has no metric on this task"):
        judged(model, scanned(model, echo.unmeasured), echo.unmeasured)


def test_damaged_records_are_named(scan, verdict, tmp_path: Path):
    scan.save(tmp_path)
    path = tmp_path / "echo.json"
    whole = json.loads(path.read_text())
    for broken in ({}, {**whole, "examples": []}, {**whole, "detectors": [{"name": "twins"}]}, {**whole, "seconds": 1}):
        path.write_text(json.dumps(broken))
        with pytest.raises(StoreError, match=r"echo\.json is damaged"):
            TaskScan.load(tmp_path, "echo")
    path.write_text(json.dumps(whole))
    (tmp_path / "echo.npz").write_bytes(b"PK")
    with pytest.raises(StoreError, match=r"echo\.npz is damaged"):
        TaskScan.load(tmp_path, "echo")
    verdict.save(tmp_path / "verdicts")
    path = tmp_path / "verdicts" / "echo.json"
    whole = json.loads(path.read_text())
    whole["detectors"]["twins"]["heads"] = {"first": {"verdict": "causal"}}
    path.write_text(json.dumps(whole))
    with pytest.raises(StoreError, match=r"verdicts/echo\.json is damaged"):
        TaskVerdict.load(tmp_path / "verdicts", "echo")


def test_the_public_names_of_mining():
    from headatlas import mining
    from headatlas.mining import Plan, mine, plan

    assert mine is inspect.unwrap(ha.mine)
    assert ha.mine is ha.mine
    assert (Plan.__name__, plan.__name__) == ("Plan", "plan")
    assert set(mining.__all__) == {"Plan", "mine", "plan"}


# Freed memory stays with the process while a run goes on: asking again costs no page faults, and afterwards it goes back.
SIZE, PAGE = 64 << 20, 4096  # bytes: larger than what glibc keeps by itself, smaller than what is always asked for anew


def faults() -> int:
    """Of writing to SIZE bytes that are asked for now."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(SIZE, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def kept() -> int:
    """Faults once the heap has grown to what is asked for over and over; other blocks may come to lie in the way of one."""
    return min(faults() for _ in range(6))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_is_asked_for_once():
    with freed_memory_kept():
        assert kept() < SIZE // PAGE // 20
    assert faults() > SIZE // PAGE // 2  # what was free went back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_is_kept_until_the_last_who_asked_has_ended():
    with freed_memory_kept():
        with freed_memory_kept():
            kept()
        assert kept() < SIZE // PAGE // 20
    assert faults() > SIZE // PAGE // 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_goes_back_after_an_error_too():
    def broken() -> None:
        with freed_memory_kept():
            kept()
            raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        broken()
    assert faults() > SIZE // PAGE // 2
