"""Configurations that ask for more than the weight files hold are refused before anything of that size is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import headatlas as ha
from headatlas import edits
from headatlas.errors import BadInput, SourceError, StoreError, UnsupportedModel
from tests.model.source_files import save_llama


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_llama(tmp_path / "llama")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 20_000}, "says num_hidden_layers 20,000, where the weight files have 21 tensors"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers of more than 15 digits"),
        ({"hidden_size": 2**31}, "says hidden_size 2,147,483,648"),
        ({"parts": {"vocab_size": 2**40}}, "says parts.vocab_size 1,099,511,627,776"),
        ({"hidden_size": 10**6, "intermediate_size": 10**6}, "describes a model of"),
        ({"num_hidden_layers": "two"}, "cannot be read"),
        ({"rope_parameters": 3}, "llama"),
        ({"architectures": [0.5]}, "architectures that are no list of names"),
        ({"model_type": ["llama"]}, "model_type that is no text"),
    ],
)
def test_a_config_beyond_its_weights_is_refused(llama: Path, values: dict[str, object], said: str):
    change(llama / "config.json", **values)
    with pytest.raises(SourceError) as caught:
        ha.load(str(llama))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_architecture_is_a_model(llama: Path):
    change(llama / "config.json", architectures=["set_seed", "Trainer"])
    with pytest.raises(UnsupportedModel, match="no architecture set_seed"):
        ha.load(str(llama))


def test_a_long_context_of_a_tiny_model_is_no_fault(llama: Path):
    change(llama / "config.json", max_position_embeddings=10_485_760)
    assert ha.load(str(llama)).n_layers == 2


def test_shards_lie_in_the_folder(tmp_path: Path):
    folder = save_llama(tmp_path / "shards", shards=True)
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    change(index, weight_map={name: f"../{place}" for name, place in places.items()})
    with pytest.raises(SourceError, match="no plain names in its folder"):
        ha.load(str(folder))


def test_a_tokenizer_with_a_key_twice_is_refused(llama: Path):
    file = llama / "tokenizer.json"
    file.write_text('{"version": "1.0", ' + file.read_text()[1:])
    with pytest.raises(SourceError, match=r"tokenizer\.json of .*the key 'version' stands there twice"):
        ha.load(str(llama))


def test_edits_name_the_one_that_is_bad(tmp_path: Path):
    edits.save([edits.Zero("0.1"), edits.Temper("0.1", 0.5)], tmp_path / "edits")
    file = tmp_path / "edits" / "edits.json"
    data = json.loads(file.read_text())
    for values, said in (
        ({"heads": ["0.x"]}, "edits[1]: '0.x' is not a head"),
        ({"kind": "Explode"}, "there is no kind of edit 'Explode'"),
        ({"options": {"new": 1}}, "unexpected keyword argument 'new'"),
        ({"note": 1}, "edits[1].note is 1"),
    ):
        file.write_text(json.dumps({**data, "edits": [data["edits"][0], {**data["edits"][1], **values}]}))
        with pytest.raises(StoreError, match=r"edits\.json is damaged") as caught:
            edits.load_edits(tmp_path / "edits")
        assert said in str(caught.value)
    with pytest.raises(BadInput, match="Only finite numbers can be saved"):
        edits.save([edits.Temper("0.1", float("inf"))], tmp_path / "other")
    assert not (tmp_path / "other").exists()
