"""A calibration of hours goes on where it was interrupted, and ends in the same numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headatlas.errors import StoreError
from headatlas.lab import calibrate as calibrating
from headatlas.lab import grid, planting_rates
from headatlas.lab.calibrate import calibrate
from headatlas.lab.planting import plantings
from headatlas.lab.planting_rates import PlantingTally


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One planted model, one control, one of random weights, and a planting that is counted without a model."""
    cells = [cell for cell in grid.grid(quick=True) if cell.width == 128 and cell.half == "reported"]
    monkeypatch.setattr(calibrating, "grid", lambda *, quick: cells[:1])
    monkeypatch.setattr(calibrating, "controls", lambda quick: list(grid.controls(True))[:1])
    monkeypatch.setattr(calibrating, "chance", lambda quick: list(grid.chance(True))[:1])
    monkeypatch.setattr(
        calibrating, "plantings", lambda: {"one": dataclasses.replace(plantings()["induction"], detector="punctuation")}
    )
    counted = PlantingTally(scores=[1.0, 0.0], labels=[True, False], observed=[True, False])
    monkeypatch.setattr(planting_rates, "measure_planting", lambda one, seeds: counted)
    monkeypatch.setattr(calibrating, "_costs", lambda model, _, heads, *rest: dict.fromkeys(heads, 0.1))


class Killed(BaseException):
    """As if the program ended here."""


def killed_in(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(calibrating, part, deadly)


def test_it_goes_on_and_ends_in_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "page.md.measured"
    whole = calibrate(["punctuation"], quick=True)
    with monkeypatch.context() as patch:
        killed_in("_measure_chance", patch)
        with pytest.raises(Killed):
            calibrate(["punctuation"], quick=True, keep=place)
    parts = sorted(one.name for one in (tmp_path / "page.md.measured.partial" / "parts").iterdir())
    assert len(parts) == 3
    for done in ("_measured", "_measure_control", "_planting"):
        killed_in(done, monkeypatch)
    assert calibrate(["punctuation"], quick=True, keep=place) == whole
    assert not list(tmp_path.iterdir())


def test_what_other_settings_left_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place, said = tmp_path / "kept", []
    with monkeypatch.context() as patch:
        killed_in("_measure_control", patch)
        with pytest.raises(Killed):
            calibrate(["punctuation"], quick=True, keep=place)

    class Told(calibrating.Silent):
        def say(self, line: str) -> None:
            said.append(line)

    found = calibrate(["attention-sink"], quick=True, keep=place, progress=Told())
    assert [row["name"] for row in found["detectors"]] == ["attention-sink"]
    assert "differs in detectors" in said[0]


def test_a_damaged_part_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "kept"
    with monkeypatch.context() as patch:
        killed_in("_measure_control", patch)
        with pytest.raises(Killed):
            calibrate(["punctuation"], quick=True, keep=place)
    part = next(one for one in (tmp_path / "kept.partial" / "parts").iterdir() if "planted" in one.name)
    part.write_text(part.read_text().replace('"labels"', '"lables"'))
    with pytest.raises(StoreError, match="labels"):
        calibrate(["punctuation"], quick=True, keep=place)
