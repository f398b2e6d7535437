"""What commands print on a terminal of 80 columns: nothing wider, no word broken inside."""

import pytest

import headatlas
from headatlas.report.atlas_view import read, summary
from tests.pages import run
from tests.report import synthetic


@pytest.mark.parametrize("what", ["detectors", "tasks", "models", "head-types", "methods"])
def test_lists_fit_80_columns_and_break_no_word(what, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "list", what)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    words = set(out.split())
    for row in headatlas.list_known(what):
        text = " ".join(str(row.get(key) or "") for key in ("name", "what", "operation", "title"))
        if what != "head-types":
            assert set(text.split()) <= words, row["name"]
        assert row["name"] in words


def test_replications_break_no_claim(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, "replicate", "openai-community/gpt2", "--claim", "no-such-claim")
    assert (code, out) == (1, "")
    assert "no-such-claim" in err


def test_a_run_without_verdicts_does_not_say_that_heads_change_nothing():
    data = synthetic.atlas() if hasattr(synthetic, "atlas") else None
    if data is None:
        pytest.fail("tests.report.synthetic has no atlas()")
    for entry in data["detectors"]:
        for row in entry["heads"]:
            row.update(verdict="untested", works="", effect=None)
    told = summary(read(data))
    assert "was not tested" in told
    assert "switching" not in told
