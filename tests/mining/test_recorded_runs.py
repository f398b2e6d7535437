"""Runs of the build before mining had typed records: today's build gives the same atlas, and goes on where they stopped.

runs.zip holds a finished run of the toy in echo.py and three interrupted ones; record.py says how they were made.
"""

import json
import math
import re
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas import report
from headatlas.atlas import Atlas
from headatlas.cli import main
from headatlas.mining import run as mining
from headatlas.report.atlas_view import read
from headatlas.report.page import payload
from tests.mining import echo, record

RECORDED = Path(__file__).parent / "runs.zip"
TASKS = ["echo", "echo-swapped", "hopeless", "unmeasured"]
JUDGED = TASKS[:2]
SCANNED = ("scores", "chance", "baseline", "about")  # keys that a scan alone decides


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return echo.model()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The recorded folders."""
    with zipfile.ZipFile(RECORDED) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's detectors, and the version and no more of the model than weights, as the recorded runs bear in their identity."""
    monkeypatch.setattr(record.WHERE, lambda: echo.DETECTORS)
    monkeypatch.setattr(mining, "__version__", "0.1.0")
    monkeypatch.setattr(mining, "identity_of", lambda model: {})
    monkeypatch.setattr(mining, "own_identity", lambda own: {})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the tasks that were scanned and judged anew."""
    names: dict[str, list[str]] = {"scan": [], "verdict": []}
    scan, judge = mining.scan_task, mining.judged_one_by_one
    monkeypatch.setattr(
        mining, "scan_task", lambda model, task, *a, **k: names["scan"].append(task.name) or scan(model, task, *a, **k)
    )
    monkeypatch.setattr(
        mining,
        "judged_one_by_one",
        lambda model, task, *a, **k: names["verdict"].append(task.name) or judge(model, task, *a, **k),
    )
    return names


def mine(model: ha.Model, out: Path) -> Path:
    return ha.mine(model, out=out, **record.SETTINGS).run


def content(run: Path) -> dict:
    """atlas.json without what differs from run to run: when it was made, with what, and how long it took."""
    data = json.loads((run / "atlas.json").read_text(encoding="utf-8"))
    for name in ("created", "versions", "seconds"):
        data["run"][name] = None
    return data


def text(run: Path) -> str:
    """The same, byte for byte as it was written."""
    written = (run / "atlas.json").read_text(encoding="utf-8")
    for name in ("versions", "seconds"):
        written, n = re.subn(rf'"{name}": {{[^}}]*}}', f'"{name}": 0', written)
        assert n == 1
    written, n = re.subn(r'"created": "[^"]*"', '"created": 0', written)
    assert n == 1
    return written


def assert_same(found: object, expected: object, place: str = "") -> None:
    """Equal, floats to 1e-5 or the last written digit: another processor rounds otherwise."""
    assert type(found) is type(expected), place
    if isinstance(expected, dict):
        assert list(found) == list(expected), place
        for name, item in expected.items():
            assert_same(found[name], item, f"{place}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for i, item in enumerate(expected):
            assert_same(found[i], item, f"{place}/{i}")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=2e-6), f"{place}: {found} is not {expected}"
    else:
        assert found == expected, place


def assert_same_tables(found: Path, expected: Path) -> None:
    for name in ("scores.parquet", "examples.parquet"):
        tables = [pq.read_table(run / name) for run in (found, expected)]
        assert tables[0].schema == tables[1].schema
        assert_same(tables[0].to_pylist(), tables[1].to_pylist(), name)


def test_the_recorded_run_has_all_that_can_come_out(runs: Path):
    found = {one["name"]: one for one in content(runs / "finished")["detectors"]}
    words = {row["verdict"] for one in found.values() for row in one["heads"]}
    assert words == {"causal", "group", "refuted", "untested"}
    assert {one["untested"] for one in found.values()} == {
        "",
        "the model has no metric on this task",
        "the model does not do the task",
    }
    assert found["before"]["heads"] == []
    assert found["output-size"]["scores"][-1][-1] is None


def test_the_toy_is_the_same_on_every_machine(model, runs: Path):
    assert model.fingerprint() == content(runs / "finished")["model"]["sha256"]


def test_mining_anew_gives_the_recorded_atlas(model, runs: Path, asked):
    new = mine(model, runs / "new")
    assert asked == {"scan": TASKS, "verdict": JUDGED}
    assert_same(content(new), content(runs / "finished"))
    assert_same_tables(new, runs / "finished")
    for name in ("attention.json", "run.json"):
        found, expected = (json.loads((run / name).read_text()) for run in (new, runs / "finished"))
        if name == "run.json":
            for run, facts in ((new, found), (runs / "finished", expected)):
                assert facts.pop("created") == json.loads((run / "atlas.json").read_text())["run"]["created"]
        assert_same(found, expected, name)


@pytest.mark.parametrize(
    ("name", "scans", "verdicts"),
    [("two-scans", TASKS[2:], JUDGED), ("all-scans", [], JUDGED), ("one-verdict", [], JUDGED[1:])],
)
def test_a_recorded_run_goes_on_where_it_stopped(model, runs: Path, asked, name, scans, verdicts):
    resumed = mine(model, runs / name)
    assert asked == {"scan": scans, "verdict": verdicts}
    assert not (runs / f"{name}.partial").exists()
    assert_same(content(resumed), content(runs / "finished"))
    assert_same_tables(resumed, runs / "finished")
    # What was kept was not measured again: it is there digit for digit.
    for found, expected in zip(*(content(run)["detectors"] for run in (resumed, runs / "finished")), strict=True):
        if expected["task"] not in scans:
            assert [found[name] for name in SCANNED] == [expected[name] for name in SCANNED]
        if expected["task"] not in (*scans, *verdicts):
            assert found == expected


def test_resumed_and_uninterrupted_runs_are_equal_byte_for_byte(model, tmp_path: Path):
    whole = mine(model, tmp_path / "whole")
    for name, at in record.INTERRUPTED.items():
        with pytest.raises(KeyboardInterrupt):
            ha.mine(model, out=tmp_path / name, progress=record.Interrupts(*at), **record.SETTINGS)
        resumed = mine(model, tmp_path / name)
        assert text(resumed) == text(whole)
        for file in ("attention.json", "scores.parquet", "examples.parquet"):
            assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_recorded_finished_run_opens(model, runs: Path, asked, capsys):
    atlas = Atlas(runs / "finished")
    assert [row["id"] for row in atlas.top("twins", 2)] == ["1.3", "0.2"]
    causal = sum(row["verdict"] == "causal" for one in atlas.data["detectors"] for row in one["heads"])
    assert causal >= 5
    assert atlas.query("SELECT count(*) AS n FROM scores WHERE verdict = 'causal'") == [{"n": causal}]
    assert "twins" in report.html(atlas.data, atlas.extras)
    assert mine(model, runs / "finished") == runs / "finished"
    assert asked == {"scan": [], "verdict": []}
    with pytest.raises(SystemExit) as ended:
        main(["show", str(runs / "finished")])
    assert ended.value.code == 0
    assert "Duplicate Head" in capsys.readouterr().out


def test_a_run_of_before_opens_and_its_groups_are_called_what_they_were(runs: Path):
    folder = runs / "finished"
    data = json.loads((folder / "atlas.json").read_text())
    for one in data["detectors"]:
        if one["group"] is not None:
            one["group"] = {
                name: one["group"][name] for name in ("effect", "random_effect", "draws", "examples", "metric")
            }
        new = (
            "works",
            "carries",
            "line",
            "beside_others",
            "checks",
            "random_p",
            "effect_p",
            "effect_q",
            "effect_examples",
            "too_few_events",
        )
        one["heads"] = [{name: value for name, value in row.items() if name not in new} for row in one["heads"]]
    (folder / "atlas.json").write_text(json.dumps(data))
    view = read(Atlas(folder).data)
    shown = {seen.shown for seen in view.observations if seen.verdict == "untested"}
    assert shown == {"untested", "group (old definition)"}
    assert {seen.verdict for seen in view.observations} == {"causal", "refuted", "untested"}
    assert "group (old definition)" in payload(view)["seen"]["shown"]
