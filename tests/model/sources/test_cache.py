"""Cache entries: what is loaded is what was written, whatever happened to the files since."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import headatlas as ha
from headatlas.model.sources import cache
from headatlas.model.sources.cache import MANIFEST, fill
from tests.model.source_files import write_gguf
from tests.recorder import Recorder

WEIGHTS, OTHERS = b"\x00" * 4096, b"\x00" * 4095 + b"\x01"


def made(home: Path, **facts: object) -> tuple[Path, Recorder]:
    """The entry, and what was said on the way to it: nothing, unless it was made (again)."""
    said = Recorder()

    def make(into: Path) -> dict[str, object]:
        said.say("made")
        (into / "model.safetensors").write_bytes(WEIGHTS)
        (into / "tokenizer.json").write_text("{}")
        return facts

    return fill(home, "toy", make, said)[0], said


def rot(file: Path) -> None:
    """Other bytes, with the size and the time of before."""
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("moments", [cache._TICK, -(1 << 62)], ids=["at once", "later"])
def test_an_entry_that_rots_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moments: int):
    monkeypatch.setattr(cache, "_TICK", moments)
    folder, said = made(tmp_path)
    assert said.lines == ["made"]
    assert made(tmp_path)[1].lines == []
    right = (folder / name).read_bytes()
    rot(folder / name)
    _, said = made(tmp_path)
    assert said.lines == ["The copy of toy in the cache is damaged or of an older version; it is made again.", "made"]
    assert (folder / name).read_bytes() == right
    assert made(tmp_path)[1].lines == []


def test_files_of_an_entry_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made(tmp_path)
    monkeypatch.setattr(cache, "_TICK", -(1 << 62))
    made(tmp_path)
    monkeypatch.setattr(cache, "hash_file", lambda path: pytest.fail(f"{path} was read again"))
    assert made(tmp_path)[1].lines == []


def forget(folder: Path, **facts: object) -> None:
    """The manifest as it was before it had hashes."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["hashes"]
    (folder / MANIFEST).write_text(json.dumps({**manifest, **facts}))


def test_an_entry_of_before_is_known_from_the_first_look_on(tmp_path: Path):
    folder, _ = made(tmp_path)
    forget(folder)
    assert made(tmp_path)[1].lines == []
    rot(folder / "model.safetensors")
    assert "made" in made(tmp_path)[1].lines


def test_an_entry_of_before_is_compared_with_what_was_published(tmp_path: Path):
    folder, _ = made(tmp_path)
    raw = {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    forget(folder, raw=raw)
    assert made(tmp_path)[1].lines == []
    (folder / "model.safetensors").write_bytes(OTHERS)
    forget(folder, raw=raw)
    assert "made" in made(tmp_path)[1].lines


@pytest.mark.parametrize("spoil", [lambda file: rot(file), lambda file: file.write_bytes(b""), os.remove])
def test_a_rotten_copy_of_a_gguf_file_gives_the_same_numbers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
):
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path / "home"))
    write_gguf(tmp_path / "toy.gguf")
    file, right = seen(tmp_path / "toy.gguf")  # and no model any more: its weights are mapped from the file
    spoil(file)
    assert seen(tmp_path / "toy.gguf") == (file, right)
    shutil.rmtree(tmp_path / "home")
    assert seen(tmp_path / "toy.gguf") == (file, right)


def seen(gguf: Path) -> tuple[Path, tuple[str, str]]:
    """The file that a model was loaded from, and the hashes of its weights in memory and of their source."""
    model = ha.load(str(gguf))
    return model.source.folder / "model.safetensors", (model.fingerprint(), model.sha256())
