"""Methods that put hooks on a model's modules: another thread's plain calls do not feel them, nor do they disturb a method."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.apply.recipe.recipe import Recipe
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.attribution.edge_circuit import edges_alone
from headatlas.methods.attribution.edge_graph import Graph
from headatlas.methods.attribution.edge_patching import edge_effects
from headatlas.methods.attribution.relevance import relevances
from headatlas.methods.path_patching.frozen_run import Frozen
from headatlas.model import Model, attach
from headatlas.model.runs.token_embedding import embedded, queries_of, turned
from headatlas.task import logit_difference
from tests import toys
from tests.methods.sweeps.test_replay import prompts
from tests.model.core.passes import plain

BATCH = prompts(2, length=10)


@contextlib.contextmanager
def others_calling(model: Model) -> Iterator[list[torch.Tensor]]:
    """Whenever this thread's call comes to a block, another thread calls the plain model; yields what it was given."""
    me, given = threading.get_ident(), []

    def elsewhere(*_: object) -> None:
        if threading.get_ident() == me:
            with ThreadPoolExecutor(1) as pool:
                given.append(pool.submit(plain, model.hf).result(60))

    places = [part for layer in model.layers for part in (layer.block, layer.projection)]
    handles = [part.register_forward_pre_hook(elsewhere) for part in places]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


def kept_edges(model: Model) -> Any:
    graph = Graph(model)
    return edges_alone(model, BATCH, [logit_difference], graph, [graph.edges()[::2]])


def some_edges(model: Model) -> Any:
    graph = Graph(model)
    return edge_effects(model, BATCH, logit_difference, graph, graph.edges()[::40])


def tuned(model: Model) -> torch.Tensor:
    head = ha.HeadId(1, 2)
    facts = {"architecture": model.architecture, "weights": model.sha256()}
    recipe = Recipe("nasa", query={head: torch.ones(8, 32)}, facts=facts)
    with recipe.on(model) as hf:
        return plain(hf)


METHODS: dict[str, Callable[[Model], Any]] = {
    "embedded": lambda model: embedded(model, torch.arange(5, 9)),
    "turned": lambda model: turned(model, model.layers[1], 3),
    "queries": lambda model: queries_of(model, model.layers[1], torch.ones(3, 32), 2),
    "direct effects": lambda model: ha.direct_effects(model, BATCH).values,
    "lens": lambda model: ha.head_lens(model, BATCH, torch.tensor([5, 6])).raised,
    "edge scores": lambda model: edge_scores(model, BATCH, logit_difference)[1],
    "edge effects": some_edges,
    "kept edges": kept_edges,
    "relevance": lambda model: list(relevances(model, BATCH, logit_difference)[0].values()),
    "frozen": lambda model: Frozen.of(model, BATCH, torch.tensor([[5], [6]]), mlps=True).mlp[1],
    "tuned queries": tuned,
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_and_the_plain_model_in_another_thread(name: str):
    model = attach(toys.llama())
    truth, alone = plain(model.hf), METHODS[name](model)
    with others_calling(model) as given:
        beside = METHODS[name](model)
    assert given
    assert all(torch.equal(one, truth) for one in given)
    for one, other in zip(*(x if isinstance(x, list | tuple) else [x] for x in (beside, alone)), strict=True):
        np.testing.assert_array_equal(one, other)
