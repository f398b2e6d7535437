"""Finding, testing and comparing circuits from Python: one call each, with files, resuming and refusals."""

from dataclasses import replace

import pytest

import headatlas as ha
from headatlas.circuits.circuit import Circuit, parse_nodes
from headatlas.errors import BadInput, StoreError
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
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
    assert tests[0].faithfulness.recovered.value == pytest.approx(found.circuit.facts["recovered"])
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
