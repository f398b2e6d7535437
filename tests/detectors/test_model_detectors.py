"""Detectors that need the whole model go through the same mill as those of one layer."""

from dataclasses import replace

import numpy as np
import torch

import headatlas as ha
from headatlas.detector import Measured, ModelDetector, model_detector
from headatlas.errors import UnsupportedModel
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.scan import scan
from headatlas.tasks.repeated import repeated
from tests import toys


def _first_head(model, batch) -> Measured:
    """Made up: 1 for the first head of the first layer, 0 for others.

    Formula: none. Chance: 0.
    """
    values = torch.zeros(len(batch), len(model.heads))
    values[:, 0] = 1.0
    return Measured(values, torch.zeros_like(values))


def made(**options) -> ModelDetector:
    return model_detector(head_type="induction-head", task=repeated, version=1, minimum_effect=0.5, **options)(
        _first_head
    )


def test_a_model_detector_is_scored_beside_layer_detectors():
    model = toys.model("gqa")
    batch = repeated(model.tokenizer, 8, seed=0)
    detector = made()
    assert (detector.name, detector.encoder, detector.about["chance"]) == ("first-head", False, "0.")
    found = scan(model, [detector], batch).scores["first-head"]
    assert [line.head for line in found.observed(detector.minimum_effect)] == [model.heads[0]]


def test_removal_at_named_positions_leaves_the_others_alone():
    model = toys.model("mha")
    batch = repeated(model.tokenizer, 4, seed=0)
    found = scan(model, [], batch, metric=repeated.metric)
    heads = model.heads[:2]
    nowhere = torch.full((len(batch), 1), -1)
    everywhere = torch.arange(batch.tokens.shape[1]).expand(len(batch), -1)
    effects = [
        ablated(model, batch, repeated.metric, found.mean_z, where).metric_drop(heads)
        for where in (None, everywhere, nowhere, everywhere[:, :4])
    ]
    np.testing.assert_allclose(effects[0], effects[1], atol=1e-5)
    np.testing.assert_allclose(effects[2], 0.0, atol=1e-6)
    assert np.abs(effects[0] - effects[3]).max() > 1e-4


def test_a_detector_that_a_model_cannot_be_asked_is_skipped_with_the_reason(monkeypatch, tmp_path):
    def refusing(model, batch) -> Measured:
        raise UnsupportedModel("Its blocks cannot be taken apart.", "Ask another model.")

    asked = made()
    monkeypatch.setattr("headatlas.mining.planning.detectors", lambda: {asked.name: replace(asked, measure=refusing)})
    atlas = ha.mine(toys.model("gqa"), n=4, out=tmp_path / "run")
    assert atlas.data["detectors"] == []
    assert atlas.data["skipped"] == [
        {"detector": "first-head", "reason": "Its blocks cannot be taken apart. Ask another model."}
    ]
