"""Circuit files, overlaps, and the circuits of the literature."""

import json

import pytest

from headatlas import catalogue
from headatlas.circuits.circuit import Circuit, Edge, Node, parse_nodes
from headatlas.circuits.compare import compare
from headatlas.circuits.published import from_catalogue, published
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import Receiver
from tests import toys


def example() -> Circuit:
    nodes = parse_nodes("9.6@end 9.9@end 5.5@s2 0.1")
    edges = (Edge(HeadId(5, 5), Receiver.parse("v:8.6@s2"), -0.25, 0.01), Edge(HeadId(9, 6), Receiver("logits")))
    roles = {nodes[0]: "name-mover", nodes[1]: "name-mover", nodes[2]: "induction"}
    return Circuit("mine", "ioi", nodes, edges, roles, "gpt2", {"n": 32})


def test_a_circuit_is_saved_and_read_back(tmp_path):
    example().save(tmp_path / "c.json")
    read = Circuit.load(tmp_path / "c.json")
    assert read.data() == example().data()
    assert set(read.nodes) == set(example().nodes)
    assert read.classes == {"name-mover": parse_nodes("9.6@end 9.9@end"), "induction": parse_nodes("5.5@s2")}
    assert read.heads == (HeadId(0, 1), HeadId(5, 5), HeadId(9, 6), HeadId(9, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "other/1"}, "not a headatlas/circuit/1 file"),
        ({"nodes": []}, "has no heads"),
        ({"nodes": [{"head": "9.x"}]}, "'9.x' is not a head"),
        ({"nodes": [{"at": "end"}]}, "lacks nodes[0].head"),
        ({"nodes": 3}, "nodes is 3, expected: a valid list"),
        ({"nodes": [{"head": "9.6"}, {"head": "9.6", "at": "end"}]}, "everywhere and at a position"),
        ({"edges": [{"sender": "9.6", "receiver": "w:1.1"}]}, "is not a receiver"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, change, text):
    (tmp_path / "c.json").write_text(json.dumps({**example().data(), **change}))
    with pytest.raises(StoreError, match=r"c\.json") as caught:
        Circuit.load(tmp_path / "c.json")
    assert text in str(caught.value)


def test_nodes_read_as_written():
    assert str(Node.parse("L9H6@end")) == "9.6@end"
    assert parse_nodes("9.6, 9.6 9.9@s2") == (Node(HeadId(9, 6)), Node(HeadId(9, 9), "s2"))
    for text in ("9", "9.6@", "@end"):
        with pytest.raises(BadInput):
            Node.parse(text)
    with pytest.raises(BadInput, match="no part of it"):
        Circuit("x", "ioi", parse_nodes("9.6"), roles={Node(HeadId(1, 1)): "odd"})


def test_overlaps_count_heads_nodes_and_edges():
    other = Circuit("other", "ioi", parse_nodes("9.6@end 9.9@s2 3.3"), (Edge(HeadId(9, 6), Receiver("logits")),))
    found = compare(other, example())
    assert found["heads"] == {
        "first": 3, "second": 4, "common": 2, "jaccard": 2 / 5, "precision": 2 / 3, "recall": 2 / 4,
    }  # fmt: skip
    assert found["nodes"] == {
        "first": 3, "second": 4, "common": 1, "jaccard": 1 / 6, "precision": 1 / 3, "recall": 1 / 4,
    }  # fmt: skip
    assert (found["edges"]["common"], found["edges"]["recall"]) == (1, 1 / 2)
    assert (found["common"], found["only_found"], found["only_reference"]) == (["9.6", "9.9"], ["3.3"], ["0.1", "5.5"])
    with pytest.raises(BadInput, match="other heads there"):
        compare(example(), Circuit("far", "ioi", parse_nodes("0.1"), model="pythia"))
    assert compare(example(), from_catalogue("ioi"))["heads"]["common"] == 4  # gpt2 is one of its model's names
    alone = compare(Circuit("a", "ioi", parse_nodes("0.1")), Circuit("b", "ioi", parse_nodes("0.1")))
    assert alone["edges"] == {
        "first": 0, "second": 0, "common": 0, "jaccard": None, "precision": None, "recall": None,
    }  # fmt: skip


def test_the_ioi_circuit_is_the_papers():
    circuit = from_catalogue("ioi")
    assert len(circuit.nodes) == 26
    assert {role: len(nodes) for role, nodes in circuit.classes.items()} == {
        "previous-token": 2, "duplicate-token": 3, "induction": 4, "s-inhibition": 4, "name-mover": 3,
        "backup-name-mover": 8, "negative-name-mover": 2,
    }  # fmt: skip
    assert {str(node) for node in circuit.classes["previous-token"]} == {"2.2@s1_next", "4.11@s1_next"}
    assert {str(node) for node in circuit.classes["name-mover"]} == {"9.6@end", "9.9@end", "10.0@end"}
    keys = {edge.key for edge in circuit.edges}
    assert (HeadId(8, 6), Receiver.parse("q:9.9@end")) in keys
    assert (HeadId(2, 2), Receiver.parse("k:5.5@s2")) in keys
    assert (HeadId(10, 7), Receiver("logits")) in keys


def test_published_circuits_are_refused_for_other_models():
    with pytest.raises(BadInput, match="found in GPT-2 small"):
        published("ioi", toys.model("gpt2"))
    with pytest.raises(UnknownName, match="ioi"):
        published("ioy", toys.model("gpt2"))
    silent = [c.id for c in catalogue.load().circuits.values() if not any(node.heads for node in c.nodes)]
    for name in silent[:1]:
        with pytest.raises(BadInput, match="names no heads"):
            published(name, toys.model("gpt2"))
