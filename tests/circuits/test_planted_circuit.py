"""A model whose circuit is known because we wrote its weights: induction, made of a head that looks back and one that matches."""

import pytest
import torch

import headatlas as ha
from headatlas.circuits.circuit import Circuit, Node
from headatlas.circuits.discover import discover
from headatlas.circuits.edges import measure_edges
from headatlas.circuits.evaluate import evaluate
from headatlas.circuits.knockout import Knockout, Protocol
from headatlas.heads import HeadId
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.model import attach
from headatlas.task import Batch, logit_difference

PREVIOUS, INDUCTION = HeadId(0, 1), HeadId(1, 2)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def planted(request) -> ha.Model:
    heads = (Head(0, 1, "previous"), Head(1, 2, "induction"))
    return attach(plant(PlantSpec(heads), architecture=request.param, n_layers=2, n_heads=4).model)


@pytest.fixture(scope="module")
def batch(planted) -> Batch:
    """... A B ... A: the answer is B; in the counterfactual A had not come before."""
    generator = torch.Generator().manual_seed(0)
    rows, others, answers, wrongs = [], [], [], []
    for _ in range(12):
        ids = (torch.randperm(150, generator=generator)[:18] + 60).tolist()
        *text, last, other = ids
        rows.append([*text[:6], last, *text[6:], last])
        others.append([*text[:6], other, *text[6:], last])
        answers.append(text[6])
        wrongs.append(text[10])
    tokens, source = torch.tensor(rows), torch.tensor(others)
    mask, end = torch.ones_like(tokens, dtype=torch.bool), torch.full((12,), tokens.shape[1] - 1)
    labels = {"answer": torch.tensor(answers), "wrong": torch.tensor(wrongs)}
    at = {"end": end}
    return Batch(tokens, mask, at, labels=labels, counterfactual=Batch(source, mask, at))


def test_the_planted_circuit_is_found(planted, batch):
    knockout = Knockout(planted, batch, logit_difference, Protocol("resample"))
    found = discover(knockout, target=0.9)
    assert found.reached
    assert {node.head for node in found.nodes} == {PREVIOUS, INDUCTION}


def test_it_is_faithful_complete_and_minimal(planted, batch):
    nodes = (Node(PREVIOUS), Node(INDUCTION))
    knockout = Knockout(planted, batch, logit_difference, Protocol("resample"))
    found = evaluate(Circuit("induction", "copying", nodes), knockout, draws=3)
    assert found.faithfulness.recovered.value == pytest.approx(1, abs=0.1)
    assert all(gap.share < 0.1 for gap in found.completeness)
    assert all(need.share > 0.3 for need in found.minimality)
    wrong = evaluate(Circuit("other", "copying", (Node(HeadId(0, 0)), Node(HeadId(1, 1)))), knockout, draws=3)
    assert wrong.faithfulness.recovered.value < 0.1


def test_the_message_goes_into_the_keys_and_on_to_the_logits(planted, batch):
    size = planted.layer(1).n_heads // planted.layer(1).n_groups
    found = path_patch(planted, batch, None, ["k:1.2", "q:1.2", "v:1.2", "logits"], group=size > 1)
    share = {(line.head, line.position[0]): line.share for line in found.summary()}
    assert share[PREVIOUS, "k"] < -0.8
    assert share[INDUCTION, "l"] < -0.8
    others = [abs(x) for key, x in share.items() if key not in ((PREVIOUS, "k"), (INDUCTION, "l")) and x == x]
    assert max(others) < 0.2
    edges, _ = measure_edges(planted, batch, [Node(PREVIOUS), Node(INDUCTION)], logit_difference)
    assert [(edge.sender, edge.receiver.kind) for edge in edges[:2]] in (
        [(PREVIOUS, "k"), (INDUCTION, "logits")],
        [(INDUCTION, "logits"), (PREVIOUS, "k")],
    )
