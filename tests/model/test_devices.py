"""Nothing is made on the default device while a pass runs, whatever it runs for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import headatlas as ha
from headatlas.detector import LayerDetector, detectors
from headatlas.model import Model, attach
from headatlas.task import find_task
from tests import toys
from tests.model.devices import on_the_default_device

IOI = ha.Prompts("ioi", n=2, force=True)
CALLS: dict[str, Callable[[Model], object]] = {
    "zero": lambda m: ha.ablate(m, IOI, heads="1.*"),
    "mean": lambda m: ha.ablate(m, IOI, heads="1.*", edit="mean"),
    "resample": lambda m: ha.ablate(m, IOI, heads="1.*", edit="resample"),
    "patch": lambda m: ha.patch(m, IOI, heads="1.*"),
    "path": lambda m: ha.path_patch(m, IOI, senders="0.*"),
    "direct": lambda m: ha.attribute(m, IOI, method="direct"),
    "atp": lambda m: ha.attribute(m, IOI, method="atp"),
    "eap": lambda m: ha.attribute(m, IOI, method="eap"),
    "eap-ig": lambda m: ha.edge_scores(m, find_task("ioi")(m.tokenizer, 2), find_task("ioi").metric, steps=2),
    "lens": lambda m: ha.head_lens(m, "The cat sat", heads="1.*"),
    "flow": lambda m: ha.flow(m, "The cat sat on the mat"),
    "importance": lambda m: ha.head_importance(m, IOI),
    "lrp": lambda m: ha.head_importance(m, IOI, method="lrp"),
    "attention": lambda m: m.attention("The cat sat", "1.0"),
    "predict": lambda m: m.predict("The cat sat"),
    "ask": lambda m: ha.ask(m, "The cat sat on the mat"),
    "downstream": lambda m: ha.downstream(m, "The cat sat on the mat", "1.0"),
    "protected groups": lambda m: ha.protected_groups(m, n=1),
    "lags": lambda m: ha.recall_by_lag(m),
}


@pytest.fixture(scope="module")
def model() -> Model:
    sizes = {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 36}
    return attach(toys.llama(vocab_size=49152, **sizes), tokenizer=toys.smollm2_vocabulary())


@pytest.mark.parametrize("name", CALLS)
def test_methods(name: str, model: Model, monkeypatch: pytest.MonkeyPatch):
    with on_the_default_device(monkeypatch) as places:
        CALLS[name](model)
    assert places == set()


@pytest.mark.parametrize(
    "name", [name for name, one in detectors().items() if isinstance(one, LayerDetector) and one.causal]
)
def test_detectors(name: str, model: Model, monkeypatch: pytest.MonkeyPatch):
    detector = detectors()[name]
    batch = detector.task(model.tokenizer, 2, 0)
    with on_the_default_device(monkeypatch) as places:
        model.forward(batch, watch=lambda layer: detector.score(layer, batch))
        if detector.control is not None:
            model.forward(batch, watch=lambda layer: detector.control(layer, batch))
    assert places == set()


def test_the_check_sees_one(model: Model, monkeypatch: pytest.MonkeyPatch):
    """A detector that makes a tensor on the default device, as if it stood in the package."""
    code = compile(
        "def watch(layer):\n    torch.zeros(3)\n    torch.zeros(3, device=layer.q.device)\n",
        f"{ha.__path__[0]}/made_up.py",
        "exec",
    )
    space: dict[str, object] = {"torch": torch}
    exec(code, space)
    with on_the_default_device(monkeypatch) as places:
        model.forward("The cat sat", watch=space["watch"])
        torch.zeros(3)  # outside of a pass
    assert places == {"made_up.py:2 torch.zeros"}
