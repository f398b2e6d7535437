"""What commands print on a terminal of 80 columns: nothing wider, no word broken inside."""

import pytest

import headatlas
from headatlas import report
from headatlas.mining.claims.outcomes import Outcome
from headatlas.report.atlas_view import read, summary
from tests.pages import run
from tests.report import synthetic


@pytest.mark.parametrize("what", ["detectors", "tasks", "models", "head-types", "methods", "interventions"])
def test_lists_fit_80_columns_and_break_no_word(what, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "list", what)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    words = set(out.split())
    for row in headatlas.list_known(what):
        text = " ".join(str(row.get(key) or "") for key in ("name", "what", "operation"))
        assert set(text.split()) <= words, row["name"]
        assert row["name"] in words


def test_replications_fit_80_columns_and_break_no_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    reason = "the heads that the paper names are observed by no detector of this head type on this model at all"
    one = Outcome(
        "olsson-2022-gpt2-anchor-of-a-long-name", "duplicate-head", "", "duplicate-token", "replicated", reason,
        recall=0.75, precision=0.5, p=1e-9,
    )  # fmt: skip
    monkeypatch.setattr(headatlas, "replicate", lambda *_, **__: [one], raising=False)
    code, out, err = run(capsys, "replicate", "openai-community/gpt2")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert {one.claim, "duplicate-token,", "replicated,", "1e-09", *reason.split()} <= set(out.split())


def test_a_run_without_verdicts_does_not_say_that_heads_change_nothing():
    data = synthetic.atlas()
    for entry in data["detectors"]:
        for row in entry["heads"]:
            row.update(verdict="untested", works="", effect=None)
    told = summary(read(data))
    assert "was not tested" in told
    assert "switching" not in told


def test_a_detector_that_is_undefined_everywhere_gets_words_and_no_empty_picture():
    data = synthetic.atlas()
    entry = data["detectors"][0]
    assert f'data-thumbnail="{0}"' in report.html(data)
    entry["scores"] = [[[None] * len(row) for row in rows] if isinstance(rows[0], list) else [None] * len(rows)
                       for rows in entry["scores"]]  # fmt: skip
    entry["heads"] = []
    page = report.html(data)
    assert 'data-thumbnail="0"' not in page
    assert 'data-thumbnail="1"' in page
    assert "Undefined on these prompts" in page
