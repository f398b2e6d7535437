"""Claims of papers beside what detectors observe, on a model whose heads are known."""

import json

import pytest

import headatlas as ha
from headatlas import catalogue
from headatlas.catalogue.schema import Claim
from headatlas.cli import main
from headatlas.errors import BadInput, UnknownName
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.mining.claims import outcomes as replication

CLAIM = next(
    one for one in catalogue.load().claims.values() if one.head_type == "induction-head" and one.hub_id == "gpt2"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    heads = (Head(0, 0, "previous"), Head(1, 1, "induction"), Head(2, 2, "induction"), Head(2, 0, "mover"))
    model = model_of(plant(PlantSpec(heads, noise=0.03), architecture="llama", n_layers=3, vocab=256, context=160))
    folder = tmp_path_factory.mktemp("run") / "planted"
    return ha.mine(model, ["induction"], n=8, verdict=False, out=folder)


def claim(heads: list[str], head_type: str = "induction-head") -> Claim:
    return CLAIM.model_copy(
        update={"id": "made-up", "head_type": head_type, "heads": [{"head": head} for head in heads]}
    ).model_validate(
        {**CLAIM.model_dump(), "id": "made-up", "head_type": head_type, "heads": [{"head": h} for h in heads]}
    )


def outcome(run, *args, **options):
    return {found.detector: found for found in replication.compare([claim(*args, **options)], run.data)}["induction"]


def test_a_claim_that_names_the_planted_heads_is_replicated(run):
    found = outcome(run, ["1.1", "2.2"])
    assert (found.result, found.recall, found.precision) == ("replicated", 1.0, 1.0)
    assert found.found == ("1.1", "2.2")
    # Two of twelve drawn at random are these two in one of 66 cases.
    assert found.p == pytest.approx(1 / 66)


def test_a_claim_that_names_other_heads_is_not_replicated(run):
    found = outcome(run, ["2.0", "1.1", "0.0"])
    assert (found.result, found.found) == ("not replicated", ("1.1",))
    assert found.recall == pytest.approx(1 / 3)
    assert found.precision == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("heads", "head_type", "word"),
    [
        ([], "induction-head", "names no heads"),
        (["1.1"], "gender-head", "no detector of gender-head"),
        (["30.1"], "induction-head", "no head 30.1"),
        (["1.1"], "duplicate-head", "mine it with --detector duplicate-token"),
    ],
)
def test_what_cannot_be_compared_says_why(run, heads, head_type, word):
    outcomes = replication.compare([claim(heads, head_type)], run.data)
    assert outcomes
    reasons = {found.reason for found in outcomes if found.detector in (None, "induction", "duplicate-token")}
    assert {found.result for found in outcomes if found.detector in (None, "induction", "duplicate-token")} == {
        "not testable"
    }
    assert any(word in reason for reason in reasons)


def test_claims_are_found_by_every_name_of_their_model_and_by_no_other():
    wanted = {one.id for one in replication.claims_on("gpt2")}
    assert CLAIM.id in wanted
    assert wanted == {one.id for one in replication.claims_on("openai-community/gpt2")}
    assert not any(one.hub_id == "gpt2-medium" for one in replication.claims_on("gpt2"))
    with pytest.raises(BadInput, match="no claim on heads of"):
        replication.claims_on("some/other-model")
    with pytest.raises(BadInput, match="not on gpt2-medium"):
        replication.claims_on("gpt2-medium", CLAIM.id)
    with pytest.raises(UnknownName, match="no claim 'nobody"):
        replication.claims_on("gpt2", "nobody-1900")


def test_without_the_checkpoint_every_claim_says_what_is_missing(monkeypatch, capsys):
    from headatlas.errors import SourceError

    def refuse(*_, **__):
        raise SourceError("The Hub cannot be reached.")

    monkeypatch.setattr("headatlas.model.load", refuse)
    with pytest.raises(SystemExit) as ended:
        main(["replicate", "gpt2", "--claim", CLAIM.id, "--json"])
    assert ended.value.code == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert {found["result"] for found in outcomes} == {"not testable"}
    assert all("cannot be had: The Hub cannot be reached." in found["reason"] for found in outcomes)


def test_a_run_on_another_model_is_refused(run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["replicate", "gpt2", "--claim", CLAIM.id, "--atlas", str(run.run)])
    assert ended.value.code == 1
    assert "not on gpt2" in capsys.readouterr().err
