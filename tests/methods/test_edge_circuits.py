"""Circuits of edges, alone: all edges are the prompt's run, none the counterfactual's, and what lies between against other ways to it."""

from dataclasses import replace

import numpy as np
import pytest

from headatlas.circuits.circuit import Node
from headatlas.circuits.edge_pruning import RankedEdges, edge_curve
from headatlas.circuits.knockout import Knockout, Protocol, State
from headatlas.errors import BadInput
from headatlas.methods.attribution.edge_circuit import edges_alone
from headatlas.methods.attribution.edge_graph import Graph
from headatlas.methods.attribution.edge_patching import edge_effects
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from headatlas.task.answers import hit_at
from tests.methods.sweeps.test_replay import prompts


def plain(model, batch) -> np.ndarray:
    """The metric of a whole run on `batch`, as the prompts want it scored."""
    scored = prompts(2, length=10)
    logits = model.forward(batch, logit_positions=logit_difference.positions(scored)).detach()
    return logit_difference.score(logits, scored).numpy()


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "falcon", "llama", "gemma3", "olmo2", "granite", "phi"])
def test_all_none_and_all_but_one_edge_are_runs_that_are_known(name):
    model, batch = attach(FAMILIES[name].build()), prompts(2, length=10)
    graph = Graph(model)
    every = graph.edges()
    picks = [every[int(i)] for i in np.random.default_rng(0).choice(len(every), 4, replace=False)]
    circuits = [every, [], *([edge for edge in every if edge != pick] for pick in picks)]
    whole, none, *without = edges_alone(model, batch, [logit_difference], graph, circuits)[0]
    np.testing.assert_allclose(whole, plain(model, batch), atol=2e-5)
    np.testing.assert_allclose(none, plain(model, batch.counterfactual), atol=2e-5)
    effects = edge_effects(model, batch, logit_difference, graph, picks, direction="noising").T
    np.testing.assert_allclose(np.stack(without) - whole, effects, atol=3e-5)
    assert np.abs(effects).max() > 1e-2


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox"])
def test_heads_without_edges_are_heads_that_are_resampled(name):
    model, batch = attach(FAMILIES[name].build()), prompts(2, length=10)
    graph, heads = Graph(model), [model.heads[i] for i in (1, 6, 10)]
    gone = {i for i, writer in enumerate(graph.writers) if writer.name in map(str, heads)}
    assert len(gone) == 3
    kept = [edge for edge in graph.edges() if edge[0] not in gone]
    found = edges_alone(model, batch, [logit_difference], graph, [kept])[0, 0]
    bench = Knockout(model, batch, logit_difference, Protocol("resample"))
    expected = bench(State(None, frozenset(map(Node, heads))))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected - bench(State(None))).max() > 1e-2


def test_few_examples_at_once_give_the_same(monkeypatch):
    model, batch = attach(FAMILIES["llama"].build()), prompts(3, length=10)
    graph = Graph(model)
    circuits = [graph.edges()[::2], graph.edges()[::3]]
    asked = [logit_difference, hit_at(10)]
    whole = edges_alone(model, batch, asked, graph, circuits)
    monkeypatch.setattr("headatlas.methods.attribution.edge_circuit.CHUNK", 1)
    np.testing.assert_allclose(edges_alone(model, batch, asked, graph, circuits), whole, atol=2e-5)


def test_the_curve_ends_at_the_whole_model_and_counts_hits():
    model, batch = attach(FAMILIES["llama"].build()), prompts(4, length=10)
    graph = Graph(model)
    scores = np.arange(len(graph.edges()), dtype=float)
    ranked = RankedEdges(graph, scores)
    assert ranked.first(0.01) == graph.edges()[::-1][: int(0.01 * len(scores))]
    curve = edge_curve(model, batch, logit_difference, ranked)
    assert curve.recovered[-1] == pytest.approx(1)
    assert curve.edges[-1] == len(scores)
    logits = model.forward(batch, logit_positions=logit_difference.positions(batch)).detach()
    ranks = (logits[:, 0] > logits[:, 0].gather(1, batch.labels["answer"].reshape(len(batch), -1)[:, :1])).sum(1)
    assert curve.hits[-2] == pytest.approx(float((ranks < 10).float().mean()))
    same = batch.rows([0, 1])
    with pytest.raises(BadInput, match="same metric as the prompts"):
        edge_curve(model, _without_difference(same), logit_difference, ranked)


def _without_difference(batch):
    return replace(batch, counterfactual=replace(batch, counterfactual=None, labels={}))
