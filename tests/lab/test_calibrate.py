"""The quick calibration grid: planted heads are told apart, controls stay quiet."""

import re

import pytest

import headatlas
from headatlas.detector import Detector, detectors
from headatlas.errors import BadInput
from headatlas.lab import calibrate as calibrating
from headatlas.lab import calibration_page as page
from headatlas.lab import grid
from headatlas.lab.calibrate import calibrate
from headatlas.lab.spec import kinds
from tests.pages import run

NAMES = ["induction", "induction-copy", "previous-token", "positional", "duplicate-token", "punctuation"]


def few_cells(patch: pytest.MonkeyPatch) -> None:
    """Of the quick grid the seeds that are reported, and of its planted models one or two of each shape."""
    patch.setattr(grid, "seeds", lambda quick: grid.QUICK)
    patch.setattr(calibrating, "_sown_seeds", lambda quick: grid.QUICK)
    every = grid.grid(quick=True)
    dear = [cell for cell in every if cell.width > 128 and cell.strength < 1]
    patch.setattr(calibrating, "grid", lambda *, quick: [cell for cell in every if cell not in dear])


@pytest.fixture(scope="module", params=["few cells", pytest.param("quick grid", marks=pytest.mark.slow)])
def quick(request: pytest.FixtureRequest):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "few cells":
            few_cells(patch)
        return calibrate(NAMES, quick=True)


def test_detectors_of_attention_patterns_tell_planted_heads_apart(quick):
    for found in quick["detectors"]:
        assert found["auc"] >= 0.99, found["name"]
        assert found["precision"] >= 0.95, found["name"]
        assert found["recall"] >= 0.9, found["name"]
        assert found["positives"] >= 3
        assert found["negatives"] >= 50


def test_false_discoveries_on_controls_stay_below_one_percent(quick):
    for found in quick["detectors"]:
        assert found["control_heads"] >= 90
        assert found["false_discovery"] < 0.01, found["name"]


def test_p_values_are_not_small_more_often_than_they_say(quick):
    for found in quick["detectors"]:
        for what, rates in found["chance"].items():
            assert rates["heads"] >= 60, (found["name"], what)
            assert rates["p<0.05"] <= 0.06, (found["name"], what)
            assert rates["p<0.01"] <= 0.015, (found["name"], what)


def test_the_fake_induction_head_is_seen_through(quick):
    found = {row["name"]: row for row in quick["detectors"]}
    assert found["induction"]["fake_observed"] == 1.0
    assert found["induction-copy"]["fake_observed"] == 0.0
    assert found["induction"]["fake_causal"] == 0.0
    assert found["induction"]["fake_group"] == 0.0
    assert found["induction"]["verdict_precision"] >= 0.95
    assert found["induction"]["refuted_precision"] >= 0.95


def test_scores_rise_with_real_strength(quick):
    for found in quick["detectors"]:
        shares = [row[0] for row in found["curve"]]
        means = [row[1] for row in found["curve"]]
        if len(shares) > 2:
            assert means[-1] > means[0], found["name"]
        if found["name"] == "induction":  # its targets are the detector's own, so score and share agree
            assert all(abs(mean - share) < 0.1 for share, mean in zip(shares, means, strict=True))


def test_the_screen_fits_80_columns_and_breaks_no_word(quick, capsys, monkeypatch):
    monkeypatch.setattr(headatlas, "calibrate", lambda *_, **__: quick, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, "calibrate", "--quick")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    numbers = {word.strip(",") for word in out.split()}
    for row in [*page.rows(quick), *page.sown_rows(quick)]:
        assert {part for cell in row for part in cell.split()} <= numbers
    assert "precision" in numbers


def test_the_page_says_what_was_measured(quick):
    text = page.markdown(quick, "headatlas calibrate --quick", "calibration.svg")
    assert text.count("| induction |") == 5  # with those of plantings
    assert "## Plantings" in text
    assert text.count("| duplicate-token |") == 5
    assert "punctuation" not in text.split("Uncalibrated")[1]
    drawn = re.findall(r'<g id="scores-([a-z-]+)">(.*?)\n   </g>', page.svg(quick), re.S)
    dots = {name: part.count("<use ") for name, part in drawn}
    assert dots == {found["name"]: len(found["curve"]) for found in quick["detectors"]}


def test_a_calibration_of_plantings_alone_has_a_picture_without_panels():
    assert "<svg" in page.svg({"detectors": []})


def test_detectors_name_kinds_that_exist():
    for detector in detectors().values():
        assert set(detector.finds) | set(detector.undecided) <= set(kinds())
        assert not set(detector.finds) & set(detector.undecided)


def test_a_detector_without_planted_kind_or_planting_is_refused(monkeypatch):
    monkeypatch.setattr(Detector, "has_planting", property(lambda self: False))
    with pytest.raises(BadInput, match="uncalibrated"):
        calibrate(["rare-words"], quick=True)
