"""Models from the Hub: the right commit and files, a local copy when offline, and no long wait for a dead network."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from headatlas.errors import SourceError, UnknownName
from headatlas.model.sources import hub
from headatlas.model.sources.resolve import resolve
from tests.model.source_files import COMMIT, fake_hub, save_llama, sha256, use_hub
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("hub")
    good = save_llama(top / "good")
    (good / "model.fp16.safetensors").write_bytes(b"a variant nobody asked for")
    (good / "pytorch_model.bin").write_bytes(b"a pickle nobody asked for")
    sharded = save_llama(top / "sharded", shards=True)
    pickled = Path(shutil.copytree(good, top / "pickled"))
    torch.save(AutoModelForCausalLM.from_pretrained(good).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    empty = top / "empty"
    empty.mkdir()
    (empty / "weights.gguf").write_bytes(b"GGUF")
    return {"org/good": good, "org/sharded": sharded, "org/pickled": pickled, "org/empty": empty, "org/gated": good}


@pytest.fixture
def asked(repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path / "cache"))
    with fake_hub(repositories, gated=("org/gated",)) as (address, requests):
        use_hub(monkeypatch, address, tmp_path / "hub")
        yield requests


def refusal(name: str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        resolve(name, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_hub_model_is_fetched_at_its_commit(asked: list[str], repositories: dict[str, Path]) -> None:
    source = resolve("org/good")
    assert (source.kind, source.revision, source.origin) == ("hub", COMMIT, f"hub:org/good@{COMMIT}")
    assert source.sha256 == sha256(repositories["org/good"] / "model.safetensors")
    assert source.has_tokenizer
    AutoModelForCausalLM.from_pretrained(source.folder)


def test_only_the_files_that_are_needed_are_fetched(asked: list[str]) -> None:
    source = resolve("org/good")
    names = {path.name for path in source.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"model.fp16.safetensors", "pytorch_model.bin"}


def test_a_sharded_model_arrives_whole(asked: list[str]) -> None:
    assert len(list(resolve("org/sharded").folder.glob("model-*.safetensors"))) > 1


def test_the_revision_can_stand_in_the_name_or_beside_it(asked: list[str]) -> None:
    assert resolve(f"org/good@{COMMIT}").folder == resolve("org/good", revision="main").folder
    for name, options in (("org/good@nope", {}), ("org/good", {"revision": "nope"})):
        assert "no revision 'nope'" in refusal(name, **options)


def test_offline_the_local_copy_is_used(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    online, told = resolve("org/good"), Recorder()
    go_offline(monkeypatch)
    seen = len(asked)
    offline = resolve("org/good", progress=told)
    assert offline == online
    assert any("fetched before" in line for line in told.lines)
    assert len(asked) == seen


def test_offline_without_a_copy_is_an_error(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    assert "HF_HUB_OFFLINE" in refusal("org/good")


def test_offline_an_incomplete_copy_is_an_error(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("org/good").folder
    (folder / "tokenizer.json").unlink()
    go_offline(monkeypatch)
    assert "No complete copy" in refusal("org/good")


def test_a_model_that_does_not_exist_is_named(asked: list[str]) -> None:
    assert "org/missing" in refusal("org/missing")


def test_a_mistyped_folder_is_suggested(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_llama(tmp_path / "models" / "llama")
    monkeypatch.chdir(tmp_path)
    assert "Did you mean 'models/llama'?" in refusal("models/lama")


def test_gated_models_say_how_to_get_in(asked: list[str]) -> None:
    assert "hf auth login" in refusal("org/gated")


def test_pickles_on_the_hub_are_refused_before_they_are_fetched(asked: list[str]) -> None:
    assert "pickle" in refusal("org/pickled")
    assert not [request for request in asked if "pytorch_model.bin" in request]
    assert resolve("org/pickled", allow_pickle=True).folder.joinpath("pytorch_model.bin").is_file()


def test_a_repository_of_gguf_files_says_what_to_do(asked: list[str]) -> None:
    assert "weights.gguf" in refusal("org/empty")


def test_a_name_that_is_no_hub_name_does_not_reach_the_hub(asked: list[str]) -> None:
    with pytest.raises(UnknownName):
        resolve("gpt2-does-not-exist")
    assert asked == []


@pytest.mark.parametrize("way", ["refused", "silent", "no name"])
def test_a_hub_out_of_reach_is_noticed_within_seconds(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_REPLY_SECONDS", 0.3)
    monkeypatch.setattr(hub, "_WAIT_SECONDS", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if way == "silent":  # takes the call and never says a word
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if way == "no name":
            address = "http://hub.invalid"
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
        use_hub(monkeypatch, address, tmp_path / "hub")
        started = time.monotonic()
        assert "cannot be reached" in refusal("org/good")
        assert time.monotonic() - started < 3


def test_the_hub_is_waited_for_a_few_seconds_at_most() -> None:
    assert 1 < hub._REPLY_SECONDS < hub._WAIT_SECONDS < 10
