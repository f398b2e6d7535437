"""Models of which part of the weights lies on disk: the same numbers, the same run, the same hash; and what cannot be is refused."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.mining.atlas_json import ModelFacts
from headatlas.mining.run import _model_identity
from headatlas.model import Model, attach
from headatlas.model.core.head_weights import of_layer
from headatlas.model.random_weights import untrained_twin, weight_shuffled
from headatlas.model.sources import placement
from headatlas.task import find_task
from tests import toys

SMALL = 100_000  # bytes: the largest module of the toy has about half of that


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=300, max_position_embeddings=160, num_hidden_layers=3), place)
    return place


@pytest.fixture(scope="module")
def whole(folder) -> Model:
    return ha.load(folder)


@pytest.fixture(scope="module")
def offloaded(folder) -> Model:
    return ha.load(folder, weight_memory=SMALL)


def test_weights_lie_on_disk_within_the_bound(offloaded: Model):
    held = {value.data_ptr(): value.nbytes for value in offloaded.hf.parameters() if not value.is_meta}
    away = [value for value in offloaded.hf.parameters() if value.is_meta]
    largest = max(placement._sizes(offloaded.hf, torch.float32))
    assert away
    assert sum(held.values()) + largest <= SMALL


def test_logits_weights_and_hashes_are_those_of_the_whole_model(whole: Model, offloaded: Model):
    batch = find_task("repeated")(whole.tokenizer, 3, 0)
    assert torch.equal(whole.forward(batch), offloaded.forward(batch))
    assert offloaded.sha256() == whole.sha256()
    assert offloaded.fingerprint() == whole.fingerprint()
    assert _model_identity(offloaded, ModelFacts.of(offloaded)) == _model_identity(whole, ModelFacts.of(whole))
    for a, b in zip(whole.layers, offloaded.layers, strict=True):
        assert torch.equal(a.output_weight(), b.output_weight())
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            assert torch.equal(getattr(of_layer(a), name), getattr(of_layer(b), name))
    assert whole.unembedding is not None
    assert offloaded.unembedding is not None
    assert torch.equal(whole.unembedding.weight, offloaded.unembedding.weight)


def test_runs_start_at_a_layer_without_reading_those_before(whole: Model, offloaded: Model):
    assert whole.restarts
    assert offloaded.restarts
    batch = find_task("repeated")(whole.tokenizer, 4, 0)
    one, other = (ha.ablate(model, batch, metric="next-token-loss").values for model in (whole, offloaded))
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def test_what_is_mined_is_what_the_whole_model_gives(whole: Model, offloaded: Model, tmp_path: Path):
    found = [
        ha.mine(model, tasks=["repeated"], n=4, out=tmp_path / name).data
        for name, model in (("a", whole), ("b", offloaded))
    ]
    one, other = ([{**part, "about": None} for part in data["detectors"]] for data in found)
    assert one == other


def test_models_made_of_weights_that_lie_elsewhere_are_refused(offloaded: Model):
    """Values written to such weights are lost: a shuffled copy would be the model itself."""
    for make in (untrained_twin, weight_shuffled):
        with pytest.raises(UnsupportedModel, match="all weights in memory"):
            make(offloaded.hf)


def test_a_weight_that_lies_nowhere_is_refused_not_hashed():
    hf = toys.llama()
    model = attach(hf)
    hf.model.layers[0].mlp.up_proj.to("meta")
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.mlp\.up_proj\.weight is nowhere"):
        model.fingerprint()


def test_copies_on_disk_go_with_the_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path))
    model = ha.load(folder, dtype="bfloat16", weight_memory=SMALL)
    (place,) = (tmp_path / "offloaded").iterdir()
    assert any(value.is_meta for value in model.hf.parameters())
    del model
    gc.collect()
    assert not place.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_memory": "lots"}, "not an amount of memory"),
        ({"weight_memory": 10_000}, r"one module of the model alone has [\d,]+"),
        ({"weight_memory": SMALL, "device": "meta"}, "device names one place"),
        ({"device_map": "magic"}, "'magic' is no device map"),
        ({"device_map": {"": "cuda:7"}}, "'cuda:7'"),
        ({"device_map": {"": "tpu"}}, "'tpu'"),
        ({"device_map": {"": "cpu"}, "weight_memory": SMALL}, "Leave one out"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder: Path, options, said):
    with pytest.raises(BadInput, match=said):
        ha.load(folder, **options)


def test_a_map_of_modules_says_what_lies_on_disk(folder: Path, whole: Model):
    places = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu",
              "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}  # fmt: skip
    model = ha.load(folder, device_map=places)
    away = {name.split(".")[2] for name, value in model.hf.named_parameters() if value.is_meta}
    assert away == {"1", "2"}
    batch = find_task("repeated")(whole.tokenizer, 3, 0)
    assert torch.equal(whole.forward(batch), model.forward(batch))
