"""`headatlas verify`: rows of a board run again, on a model whose heads are known."""

import json
from pathlib import Path

import pytest

import headatlas as ha
from headatlas import catalogue
from headatlas.catalogue.files.boards import problems
from headatlas.catalogue.model_names import find_model
from headatlas.cli import main
from headatlas.errors import BadInput, UnknownName
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.mining.claims import verify as verifying
from headatlas.mining.claims.outcomes import claims_on, compare
from headatlas.mining.claims.replicate import facts_of
from headatlas.progress import Silent

CLAIM = "wang-2023-ioi-previous-token"


@pytest.fixture(scope="module")
def model():
    """Twelve layers of twelve heads, as the claims are on GPT-2 small, and a previous-token head where one is claimed."""
    heads = (Head(2, 2, "previous"), Head(4, 11, "previous"), Head(5, 1, "mover"))
    return model_of(plant(PlantSpec(heads, noise=0.03), n_layers=12, n_heads=12, width=192, vocab=128, context=128))


@pytest.fixture(scope="module")
def board(model, tmp_path_factory) -> Path:
    """The board of one claim that was measured, one that needs no run, and a third that no detector looks for."""
    folder = tmp_path_factory.mktemp("board")
    run = ha.mine(model, ["previous-token"], n=4, verdict=False, out=folder / "run")
    claims = [
        *claims_on("gpt2", CLAIM),
        *claims_on("gpt2", "wang-2023-ioi-size"),
        *claims_on("gpt2", "lan-2023-months"),
    ]
    facts = {"model": model.name, "known_as": "gpt2", "recognised_by": "as you say", **facts_of(run)}
    outcomes = [one.__class__(**{**vars(one), "run": facts}) for one in compare(claims, run.data)]
    ha.write_board(outcomes, folder / "board.md", by="A. Nother")
    return folder / "board.json"


def changed(board: Path, tmp_path: Path, **row) -> Path:
    """The board with another first row, or other facts of its run (run_...)."""
    data = json.loads(board.read_text())
    (one,) = data["models"]
    first = next(each for each in one["outcomes"] if each["claim"] == CLAIM)
    facts = {name.removeprefix("run_"): row.pop(name) for name in list(row) if name.startswith("run_")}
    first.update(row)
    for run in one["runs"].values():
        run.update(facts)
    (tmp_path / "other.json").write_text(json.dumps(data))
    return tmp_path / "other.json"


ROWS = {  # name -> what is other in a copy of the measured row; the answer to it, and words of the reason
    "as it was": ({}, "reproduced", "replicated here too, with 2 of 2 claimed heads"),
    "other versions": ({"versions": {"torch": "1.0"}}, "reproduced", "torch 1.0 there"),
    "other heads": (
        {"result": "weakened", "observed": ["2.2", "3.3"], "found": ["2.2"], "recall": 0.5},
        "differs",
        "replicated here, weakened there; 4.11 observed here, not there; 3.3 observed there, not here",
    ),
    "other claim": ({"claim": "nobody-1900"}, "not verifiable", "no such claim"),
    "other claimed": ({"claimed": ["2.2"], "found": ["2.2"]}, "not verifiable", "names other heads now"),
    "other detector": ({"detector": "induction"}, "not verifiable", "no detector 'induction' measures"),
    "no detector then": ({"detector": None, "recall": None}, "not verifiable", "is measured now, by"),
}


@pytest.fixture(scope="module")
def answers(board, model, tmp_path_factory) -> list[ha.Verification]:
    """What is said of copies of one row that are other in one thing each, and of the rows that need no run."""
    data = json.loads(board.read_text())
    (one,) = data["models"]
    measured = next(row for row in one["outcomes"] if row["claim"] == CLAIM)
    others = [row for row in one["outcomes"] if row["claim"] != CLAIM]
    one["outcomes"] = [*({**measured, **change} for change, _, _ in ROWS.values()), *others]
    file = tmp_path_factory.mktemp("rows") / "rows.json"
    file.write_text(json.dumps(data))
    return ha.verify(file, model=model)


@pytest.mark.parametrize("name", ROWS)
def test_each_row_gets_its_answer(answers, name):
    found, (_, result, words) = answers[list(ROWS).index(name)], ROWS[name]
    assert (found.result, words in found.reason) == (result, True), found.reason


def test_what_was_measured_here_is_reproduced_here(answers):
    first, rest = answers[0], answers[len(ROWS) :]
    assert first.now is not None
    assert first.now.found == ("2.2", "4.11")
    assert first.tolerance == pytest.approx(verifying.LEAST)  # a narrow model of float32 moves less than that
    assert {one.claim: (one.result, one.tolerance) for one in rest} == {
        "wang-2023-ioi-size": ("reproduced", None),  # nothing had to run
        "lan-2023-months": ("reproduced", None),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_sha256": "0" * 64}, "the row's have 000000000000"),
        ({"run_detectors": {"previous-token": [1, 0.99]}}, "is another one here"),
        ({"run_n": None}, "does not say n"),
    ],
)
def test_what_cannot_be_run_again_says_why(board, model, tmp_path, change, words):
    (found,) = ha.verify(changed(board, tmp_path, **change), claim=CLAIM, model=model)
    assert (found.result, words in found.reason) == ("not verifiable", True)


def test_other_texts_are_no_replication(board):
    (one,) = json.loads(board.read_text())["models"]
    (run,), row = one["runs"].values(), next(row for row in one["outcomes"] if row["claim"] == CLAIM)
    ran = {"name": "previous-token", "task": "repeated", "scores": [[0.0]], "heads": [], "untested": ""}
    atlas = {"model": {"stacks": ["decoder"]}, "detectors": [ran], "skipped": []}
    again = verifying._Again("gpt2", {**run, "texts": {"repeated": "then"}}, [row], None, None, "auto", Silent())
    found = again._of(row, (atlas, {"texts": {"repeated": "now"}}, 1e-4), "")
    assert (found.result, found.reason) == ("not verifiable", "the texts of repeated are others here (now, not then)")


def test_the_command_prints_answers_and_exits_with_3_where_one_differs(board, answers, monkeypatch, capsys):
    monkeypatch.setattr(ha, "verify", lambda *_, **__: answers)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(board)])
    told = capsys.readouterr().out
    assert ended.value.code == 3
    assert "9 rows: 4 reproduced, 1 differs, 4 not verifiable. Scores may differ by 0.0001 here." in told
    monkeypatch.setattr(ha, "verify", lambda *_, **__: [one for one in answers if one.result == "not verifiable"])
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(board)])
    assert ended.value.code == 4
    assert capsys.readouterr().out.endswith("4 rows: 4 not verifiable.\n")
    monkeypatch.setattr(ha, "verify", lambda *_, **__: answers)
    with pytest.raises(SystemExit):
        main(["verify", str(board), "--json"])
    assert [one["result"] for one in json.loads(capsys.readouterr().out)] == [one.result for one in answers]


def test_heads_at_the_bar_and_marginal_ones_may_turn():
    ran = {"scores": [[0.5, 0.30005, 0.1]], "chance": [[0.0, 0.1, 0.0]], "minimum_effect": 0.2, "heads": []}
    at_bar = verifying._at_the_bar(ran, "decoder", 1e-4)
    assert at_bar == {"0.1"}
    row = {"result": "replicated", "observed": ["0.0", "0.1"], "acting": []}
    now = compare([catalogue.load().claims["wang-2023-ioi-size"]], None)[0]
    now = now.__class__(**{**vars(now), "result": "replicated", "observed": ("0.0",), "acting": ("0.0",)})
    assert verifying._differing(row, now, ran, at_bar) == ["0.0 acting here, not there"]
    ran["heads"] = [{"layer": 0, "head": 0, "stack": "decoder", "marginal": True}]
    assert verifying._differing(row, now, ran, at_bar) == []
    assert verifying._differing(row, now, ran, set()) == ["0.1 observed there, not here"]


def test_files_that_are_no_board_are_refused(tmp_path):
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(BadInput, match="headatlas/replication/1"):
        ha.verify(tmp_path / "no.json")
    (tmp_path / "empty.json").write_text('{"schema": "headatlas/replication/1", "models": []}')
    with pytest.raises(UnknownName, match="no row of 'wang"):
        ha.verify(tmp_path / "empty.json", claim=CLAIM)


# ---- rows by pull request -------------------------------------------------------------------------------------------------
def handed_in(board: Path, tmp_path: Path, **row) -> list[str]:
    """What the check says of a board in the folder of rows, made as if on the model that the claims are on."""
    published = find_model("gpt2").sha256[0]
    row = {"run_known_as": None, "run_model": "gpt2", "run_recognised_by": "its Hub id", "run_sha256": published, **row}
    home = tmp_path / "data" / "replications"
    home.mkdir(parents=True)
    changed(board, tmp_path, **row).rename(home / "nother-gpt2.json")
    return [problem.wrong for problem in problems(catalogue.load(), tmp_path / "data")]


def test_a_row_with_its_hashes_is_taken(board, tmp_path):
    assert handed_in(board, tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_sha256": None}, "no sha256 of the weights"),
        ({"run_sha256": "0" * 64}, "not those published as GPT-2 small"),
        ({"run_texts": None}, "no hashes of the texts"),
        ({"run_versions": {"torch": "2"}}, "does not say the versions"),
        ({"run_seed": None}, "with which seed"),
        ({"run_recognised_by": "as you say", "run_known_as": "gpt2"}, "is said, not shown"),
        ({"run_model": "gpt2-medium"}, "the claim is on GPT-2 small, not on gpt2-medium"),
        ({"claim": "nobody-1900"}, "there is no such claim"),
        ({"head_type": "induction-head"}, "it is on previous-head"),
        ({"detector": "induction"}, "no detector 'induction' measures"),
        ({"found": ["2.2"]}, "found holds the heads that are both"),
        ({"recall": 0.9}, "recall is the share"),
        ({"acting": ["9.9"]}, "acting and refuted hold heads of found"),
        ({"result": "proved"}, "result is one of"),
        ({"notes": "<script>"}, "notes"),
    ],
)
def test_what_a_row_lacks_is_named(board, tmp_path, change, words):
    assert any(words in wrong for wrong in handed_in(board, tmp_path, **change))


def test_only_boards_belong_there(tmp_path):
    home = tmp_path / "replications"
    home.mkdir()
    (home / "README.md").write_text("how")
    (home / "rows.csv").write_text("")
    assert [problem.wrong for problem in problems(catalogue.load(), tmp_path)] == ["'rows.csv' is not a .json file."]
