"""The Mechanistic Interpretability Benchmark: its two areas against sums done by hand, and its files read and written."""

import json

import pytest

import headatlas as ha
from headatlas.circuits.circuit import Circuit, Edge, parse_nodes
from headatlas.circuits.mib import SHARES, Shape, mib_data, read_mib
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import Receiver

SMALL = Shape(2, 2, 8)


def test_the_areas_are_those_of_trapezoids():
    # From 0.5 to 1 the mean of 0 and 1, from 1 to 2 the mean of 1 and 3; beside 1: 1 and 0, then 0 and 2.
    assert ha.cpr_and_cmd([0.5, 1, 2], [0, 1, 3]) == pytest.approx((0.25 + 2.0, 0.25 + 1.0))
    perfect = ha.cpr_and_cmd(SHARES, [1.0] * len(SHARES))
    assert perfect == pytest.approx((0.999, 0.0))
    with pytest.raises(BadInput, match="rising size"):
        ha.cpr_and_cmd([0.5, 0.5], [0, 1])


def test_the_graph_of_gpt2_has_the_benchmarks_edges():
    data = ha.convert_circuit("ioi", shape="12x12x768")
    assert (len(data["nodes"]), len(data["edges"])) == (
        158,
        32491,
    )  # as in the benchmark's example, circuits/ioi-eap-ig.json
    assert list(data["nodes"])[:2] == ["input", "a0.h0"]
    assert sum(part["in_graph"] for name, part in data["nodes"].items() if name.startswith("a")) == 26
    assert data["edges"]["a9.h9->logits"]["in_graph"]
    assert data["edges"]["a8.h6->a9.h9<q>"]["in_graph"]
    assert not data["edges"]["a8.h6->a9.h9<v>"]["in_graph"]  # the paper has no such edge
    assert "a9.h9->a9.h6<q>" not in data["edges"]


def test_attention_and_mlp_side_by_side_have_no_edge_between_them():
    circuit = Circuit("c", "ioi", parse_nodes("0.1"))
    assert "a0.h1->m0" in mib_data(circuit, SMALL)["edges"]
    assert "a0.h1->m0" not in mib_data(circuit, SMALL._replace(parallel_attn_mlp=True))["edges"]


def test_a_circuit_comes_back_from_the_benchmarks_file(tmp_path):
    edges = (Edge(HeadId(0, 1), Receiver("k", (HeadId(1, 0),)), -0.25), Edge(HeadId(1, 0), Receiver("logits"), 0.5))
    circuit = Circuit("c", "ioi", parse_nodes("0.1 1.0"), edges, facts={"shape": SMALL._asdict()})
    ha.convert_circuit(circuit, tmp_path / "mib.json")
    back = read_mib(tmp_path / "mib.json", task="ioi")
    assert back.nodes == circuit.nodes
    assert {(edge.key, edge.effect) for edge in back.edges} == {(edge.key, edge.effect) for edge in edges}
    ours = tmp_path / "ours.json"
    ha.convert_circuit(tmp_path / "mib.json", ours, task="ioi", known_as="gpt2")
    assert (Circuit.load(ours).task, Circuit.load(ours).model) == ("ioi", "gpt-2-small")
    assert ha.compare_circuits(tmp_path / "mib.json", ours)["heads"]["jaccard"] == 1.0
    with pytest.raises(BadInput, match="no built-in task"):
        ha.circuit_prompts(tmp_path / "mib.json")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"cfg": {"n_layers": 2}}, StoreError, "n_heads"),
        ({"nodes": {"a7.h0": {"in_graph": True}}}, BadInput, "no part 'a7.h0'"),
        ({"nodes": {"a0.h0": {"in_graph": False, "score": 0.3}}}, BadInput, "no circuit"),
        ({"edges": {"a0.h0=>m1": {"in_graph": True, "score": 0.1}}}, BadInput, "is not an edge"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(change, error, text, tmp_path):
    good = {"cfg": SMALL._asdict(), "nodes": {"a0.h0": {"in_graph": True}}, "edges": {}}
    file = tmp_path / "mib.json"
    file.write_text(json.dumps(good))
    assert len(read_mib(file).nodes) == 1
    file.write_text(json.dumps({**good, **change}))
    with pytest.raises(error, match=text):
        ha.compare_circuits(file, file)


def test_what_a_conversion_needs_is_asked_for(tmp_path):
    with pytest.raises(BadInput, match="does not say the shape"):
        ha.convert_circuit("ioi")
    with pytest.raises(BadInput, match=r"no head 0\.10"):
        ha.convert_circuit("ioi", shape="2x2x8")
    with pytest.raises(BadInput, match="is no shape"):
        ha.convert_circuit("ioi", shape="12 layers")
    with pytest.raises(BadInput, match="are for files of MIB"):
        ha.convert_circuit("ioi", task="ioi")
    with pytest.raises(UnknownName, match="no circuit called"):
        ha.convert_circuit("ioy")
