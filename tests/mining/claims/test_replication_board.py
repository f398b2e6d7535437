"""The board of replications, which model a copy is, and the proof: IOI's seven classes found where Wang et al. found them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import headatlas as ha
from headatlas.catalogue import model_names
from headatlas.catalogue.model_names import find_model, identity_key, model_key, same_model
from headatlas.circuits.circuit import parse_nodes
from headatlas.circuits.knockout import WHOLE, Knockout, Protocol, State
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.lab.grid import model_of
from headatlas.mining.claims.outcomes import Outcome, compare
from headatlas.model.recognise import recognise
from headatlas.tasks.ioi import ioi
from tests import toys
from tests.mining.claims.ioi_at_gpt2 import CLASSES, ioi_at_gpt2

CLAIM = "wang-2023-ioi-name-mover"


@pytest.mark.parametrize(
    "names",
    [
        ("GPT-2 small", "gpt2", "openai-community/gpt2", "GPT2-small", "gpt-2-small", "openai-community/gpt2@main",
         "openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"),
        ("Pythia-2.8B", "Pythia 2.8B", "EleutherAI/pythia-2.8b", "pythia-2.8b", "PYTHIA 2.8b"),
        ("BERT-base (uncased)", "bert-base-uncased", "google-bert/bert-base-uncased"),
        ("GPT-J-6B", "EleutherAI/gpt-j-6b", "GPT-J"),
    ],
)  # fmt: skip
def test_every_way_of_writing_a_model_means_it(names):
    assert len({identity_key(name) for name in names}) == 1
    assert find_model(names[0]) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt2", "gpt2-medium"), ("Pythia-2.8B", "Pythia-28B"), ("Llama-3.1-8B", "Llama-3-1.8B"),
        ("Llama-2-7B", "Llama-2-7b-chat"), ("EleutherAI/pythia-1b", "EleutherAI/pythia-1b-deduped"),
        ("EleutherAI/pythia-1b", "EleutherAI/pythia-1b@step1000"), ("gpt2", "somebody/gpt2"),
        ("bert-base-uncased", "bert-base-cased"), ("an unknown one", "another unknown one"),
    ],
)  # fmt: skip
def test_other_checkpoints_are_other_models(one, other):
    assert not same_model(one, other)
    assert same_model(one, one)


def test_every_claim_is_reached_by_every_name_of_its_model():
    from headatlas import catalogue

    known = catalogue.load()
    reached = 0
    for claim in known.claims.values():
        shape = find_model(claim.hub_id or claim.model)
        for name in (shape.id, *shape.names, *shape.hub_ids) if shape is not None else ():
            assert identity_key(name) == model_names.model_of(claim), (claim.id, name)
            reached += 1
    assert reached > 500
    keys = [model_key(name) for shape in known.shapes.values() for name in (shape.id, *shape.names, *shape.hub_ids)]
    owners = {key: find_model(key) for key in keys}
    assert len({shape.id for shape in owners.values()}) == len(known.shapes)  # none hides another


def test_a_copy_is_known_by_its_weights_and_by_nothing_else(monkeypatch):
    source = SimpleNamespace(kind="folder", name="gpt2", sha256="a" * 64)
    copy = SimpleNamespace(source=source, name="gpt2", sha256=lambda: "a" * 64)
    assert recognise(copy) is None  # a folder may be called anything
    gpt2 = find_model("gpt2")
    monkeypatch.setattr(
        model_names, "load", lambda: SimpleNamespace(shapes={"x": gpt2.model_copy(update={"sha256": ["a" * 64]})})
    )
    assert recognise(copy)[1:] == ("GPT-2 small", "its weights")
    copy.sha256 = lambda: "b" * 64  # changed in memory
    assert recognise(copy) is None


def test_what_is_said_of_a_copy_must_fit_it():
    model = toys.model("gpt2")
    with pytest.raises(BadInput, match="is not gpt2: it has 2 layers of 4 heads, GPT-2 small has 12 of 12"):
        ha.replicate(model, known_as="gpt2")
    with pytest.raises(BadInput, match="Nothing says which model"):
        ha.replicate(model)
    with pytest.raises(UnknownName, match="knows no model called 'gpt-two'"):
        ha.replicate(model, known_as="gpt-two")


# ---- results and the board ------------------------------------------------------------------------------------------------
def atlas(verdicts: dict[str, str]) -> dict:
    """A run of the detector of name movers on twelve layers of twelve heads, with these heads observed."""
    heads = [{"layer": int(h.split(".")[0]), "head": int(h.split(".")[1]), "stack": "decoder", "verdict": v}
             for h, v in verdicts.items()]  # fmt: skip
    found = {"name": "name-mover", "scores": np.zeros((12, 12)).tolist(), "heads": heads, "untested": "", "task": "ioi"}
    return {"model": {"stacks": ["decoder"]}, "detectors": [found], "skipped": []}


@pytest.mark.parametrize(
    ("verdicts", "result", "words"),
    [
        ({"9.9": "causal", "9.6": "group", "10.0": "refuted"}, "replicated", "3 of 3 claimed heads observed; 2 of 3 judged act"),
        ({"9.9": "untested", "9.6": "untested"}, "replicated", "2 of 3 claimed heads observed"),
        ({"9.9": "refuted", "9.6": "refuted"}, "weakened", "0 of 2 judged act when removed"),
        ({"9.9": "causal"}, "weakened", "only 1 of 3 claimed heads observed; 1 of 1 judged act"),
        ({f"{i}.0": "causal" for i in range(12)}, "not replicated", "only 1 of 3"),
        ({"0.0": "causal"}, "not replicated", "only 0 of 3"),
    ],
)  # fmt: skip
def test_a_claim_is_replicated_weakened_or_not(verdicts, result, words):
    from headatlas import catalogue

    (found,) = compare([catalogue.load().claims[CLAIM]], atlas(verdicts))
    assert (found.result, words in found.reason) == (result, True)
    assert found.low <= found.recall <= found.high


def outcome(claim: str = CLAIM, **changes) -> Outcome:
    facts = {"model": "mine", "known_as": "gpt2", "n": 8, "seed": 0, "sha256": "c" * 64, "versions": {"headatlas": "9"}}
    one = Outcome(claim, "name-mover-head", "", "name-mover", "weakened", "a | b", ("9.9",), ("9.9",), ("9.9",), 1.0, 1.0,
                  0.01, 0.2, 1.0, run=facts, command="headatlas replicate mine --as gpt2")  # fmt: skip
    return replace(one, **changes)


def test_the_board_grows_by_claims_and_models(tmp_path):
    page = tmp_path / "board.md"
    ha.write_board([outcome(), outcome("wang-2023-ioi-size", detector=None, recall=None, low=None)], page)
    ha.write_board([outcome(result="replicated")], page)
    other = outcome("mcdougall-2023-l10h7")
    ha.write_board([replace(other, run={**other.run, "model": "gpt2-medium", "known_as": None})], page)
    data = json.loads(page.with_suffix(".json").read_text())
    assert data["schema"] == "headatlas/replication/1"
    assert [(one["key"], [(row["claim"], row["result"]) for row in one["outcomes"]]) for one in data["models"]] == [
        ("catalogue:gpt-2-medium", [("mcdougall-2023-l10h7", "weakened")]),
        ("catalogue:gpt-2-small in mine", [(CLAIM, "replicated"), ("wang-2023-ioi-size", "weakened")]),
    ]
    text = page.read_text()
    assert "## mine, taken to be gpt2 on its user's word" in text
    assert "| 9.9 of 9.9 | 100% (20% to 100%) | a \\| b | `headatlas replicate mine --as gpt2` |" in text
    with pytest.raises(BadInput, match=r"ends in \.md"):
        ha.write_board([outcome()], tmp_path / "board.html")
    page.with_suffix(".json").write_text("{}")
    with pytest.raises(StoreError, match="headatlas/replication/1"):
        ha.write_board([outcome()], page)


# ---- the proof --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def planted() -> ha.Model:
    return model_of(ioi_at_gpt2())


@pytest.mark.slow
def test_each_class_acts_at_its_addresses(planted):
    batch = ioi(planted.tokenizer, 8, 1)
    bench = Knockout(planted, batch, ioi.metric, Protocol("resample"))
    worth = lambda kept, removed="": bench(State(kept, frozenset(parse_nodes(removed)))).mean()  # noqa: E731
    whole, movers = worth(None), CLASSES["name-mover"][0]
    assert bench(WHOLE).min() > 0
    for name, (heads, _, _) in CLASSES.items():
        if name == "negative-name-mover":
            assert worth(None, heads) > whole + 1  # it argues against the answer
        elif name != "backup-name-mover":
            assert worth(None, heads) < whole - 3
    assert worth(None, f"{movers} {CLASSES['backup-name-mover'][0]}") < worth(None, movers) - 3
    every = parse_nodes(" ".join(heads for heads, _, _ in CLASSES.values()))
    assert worth(frozenset(every)) == pytest.approx(whole, rel=0.1)


@pytest.mark.slow
def test_the_claims_on_gpt2_are_replicated_in_a_model_planted_like_it(planted, tmp_path):
    """Four inhibition heads are claimed and one is planted: so much is said as weakened."""
    names = ["previous-token", "duplicate-token", "induction", "s-inhibition", "name-mover", "backup-name-mover",
             "negative-name-mover"]  # fmt: skip
    run = ha.mine(planted, names, n=16, checks="none", out=tmp_path / "run")
    found = {(one.claim, one.detector): one for one in ha.replicate(planted, atlas=run.run, known_as="gpt2")}
    for name in names:
        one = found[f"wang-2023-ioi-{name}", name]
        assert one.result == ("weakened" if name == "s-inhibition" else "replicated"), one
        assert set(one.found) <= set(CLASSES[name][0].split())
        assert one.acting or name in (
            "previous-token",
            "duplicate-token",
            "induction",
        )  # no repeated text is predicted here
        assert not one.refuted
    assert found["gould-2024-gpt2", "successor"].reason.startswith("the run has no successor")
