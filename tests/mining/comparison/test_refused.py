"""Runs that cannot be compared are refused in a line that says in what they differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas.errors import BadInput, HeadAtlasError, StoreError, UnknownName
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec


@pytest.fixture
def other(atlas: ha.Atlas, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(atlas.run, tmp_path / "other"))


def change(run: Path, file: str, **facts: Any) -> None:
    path = run / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"seed": 7}, r"seed \(0 and 7\)"),
        ({"n": 7}, r"n \(6 and 7\)"),
        ({"headatlas": "0.0.1"}, "headatlas"),
        ({"texts": {}}, "another texts"),
        ({"texts": None, "tokenizer": "f" * 16}, "another tokenizer"),
        ({"texts": None, "bos": "none"}, "another start token"),
        ({"tasks": {}}, "another version of its task"),
        ({"detectors": {}}, "another version"),
        ({"own": {"mine.py": "0"}}, "another own source"),
    ],
)
def test_runs_of_other_settings_are_refused(atlas, other, facts, word):
    change(other, "run.json", **facts)
    for pair in ((atlas.run, other), (other, atlas.run)):
        with pytest.raises(BadInput) as refused:
            ha.compare(*pair)
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match=word):
        ha.compare(atlas.run, other)


def test_other_tokenizers_that_read_the_same_texts_are_no_obstacle(atlas, other):
    change(other, "run.json", tokenizer="f" * 16)
    assert ha.compare(atlas.run, other).changes == ()


def test_models_of_other_shapes_are_refused(atlas, other, tmp_path):
    data = json.loads((other / "atlas.json").read_text())
    change(other, "atlas.json", model={**data["model"], "n_kv_heads": 1})
    with pytest.raises(BadInput, match="n_kv_heads"):
        ha.compare(atlas.run, other)
    one, two = (model_of(plant(PlantSpec(), n_layers=n)) for n in (1, 2))
    with pytest.raises(BadInput, match="n_layers 1 and 2"):  # before anything is mined
        ha.compare(one, two)


def test_a_run_beside_what_is_none_is_refused(atlas, tmp_path):
    with pytest.raises(BadInput, match="nowhere is none"):
        ha.compare(atlas.run, "nowhere")
    with pytest.raises(StoreError):
        ha.compare(atlas.run, tmp_path)
    with pytest.raises(BadInput, match="have their seed already"):
        ha.compare(atlas.run, atlas, seed=0)


def test_detectors_that_both_do_not_have_are_refused_by_name_and_otherwise_told(atlas, other):
    data = json.loads((other / "atlas.json").read_text())
    gone, *kept = data["detectors"]
    change(other, "atlas.json", detectors=kept)
    assert set(ha.compare(atlas.run, other).left_out) >= {gone["name"]}
    with pytest.raises(UnknownName, match=gone["name"]):
        ha.compare(atlas.run, other, [gone["name"]])
    change(other, "atlas.json", detectors=[])
    with pytest.raises(BadInput, match="no detector in common"):
        ha.compare(atlas.run, other)


def test_a_detector_that_draws_its_examples_by_the_model_is_left_out():
    from headatlas.detector import find_detector
    from headatlas.mining.comparison.runs import _is_paired

    assert not find_detector("vulnerable").paired
    assert [_is_paired(name) for name in ("vulnerable", "function-vector", "successor", "induction", "of-a-user")] == [
        False, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [slice(0, -1), slice(None, None, -1)])
def test_a_damaged_table_of_examples_is_refused(atlas, other, rows):
    table = pq.read_table(other / "examples.parquet").to_pylist()[rows]
    pq.write_table(pa.Table.from_pylist(table), other / "examples.parquet")
    with pytest.raises(HeadAtlasError, match="every head"):
        ha.compare(atlas.run, other)
