"""Trained toys as truth for detectors: heads by ablation beside what detectors name, births beside the drop of the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.calibrate import calibrate
from headatlas.lab.toy.truth import HeadTruth, SeedTruth, alone, rates, truth_in
from headatlas.lab.toys import find_study, train_toy
from headatlas.mining.timeline.lives import Drop


def test_a_head_alone_does_its_share_of_its_layers_work():
    variant = find_study("small-repeated").variants[0]
    model = variant.make(0).eval()

    def measure(seed):
        """A loss that is 1 without head 1.1, 0.25 more without head 1.0, and 0 else."""

        def loss(model):
            found = []
            hook = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(
                lambda _, inputs: found.append(inputs[0])
            )
            model(torch.zeros(1, 4, dtype=torch.long))
            hook.remove()
            off = [not bool(found[0][..., part].any()) for part in (slice(0, 24), slice(24, 48))]
            return {"late": 1.0 * off[1] + 0.25 * off[0]}

        return loss

    found = alone(model, replace(variant, measure=measure), "late", 0)
    assert found[HeadId(1, 1)] == 1 - 0.25 / 1.25
    assert found[HeadId(1, 0)] == 1 - 1.0 / 1.25
    assert found[HeadId(0, 0)] != found[HeadId(0, 0)]  # the layer costs nothing: no share of it


def test_a_birth_is_within_the_drop_or_not():
    def seed(low, high):
        head = HeadTruth(0, HeadId(1, 0), "induction", 0.9, True, low, high or low, low, high)
        return SeedTruth(0, (head,), Drop("repeated", "loss", 100, 300))

    assert seed(80, 120).born_in_drop
    assert seed(150, None).born_in_drop
    assert not seed(10, 50).born_in_drop
    assert not seed(400, 500).born_in_drop
    assert SeedTruth(0, (), None).born_in_drop is None


def test_rates_count_what_is_named_and_what_matters():
    def head(layer, number, detector, alone, passes):
        return HeadTruth(0, HeadId(layer, number), detector, alone, passes, 100, 120, 100, 120)

    toy = SeedTruth(
        0,
        (
            head(1, 0, "induction", 0.9, True), head(1, 1, "induction", 0.2, True), head(1, 2, "induction", 0.8, False),
            head(0, 0, "previous-token", 0.9, True), head(0, 1, "previous-token", float("nan"), True),
        ),
        Drop("repeated", "loss", 100, 300),
    )  # fmt: skip
    first, second = rates([toy])
    assert (first["named"], first["matter"], first["heads"]) == (2, 2, 3)
    assert (first["precision"], first["recall"], first["in_drop"]) == (0.5, 0.5, 1.0)
    assert (second["precision"], second["recall"], second["heads"], second["in_drop"]) == (1.0, 1.0, 1, None)
    assert rates([])[0]["precision"] is None


def test_a_folder_without_a_toy_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(BadInput, match="holds no trained toy"):
        calibrate(["local"], toys=[tmp_path])
    (tmp_path / "curve.json").write_text('{"schema": "headatlas/toy/1"}')
    with pytest.raises(BadInput, match="not of this version"):
        truth_in(tmp_path)
    train_toy("ngram", steps=1, out=tmp_path / "ngram")
    with pytest.raises(BadInput, match="no heads to switch off"):
        truth_in(tmp_path / "ngram")


def test_a_trained_folder_is_judged_as_its_model_is(tmp_path):
    toy = train_toy("small-repeated", steps=2, out=tmp_path / "toy")
    found = truth_in(tmp_path / "toy", n=4)
    assert found.seed == 0
    assert {(one.head, one.detector) for one in found.heads} == {
        (HeadId(layer, head), kind) for kind, layer in (("induction", 1), ("previous-token", 0)) for head in range(2)
    }
    worth = alone(toy.model, toy.study.variants[0], "late", 0)
    for one in found.heads:
        assert one.alone == pytest.approx(worth[one.head], nan_ok=True)
        assert not one.passes
