"""Names of models: which folder they mean, and what a user is told when the folder cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headatlas.errors import BadInput, HeadAtlasError, SourceError, UnknownName, UnsupportedModel
from headatlas.model.sources import cache as cache_module
from headatlas.model.sources import gguf_file
from headatlas.model.sources.resolve import require_tokenizer, resolve
from tests.model.source_files import save_llama, sha256, write_gguf
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def llama(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "llama"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(kind: type[HeadAtlasError], name: object, **options: bool) -> str:
    with pytest.raises(kind) as caught:
        resolve(str(name), **options)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.hint
    return text


def test_a_folder_is_used_where_it_is(llama: Path) -> None:
    source = resolve(str(llama))
    assert (source.name, source.kind, source.folder, source.revision) == (str(llama), "folder", llama, None)
    assert source.sha256 == sha256(llama / "model.safetensors")
    assert source.has_tokenizer
    assert source.origin == "folder:llama"


def test_a_sharded_folder_has_the_sha256_of_its_checksum_list(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "shards", shards=True)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    listing = "".join(f"{sha256(shard)}  {shard.name}\n" for shard in shards)
    assert resolve(str(folder)).sha256 == hashlib.sha256(listing.encode()).hexdigest()


def replaced(weights: Path) -> None:
    """Other bytes of equal length under the same name, as `rsync -t` brings them: written beside it and renamed."""
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    beside = weights.with_name("beside")
    beside.write_bytes(flipped)
    os.replace(beside, weights)


def rewritten(weights: Path) -> None:
    """Other bytes of equal length in the very file."""
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


@pytest.mark.parametrize("change", [replaced, rewritten])
@pytest.mark.parametrize("moments", [cache_module._TICK, -(1 << 62)], ids=["at once", "later"])
def test_the_sha256_is_that_of_the_file_also_where_size_and_time_stayed(
    llama: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], moments: int
) -> None:
    monkeypatch.setattr(cache_module, "_TICK", moments)
    weights = llama / "model.safetensors"
    first, stat = resolve(str(llama)).sha256, weights.stat()
    change(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert resolve(str(llama)).sha256 == sha256(weights) != first


def test_a_file_is_read_once_for_each_of_its_states(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = [], cache_module.hash_file
    monkeypatch.setattr(cache_module, "hash_file", lambda path: read.append(path) or real(path))
    first = resolve(str(llama)).sha256
    assert resolve(str(llama)).sha256 == first
    assert len(read) == 2  # the file was written a moment ago: another change in the same tick would not show
    monkeypatch.setattr(cache_module, "_TICK", -(1 << 62))
    for _ in range(3):
        assert resolve(str(llama)).sha256 == first
    assert len(read) == 3
    os.utime(llama / "model.safetensors")
    assert resolve(str(llama)).sha256 == first
    assert len(read) == 4


def test_an_unwritable_cache_does_not_stop_a_local_folder(llama: Path, cache: Path) -> None:
    cache.write_text("a file where the cache folder should be")
    assert resolve(str(llama)).sha256 == sha256(llama / "model.safetensors")


def test_an_unknown_name_suggests_a_built_in() -> None:
    assert "Did you mean 'smollm2-135m'?" in refusal(UnknownName, "smollm2-135")
    text = refusal(UnknownName, "zzzzzz")
    assert "org/name" in text
    assert "minilm-l6" in text
    refusal(UnknownName, "  ")


def test_a_mistyped_path_suggests_what_lies_beside_it(llama: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "weights.gguf")
    assert f"Did you mean '{llama}'?" in refusal(UnknownName, tmp_path / "lama")
    assert f"Did you mean '{tmp_path / 'weights.gguf'}'?" in refusal(UnknownName, tmp_path / "weigts.gguf")


@pytest.mark.parametrize("name", ["~nobody-here/x", "x\0y", "a" * 5000, "/", "no such/place on/disk"])
def test_odd_names_are_refused_without_a_traceback(name: str) -> None:
    with pytest.raises(HeadAtlasError):
        resolve(name)


def test_revisions_belong_to_the_hub(llama: Path) -> None:
    for name, revision in ((str(llama), "main"), ("smollm2-135m@main", None), ("org/name@a", "b"), ("org/name@", None)):
        with pytest.raises(BadInput, match=r"revision|@"):
            resolve(name, revision=revision)


def test_a_folder_without_config_is_refused(llama: Path, tmp_path: Path) -> None:
    (llama / "config.json").unlink()
    assert "config.json" in refusal(SourceError, llama)
    write_gguf(llama / "inside.gguf")
    assert str(llama / "inside.gguf") in refusal(SourceError, llama)


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        ('{"model_type": "lla', SourceError, "not JSON"),
        ("\xff\xfe", SourceError, "not UTF-8"),
        ("[1, 2]", SourceError, "not a JSON object"),
        ('{"hidden_size": 3}', SourceError, "model_type"),
        ('{"model_type": "nonesuch"}', UnsupportedModel, "nonesuch"),
        ('{"model_type": "nonesuch", "auto_map": {"AutoConfig": "x.Y"}}', UnsupportedModel, "auto_map"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(llama: Path, content: str, kind: type, expected: str) -> None:
    (llama / "config.json").write_bytes(content.encode("latin-1"))
    assert expected in refusal(kind, llama)


def test_code_beside_a_known_architecture_is_neither_needed_nor_run(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (llama / "evil.py").write_text("raise SystemExit('this code must not run')")
    assert resolve(str(llama)).kind == "folder"


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -1000])
def test_cut_safetensors_are_noticed_without_reading_them(llama: Path, keep: int) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "damaged" in refusal(SourceError, llama)


@pytest.mark.parametrize("header", [b"not json", b"[]", b"{}", b'{"a": {"data_offsets": [0]}}', b'{"a": 1}'])
def test_safetensors_with_a_broken_header_are_refused(llama: Path, header: bytes) -> None:
    (llama / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "damaged" in refusal(SourceError, llama)


def test_appended_bytes_are_noticed(llama: Path) -> None:
    with (llama / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert "promises" in refusal(SourceError, llama)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "shards", shards=True)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(SourceError, folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "weight_map" in refusal(SourceError, folder)


def test_pickles_are_refused_unless_asked_for(llama: Path) -> None:
    state = AutoModelForCausalLM.from_pretrained(llama).state_dict()
    torch.save(state, llama / "pytorch_model.bin")
    (llama / "model.safetensors").unlink()
    assert "pickle" in refusal(SourceError, llama)
    assert resolve(str(llama), allow_pickle=True).sha256 == sha256(llama / "pytorch_model.bin")


def test_a_folder_without_weights_names_what_it_holds(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "adapter_model.safetensors")
    assert "adapter_model.safetensors" in refusal(SourceError, llama)
    (llama / "adapter_model.safetensors").unlink()
    assert "no weights" in refusal(SourceError, llama, allow_pickle=True)


def test_a_missing_tokenizer_is_reported_and_refused_only_on_demand(tmp_path: Path, llama: Path) -> None:
    source = resolve(str(save_llama(tmp_path / "bare", tokenizer=False)))
    assert not source.has_tokenizer
    with pytest.raises(SourceError, match="no tokenizer"):
        require_tokenizer(source)
    require_tokenizer(resolve(str(llama)))


def test_a_gguf_file_is_converted_once_and_exactly(tmp_path: Path, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    told = Recorder()
    source = resolve(str(file), progress=told)
    assert [line.split()[0] for line in told.lines] == ["Converting"]
    assert (source.kind, source.origin, source.sha256) == ("gguf", "gguf:tiny.gguf", sha256(file))

    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    copy = AutoModelForCausalLM.from_pretrained(source.folder)
    text = " the dog and <|im_start|> Mary\n  went"
    ids = tokens.encode(text)
    assert AutoTokenizer.from_pretrained(source.folder).encode(text) == ids
    assert torch.equal(original(torch.tensor([ids])).logits, copy(torch.tensor([ids])).logits)

    again = resolve(str(file), progress=told)
    assert again == source
    assert len(told.lines) == 1
    assert [path.name for path in (cache / "models").glob("*.unfinished")] == []


def test_a_changed_gguf_file_is_another_model(tmp_path: Path) -> None:
    first = resolve(str(write_gguf(tmp_path / "tiny.gguf")))
    second = resolve(str(write_gguf(tmp_path / "tiny.gguf", seed=1)))
    assert first.sha256 != second.sha256
    assert first.folder != second.folder


def test_a_gguf_file_without_tokenizer_gives_a_model_without_one(tmp_path: Path) -> None:
    assert not resolve(str(write_gguf(tmp_path / "tiny.gguf", tokenizer=False))).has_tokenizer


def test_a_gguf_file_that_lacks_a_tensor_is_refused_and_not_kept(tmp_path: Path, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", skip="blk.1.attn_q.weight")
    assert "lacks" in refusal(SourceError, file)
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_a_gguf_architecture_that_transformers_lacks_is_named(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes().replace(b"llama", b"lemma"))
    assert "lemma" in refusal(UnsupportedModel, file)


def test_any_cut_of_a_gguf_file_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    file = tmp_path / "cut.gguf"
    for keep in [*range(0, 3000, 37), len(whole) // 2, len(whole) - 100]:
        file.write_bytes(whole[:keep])
        with pytest.raises(SourceError, match="not a whole GGUF file"):
            gguf_file.read_head(file)


def test_flipped_bytes_in_a_gguf_head_never_end_in_a_traceback(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    file, places, accepted = tmp_path / "flipped.gguf", range(0, 6000, 11), 0
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x95]) + whole[place + 1 :])
        with contextlib.suppress(SourceError):  # any other error fails the test
            gguf_file.read_head(file)
            accepted += 1
    assert 20 < accepted < len(places) - 20  # changed text is no damage, changed lengths are


def test_a_file_that_is_no_gguf_is_refused(llama: Path) -> None:
    assert str(llama) in refusal(SourceError, llama / "model.safetensors")
    fake = llama / "fake.gguf"
    fake.write_text("hello")
    assert "letters GGUF" in refusal(SourceError, fake)
