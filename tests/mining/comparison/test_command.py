"""`headatlas compare`: what it prints, its pages, its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas.mining.comparison.page import html, markdown, write_comparison
from tests.pages import run

TAG = "<script>window.hacked = 1</script> a|b"


@pytest.fixture(scope="module")
def pair(atlas: ha.Atlas, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run with one head made an induction head by hand, with a name that is no text for a page; and the run as it was."""
    changed = Path(shutil.copytree(atlas.run, tmp_path_factory.mktemp("changed") / "run"))
    rows = pq.read_table(changed / "examples.parquet").to_pylist()
    for row in rows:
        if (row["detector"], row["layer"], row["head"]) == ("induction", 1, 2):
            row |= {"score": 0.9 + 0.01 * row["example"], "control": 0.1}
    pq.write_table(pa.Table.from_pylist(rows), changed / "examples.parquet")
    data = json.loads((changed / "atlas.json").read_text())
    data["model"]["name"] = TAG
    (found,) = (one for one in data["detectors"] if one["name"] == "induction")
    found["heads"].append({"layer": 1, "head": 2, "verdict": "causal"})
    (changed / "atlas.json").write_text(json.dumps(data))
    return str(changed), str(atlas.run)


def test_what_changed_is_printed_and_decides_the_exit_code(pair, capsys):
    code, out, err = run(capsys, "compare", *pair)
    assert (code, err) == (0, "")
    assert "1 head changed from A to B" in out
    (line,) = (line for line in out.splitlines() if line.startswith("1.2"))
    assert line.split()[:3] == ["1.2", "induction", "lost"]
    assert "causal → –" in line
    assert [run(capsys, "compare", *pair, "--fail-over", str(n))[0] for n in (0, 1)] == [3, 0]
    assert run(capsys, "compare", pair[0], pair[0], "--fail-over", "0")[0] == 0
    code, out, _ = run(capsys, "compare", *reversed(pair))
    assert "gained" in next(line for line in out.splitlines() if line.startswith("1.2"))


def test_json_is_the_comparison(pair, capsys, tmp_path):
    code, out, _ = run(capsys, "compare", *pair, "--json", "--fail-over", "0", "--out", str(tmp_path / "c.json"))
    data = json.loads(out)
    assert code == 3
    assert data == json.loads((tmp_path / "c.json").read_text())
    assert (data["heads"], data["counts"]["lost"]) == (["1.2"], 1)
    (change,) = data["changes"]
    assert (change["id"], change["detector"], change["verdict_a"], change["verdict_b"]) == (
        "1.2",
        "induction",
        "causal",
        None,
    )
    assert change["low"] <= change["change"] <= change["high"] < 0


def test_pages_hold_the_changes_and_run_nothing(pair, tmp_path):
    found = ha.compare(*pair)
    page = html(found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('class="lost" title="1.2 lost"') == 1
    assert page.count("<td") == 8 + 7  # the map of heads, and one row
    text = markdown(found)
    assert "| 1.2 | induction | lost |" in text
    assert "a\\|b" in text
    for name, content in (("page.html", page), ("page.md", text)):
        write_comparison(found, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "page.pdf"], "'.pdf'"),
        (["--fail-over", "-1"], "few"),
        (["--detector", "inducton"], "induction"),
        (["--seed", "1"], "have their seed already"),
        (["--no-verdict"], "have their verdict already"),
    ],
)
def test_wrong_options_are_told_in_a_line(pair, capsys, words, said):
    code, out, err = run(capsys, "compare", *pair, *words)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_name_that_leads_nowhere_is_told_before_anything_is_loaded(pair, capsys, monkeypatch):
    monkeypatch.setattr("headatlas.model.load", None)
    for pair_of in ((pair[0], "smolm2-135m"), ("smolm2-135m", "smollm2-135m")):
        code, _, err = run(capsys, "compare", *pair_of)
        assert code == 1
        assert "Did you mean 'smollm2-135m'?" in err
