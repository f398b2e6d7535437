"""Files within bounds: what each reader refuses, in which words, and what of before is still read."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas import reading, store
from headatlas.errors import BadInput, SourceError, StoreError
from headatlas.reading import Source
from tests.fuzz.mutations import npy

RUNS = Path(__file__).parents[1] / "mining" / "runs.zip"


class Part(reading.Record):
    layer: reading.Layer
    score: reading.Number = None


class Whole(reading.Record):
    name: reading.Name
    parts: list[Part] = []  # noqa: RUF012


def refused(path: Path, content: str | bytes, kind: type = StoreError) -> str:
    """What is said of a JSON file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(kind, match=path.name) as caught:
        reading.read_json(Source(path, "Do this.", kind))
    text = str(caught.value)
    assert text.endswith("Do this.")
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"b": {"a": 1, "c": {}, "a": 2}}', "the key 'a' stands there twice"),
        ('{"a": NaN}', "NaN is no JSON number; what is not defined is written as null"),
        ('{"a": -Infinity}', "Infinity is no JSON number"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
        ("[1]", "not a JSON object"),
        ("", "not JSON"),
        ("[" * 100_000, "nested more than 32 deep"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"a": ' + "[]," * 2_000_001, "more than 2,000,000 lists"),
        (b'{"a": "\xe9"}', "not UTF-8 text (byte 7 is 0xe9)"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_bad_json_is_named(tmp_path: Path, content: str | bytes, said: str):
    assert said in refused(tmp_path / "x.json", content)


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "pipe", "is not a file"),
        (tmp_path, "directory"),
        (tmp_path / "no", "No such file"),
    ):
        with pytest.raises(SourceError, match=said):
            reading.read_json(Source(path, error=SourceError))
    (tmp_path / "x.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(StoreError, match="more than 1 MB"):
        reading.read_json(Source(tmp_path / "x.json", largest=1 << 20))


def test_a_byte_order_mark_and_huge_whole_numbers_are_read(tmp_path: Path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1e99, "b": 123456789012345678901}')
    assert reading.read_json(Source(tmp_path / "x.json")) == {"a": 1e99, "b": 123456789012345678901}
    (tmp_path / "x.json").write_text('{"a": [0.0, Infinity]}')
    assert reading.read_json(Source(tmp_path / "x.json"), constants=True) == {"a": [0.0, float("inf")]}


def test_a_number_that_is_not_defined_is_null_in_files_and_nan_in_memory(tmp_path: Path):
    store.write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 0.5]})
    assert store.read_json(tmp_path / "x.json") == {"a": None, "b": [None, 0.5]}
    assert np.isnan(np.array([None, 0.5], dtype=np.float64)[0])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "it lacks name"),
        ({"name": ""}, "name is '', expected: at least 1 character"),
        ({"name": 3}, "name is 3, expected: a valid string"),
        ({"name": "x", "parts": 3}, "parts is 3, expected: a valid list"),
        (
            {"name": "x", "parts": [{"layer": 1}, {"layer": 10**7}]},
            "parts[1].layer is 10000000, expected: less than 4096",
        ),
        ({"name": "x", "parts": [{"layer": -1}]}, "parts[0].layer is -1, expected: greater than or equal to 0"),
        ({"name": "x", "parts": [{"layer": True}]}, "parts[0].layer is True, expected: a valid integer"),
        ({"name": "x", "parts": [{"layer": 1, "score": "1"}]}, "parts[0].score is '1', expected: a valid number"),
        (
            {"name": "x", "parts": [{"layer": 1, "score": float("inf")}]},
            "parts[0].score is inf, expected: a finite number",
        ),
        ({"name": "x", "parts": [{}, {}]}, "it lacks parts[0].layer (1 more fault"),
        ([], "its value is a list of 0"),
    ],
)
def test_a_schema_names_the_place_and_what_was_expected(value, said: str):
    with pytest.raises(StoreError) as caught:
        reading.checked(value, Whole, Source(Path("x.json"), "Do this."))
    assert said in str(caught.value)
    assert str(caught.value).startswith("x.json is damaged: ")


def test_defaults_are_filled_in_and_unknown_keys_are_told_and_kept():
    value = {"name": "x", "parts": [{"layer": 1, "later": 2}], "new": 3}
    with pytest.warns(UserWarning, match=r"x\.json has keys .* does not know .*: new, parts\.later\."):
        found = reading.checked(value, Whole, Source(Path("x.json")))
    assert found == {"name": "x", "parts": [{"layer": 1, "score": None, "later": 2}], "new": 3}
    assert reading.checked({"a": {"layer": 0}}, dict[str, Part], Source(Path("x"))) == {
        "a": {"layer": 0, "score": None}
    }


def test_files_of_a_newer_version_are_told_from_others():
    source = Source(Path("x.json"), "Do this.")
    reading.demand_schema({"schema": "headatlas/atlas/1"}, "headatlas/atlas/1", source)
    with pytest.raises(StoreError, match=r"of a newer headatlas than this\. Update headatlas"):
        reading.demand_schema({"schema": "headatlas/atlas/2"}, "headatlas/atlas/1", source)
    for other in ({}, [], {"schema": 2}, {"schema": "other/2"}):
        with pytest.raises(StoreError, match="is not a headatlas/atlas/1 file"):
            reading.demand_schema(other, "headatlas/atlas/1", source)


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_arrays_are_read_as_they_were_written(tmp_path: Path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((3, 2), dtype=np.float32)),
        "c": np.zeros((0, 4)),
    }
    store.write_arrays(tmp_path / "x.npz", arrays)
    found = store.read_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    found["a"][0, 0] = 7  # may be written to


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(np.zeros(4), shape=(10**12,)), "its header promises 8,000,000,000,000"),
        (npy(np.zeros(4), shape=(-4,)), r"its shape is \(-4,\)"),
        (npy(np.zeros(4), descr="|O"), "expected numbers"),
        (npy(np.zeros(4), descr="<U8"), "expected numbers"),
        (b"no", "damaged"),
        (b"", "damaged"),
    ],
)
def test_arrays_that_lie_are_refused(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(StoreError, match=said):
        reading.read_array(Source(tmp_path / "x.npy"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(StoreError, match=said):
        reading.read_arrays(Source(tmp_path / "x.npz"))


def test_archives_that_unfold_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(30 << 20))
    assert (tmp_path / "x.npz").stat().st_size < 1 << 20
    with pytest.raises(StoreError, match="more than"):
        reading.read_arrays(Source(tmp_path / "x.npz", largest=20 << 20))


def test_tables_have_the_columns_that_are_expected(tmp_path: Path):
    path = tmp_path / "x.parquet"
    store.write_table(path, {"heads": ["0.1"], "value": [0.5]})
    assert reading.read_table(Source(path), {"heads": "text", "value": "number"}) == {"heads": ["0.1"], "value": [0.5]}
    with pytest.raises(StoreError, match="no column 'other'"):
        reading.read_table(Source(path), {"other": "number"})
    with pytest.raises(StoreError, match="'heads' is string, expected number"):
        reading.read_table(Source(path), {"heads": "number"})
    pq.write_table(pa.table({"value": pa.nulls(60_000_000, pa.float32())}), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(StoreError, match="60,000,000 rows"):
        reading.read_table(Source(path), {"value": "number"})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "another size than its shape"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "does not begin where"),
        ({"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4]}, "no dtype, shape and data_offsets"),
        ({"dtype": "X", "shape": [1], "data_offsets": [0, 4]}, "no dtype, shape and data_offsets"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "holds 75 bytes where its header promises 79"),
        (3, "no dtype, shape and data_offsets"),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path: Path, entry, said: str):
    header = json.dumps({"a": entry}).encode().ljust(63)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(StoreError, match=said):
        reading.read_tensors(Source(tmp_path / "x.safetensors"))


# ---- what rests on them ----------------------------------------------------------------------------------------------
def assert_holds(found: object, stored: object) -> None:
    """All that is stored was read; keys that later versions added have their defaults."""
    if isinstance(stored, dict):
        assert isinstance(found, dict)
        for key, value in stored.items():
            assert_holds(found[key], value)
    elif isinstance(stored, list):
        assert isinstance(found, list)
        assert len(found) == len(stored)
        for one, value in zip(found, stored, strict=True):
            assert_holds(one, value)
    else:
        assert found == stored


def test_runs_of_before_are_read_without_a_note(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    with zipfile.ZipFile(RUNS) as archive:
        archive.extractall(tmp_path)
    atlas = ha.Atlas(tmp_path / "finished")
    assert_holds(atlas.data, json.loads((tmp_path / "finished" / "atlas.json").read_text()))
    assert_holds(atlas.extras["examples"], json.loads((tmp_path / "finished" / "attention.json").read_text()))
    assert [str(one.message) for one in recwarn if issubclass(one.category, UserWarning)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": 10**7}, "model.n_layers is 10000000, expected: less than or equal to 4096"),
        ({"n_layers": 4000, "n_heads": 4000}, "at most 1,000,000 heads"),
        ({"name": 3}, "model.name is 3, expected: a valid string"),
    ],
)
def test_an_atlas_of_a_model_that_cannot_be_is_refused(tmp_path: Path, change, said: str):
    with zipfile.ZipFile(RUNS) as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "finished" / "atlas.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "model": {**data["model"], **change}}))
    with pytest.raises(StoreError, match=r"mine again") as caught:
        ha.show(tmp_path / "finished")
    assert said in str(caught.value)


def test_a_line_of_prompts_is_named(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text('{"a": 1}\n\n{"a": 1, "a": 2}')
    with pytest.raises(BadInput, match="3: is not read: the key 'a' stands there twice"):
        reading.read_json_lines(Source(tmp_path / "p.jsonl"), lambda line, wrong: BadInput(f"{line}: {wrong}"))
    (tmp_path / "p.jsonl").write_text('"' + "a" * 4_000_001 + '"')
    with pytest.raises(BadInput, match="1: has more than 4,000,000 characters"):
        reading.read_json_lines(Source(tmp_path / "p.jsonl"), lambda line, wrong: BadInput(f"{line}: {wrong}"))
