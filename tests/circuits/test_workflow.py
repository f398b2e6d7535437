"""Finding, testing and comparing circuits from Python: one call each, with files, resuming and refusals."""

from dataclasses import replace

import pytest

import headatlas as ha
from headatlas.circuits.circuit import Circuit, Node, parse_nodes
from headatlas.circuits.discover import halves, recovered
from headatlas.circuits.knockout import Knockout, Protocol
from headatlas.errors import BadInput, StoreError
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder

ZERO = ha.KnockoutOptions("resample")


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


@pytest.fixture(scope="module")
def batch() -> ha.Batch:
    found = prompts(4)
    return replace(found, counterfactual=replace(found.counterfactual, mask=found.mask))


def test_a_circuit_is_found_kept_tested_and_compared(toy, batch, tmp_path):
    told, out = Recorder(), tmp_path / "c.json"
    found = ha.find_circuit(
        toy, batch, target=0.8, largest=4, edges=True, knockout=ZERO, options=ha.RunOptions(out=out), progress=told
    )
    assert found.held_out is None  # a batch of one's own has no further prompts to draw
    assert Circuit.load(out).nodes == found.circuit.nodes
    assert 1 <= len(found.circuit.nodes) <= 4
    assert (found.circuit.facts["largest"], found.circuit.facts["edges"]) == (4, True)
    assert set(told.steps) == {"edges"}
    assert any("recover" in line for line in told.lines)
    with pytest.raises(StoreError, match="exists already"):
        ha.find_circuit(toy, batch, knockout=ZERO, options=ha.RunOptions(out=out))
    tests = [ha.test_circuit(toy, which, batch, criteria="none", knockout=ZERO) for which in (out, found.circuit)]
    assert tests[0].faithfulness == tests[1].faithfulness
    facts = found.circuit.facts
    assert facts["stability"]["drawn"] == "other halves of the prompts"
    assert [str(head) for head in found.circuit.heads] == facts["stability"]["heads"][0]
    assert facts["mib"]["recovered"][-1] == pytest.approx(1)  # all heads are the whole model
    overlap = ha.compare_circuits(out, replace(found.circuit, nodes=parse_nodes("0.0@end")))
    assert overlap["heads"]["second"] == 1


def test_positions_are_named_as_text_or_one_by_one(toy, batch):
    given = {"largest": 2, "target": 0.5, "knockout": ZERO}
    text = ha.find_circuit(toy, batch, positions="end middle", **given).circuit
    names = ha.find_circuit(toy, batch, positions=["end", "middle"], **given).circuit
    assert text.nodes == names.nodes
    assert text.facts["id"] == names.facts["id"]
    assert {node.position for node in text.nodes} <= {"end", "middle"}


def test_a_test_of_a_circuit_is_written_with_what_decided_it(toy, batch, tmp_path):
    out = tmp_path / "t.json"
    found = ha.test_circuit(
        toy, "0.1 1.2@end", batch, criteria=["completeness"], draws=1, knockout=ZERO, options=ha.RunOptions(out=out)
    )
    assert found.minimality is None
    assert found.completeness
    data = found.data()
    assert (data["run"]["kind"], data["run"]["reference"]) == ("circuit", 200)
    assert out.exists()


def test_circuits_of_other_models_are_refused(toy, batch):
    other = Circuit("x", "y", parse_nodes("0.1"), model="another")
    with pytest.raises(BadInput, match="a circuit of another"):
        ha.test_circuit(toy, other, batch)


def test_a_rival_has_no_more_heads_and_is_measured_like_the_circuit(toy, batch):
    options = ha.SearchOptions(seeds=1, rival="eap-ig")
    found = ha.find_circuit(toy, batch, largest=4, knockout=ZERO, options=options).circuit
    rival = found.facts["rival"]
    assert "stability" not in found.facts
    assert 0 < len(rival["heads"]) <= len(found.heads)
    bench = Knockout(toy, batch, logit_difference, Protocol("resample"))
    _, rows = halves(len(batch))
    theirs, mine = recovered(bench, [parse_nodes(rival["heads"]), [Node(head) for head in found.heads]], rows)
    assert rival["recovered"]["value"] == pytest.approx(theirs.value)
    assert rival["recovered_by_the_circuit_everywhere"]["value"] == pytest.approx(mine.value)


def test_searches_and_rivals_are_asked_for_in_words():
    for options, text in (({"seeds": 0}, "0 searches find nothing"), ({"rival": "acdc"}, "not compared with 'acdc'")):
        with pytest.raises(BadInput, match=text):
            ha.SearchOptions(**options)
