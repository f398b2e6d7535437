"""Detectors of the whole model that look on at the scan's pass find what they find in passes of their own."""

import math

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors import attention_span
from headatlas.detectors import cspa as suppression
from headatlas.errors import UnsupportedModel
from headatlas.mining.scan import scan
from headatlas.model.core.model import Model
from headatlas.model.runs import residual_stream, shared_pass
from headatlas.task import Batch, next_token_loss
from tests import toys

RIDING = ("attention-span", "inactive", "cspa", "nop-sink", "broadcast-sink")
LAYERED = ("attention-sink", "local")


def text(n: int = 5, length: int = 30, left: int = 0) -> Batch:
    tokens = torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))
    predict = torch.arange(8, length - 1).expand(n, -1)
    control = Batch(tokens.flip(1), torch.ones_like(tokens, dtype=torch.bool), {"predict": predict})
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": predict}, control=control)
    return batch.padded(left=left) if left else batch


@pytest.fixture
def passes(monkeypatch) -> list[bool]:
    """Whether gradients were recorded, for each pass that is made."""
    made, forward = [], Model.forward

    def counting(self, *given, **options):
        made.append(options.get("grad", False))
        return forward(self, *given, **options)

    monkeypatch.setattr(Model, "forward", counting)
    return made


def asked(model, batch, monkeypatch):
    """The detectors, of which cspa asks some heads whatever their weights are."""
    monkeypatch.setattr(suppression, "_suppressing", lambda *_: [model.heads[1], model.heads[-1]])
    return [find_detector(name) for name in (*LAYERED, *RIDING)]


@pytest.mark.parametrize("kind", ["gqa", "gpt2"])
@pytest.mark.parametrize("left", [0, 3])
def test_scores_are_those_of_passes_of_their_own(kind, left, passes, monkeypatch):
    model, batch, size = toys.model(kind), text(left=left), 2
    detectors = asked(model, batch, monkeypatch)
    passes.clear()  # those that open a model are not ours
    found = scan(model, detectors, batch, metric=next_token_loss, size=size)
    pieces = math.ceil(len(batch) / size)
    # A look at how the model is put together, then each piece and its control once.
    assert passes == [False, *[True, False] * pieces]
    for name in RIDING:
        wanted = find_detector(name).measure(model, batch)
        for got, own in zip((found.scores[name].values, found.scores[name].control), wanted, strict=True):
            np.testing.assert_allclose(got, own, atol=1e-4, rtol=1e-3)
    assert np.ptp(found.scores["attention-span"].values) > 0
    assert np.ptp(found.scores["cspa"].values) > 0


def test_what_else_the_scan_finds_is_the_same_with_and_without_them(monkeypatch):
    model, batch = toys.model("gqa"), text()
    detectors = asked(model, batch, monkeypatch)
    beside = scan(model, detectors, batch, metric=next_token_loss, size=2)
    plain = scan(model, detectors[: len(LAYERED)], batch, metric=next_token_loss, size=2)
    for name in LAYERED:
        np.testing.assert_allclose(beside.scores[name].values, plain.scores[name].values, atol=1e-6)
    np.testing.assert_allclose(beside.metric, plain.metric, atol=1e-5)
    np.testing.assert_allclose(beside.floor, plain.floor, atol=1e-5)
    for key, mean in plain.mean_z.items():
        torch.testing.assert_close(beside.mean_z[key], mean, atol=1e-6, rtol=1e-5)


def test_a_scan_without_a_metric_reads_what_they_want_and_no_control(passes):
    model, batch = toys.model("gqa"), text()
    span = find_detector("attention-span")
    passes.clear()
    found = scan(model, [span], batch, size=2, mean_z=False)
    assert passes == [True] * 3
    assert found.metric is None
    np.testing.assert_allclose(found.scores["attention-span"].values, span.measure(model, batch).values, atol=1e-6)


def test_a_scan_in_which_nobody_looks_on_makes_no_pass(passes):
    model, batch = toys.model("gqa"), text()
    passes.clear()
    scan(model, [], batch, size=2, mean_z=False)
    assert passes == []


@pytest.mark.parametrize("when", ["beginning", "looking", "passed", "slopes"])
def test_one_that_refuses_says_why_and_leaves_the_others_alone(when, monkeypatch):
    model, batch = toys.model("gqa"), text()
    detectors = asked(model, batch, monkeypatch)

    def refuse(*_):
        raise UnsupportedModel("not this one")

    if when == "beginning":
        monkeypatch.setattr(attention_span, "_Spans", refuse)
    elif when == "looking":
        monkeypatch.setattr(attention_span._Spans, "_watch", refuse)
    elif when == "passed":
        monkeypatch.setattr(attention_span, "_profiles", refuse)
    else:
        monkeypatch.setattr(shared_pass, "slopes_of", refuse)
    found = scan(model, detectors, batch, metric=next_token_loss, size=2)
    assert "not this one" in found.refused["attention-span"]
    assert "attention-span" not in found.scores
    np.testing.assert_allclose(
        found.scores["inactive"].values, find_detector("inactive").measure(model, batch).values, atol=1e-5
    )


def test_parts_that_do_not_add_up_stop_their_detector_and_not_the_pass(monkeypatch):
    """The blocks are taken apart by hooks inside the model, where an error would end the pass of all."""
    model, batch = toys.model("gqa"), text()
    detectors = asked(model, batch, monkeypatch)
    monkeypatch.setattr(residual_stream, "rounding_tolerance", lambda *_: torch.tensor(-1.0))
    found = scan(model, detectors, batch, metric=next_token_loss, size=2)
    assert "do not add up" in found.refused["cspa"]
    assert set(found.scores) == {*LAYERED, *RIDING} - {"cspa"}
