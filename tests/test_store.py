"""Files that are whole or not there; the folder of unfinished work: one program at a time, never another run's pieces."""

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

import headatlas
from headatlas.errors import StoreError
from headatlas.store import (
    claimed,
    finished,
    give_name,
    new_folder,
    partial_of,
    read_arrays,
    read_json,
    whole_file,
    whole_folder,
    write_arrays,
    write_json,
    write_text,
)

HOUSE = Path(headatlas.__file__).parent
ROOT = Path(__file__).parents[1]
HOLDER = """
import sys
from pathlib import Path
from headatlas.store import claimed, partial_of
final = Path(sys.argv[1])
with claimed(final, {"id": "a"}):
    (partial_of(final) / "piece").write_text("theirs")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


def interrupted(final: Path, identity: dict[str, str]) -> None:
    """Leave a piece, a folder of pieces and a half-written file, as an interrupted run does."""

    def work(place: Path) -> None:
        (place / "piece").write_text(identity["id"])
        (place / "tasks").mkdir()
        (place / "tasks" / "first.json").write_text("{}")
        (place / "piece.half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claimed(final, identity):
        work(partial_of(final))


def left(final: Path) -> set[str]:
    return {path.name for path in final.parent.iterdir()}


def test_the_same_work_goes_on_where_it_stopped(final: Path):
    interrupted(final, {"id": "a", "model": "toy"})
    assert left(final) == {"one.partial"}  # the lock is gone after an error, the pieces are not
    assert read_json(partial_of(final) / "run.json") == {"id": "a", "model": "toy"}
    with claimed(final, {"id": "a", "model": "toy"}) as dropped:
        assert dropped == []
        assert left(final) == {"one.partial", "one.partial.lock"}
        assert (partial_of(final) / "piece").read_text() == "a"
        assert (partial_of(final) / "tasks" / "first.json").exists()
        os.replace(partial_of(final), final)
    assert left(final) == {"one"}


def test_run_json_is_there_before_any_piece(final: Path):
    with claimed(final, {"id": "a"}) as dropped:
        assert dropped == []
        assert {path.name for path in partial_of(final).iterdir()} == {"run.json"}


def test_other_work_is_dropped(final: Path):
    interrupted(final, {"id": "a", "seed": 0, "sha256": "0" * 64, "n": 4})
    with claimed(final, {"id": "b", "seed": 1, "sha256": "1" * 64, "n": 4}) as dropped:
        assert dropped == ["seed (0, now 1)", "weights"]
        assert not (partial_of(final) / "piece").exists()
        assert not (partial_of(final) / "tasks").exists()
        assert read_json(partial_of(final) / "run.json")["id"] == "b"


def test_an_interrupted_drop_is_taken_up_again(final: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(final, {"id": "a"})
    real = shutil.rmtree

    def dies(folder: Path) -> None:
        for file in folder.iterdir():
            if file.is_file():
                file.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt), claimed(final, {"id": "b"}):
        pytest.fail("the folder still holds other work")
    assert (partial_of(final) / "tasks").exists()
    assert read_json(partial_of(final) / "run.json") == {"id": "a"}
    monkeypatch.setattr(shutil, "rmtree", real)
    with claimed(final, {"id": "b"}) as dropped:
        assert dropped == ["id"]
        assert not (partial_of(final) / "tasks").exists()


def test_what_cannot_be_told_is_left_alone(final: Path):
    place = partial_of(final)
    interrupted(final, {"id": "a"})
    (place / "run.json").write_text('{"id": "a"')
    with pytest.raises(StoreError, match=r"run\.json is damaged"), claimed(final, {"id": "b"}):
        pytest.fail("a damaged run.json was read")
    (place / "run.json").unlink()
    with pytest.raises(StoreError, match=r"holds no run\.json"), claimed(final, {"id": "a"}):
        pytest.fail("pieces of an unknown run were taken")
    assert (place / "piece").read_text() == "a"
    assert left(final) == {"one.partial"}


def test_only_one_program_has_the_folder(final: Path):
    command = [sys.executable, "-c", HOLDER, str(final)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for identity in ({"id": "a"}, {"id": "b"}, {"id": "b"}):  # being refused must not open the door to the next
            with pytest.raises(StoreError, match=r"writing to .*one right now"), claimed(final, identity):
                pytest.fail("two programs write to one folder")
        assert (partial_of(final) / "piece").read_text() == "theirs"
        other.send_signal(signal.SIGKILL)
    assert (final.parent / "one.partial.lock").exists()  # nobody was left to remove it, and it stops nobody
    with claimed(final, {"id": "a"}) as dropped:
        assert dropped == []
        assert (partial_of(final) / "piece").read_text() == "theirs"
    assert left(final) == {"one.partial"}


def test_a_lock_that_the_work_itself_waits_for_is_not_taken_for_this_one(final: Path, tmp_path: Path):
    held = FileLock(tmp_path / "other.lock")
    with held, pytest.raises(Timeout), claimed(final, {"id": "a"}):
        FileLock(tmp_path / "other.lock").acquire(timeout=0)
    assert left(final) == {"one.partial"}


def test_a_place_that_is_taken_or_impossible_is_refused(final: Path, tmp_path: Path):
    final.mkdir(parents=True)
    with claimed(final, {"id": "a"}):
        assert partial_of(final).is_dir()  # an empty folder may be filled
    (final / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="one exists already"), claimed(final, {"id": "a"}):
        pytest.fail("a finished place was claimed")
    below_a_file = final / "letter.txt" / "run"
    with pytest.raises(StoreError, match="cannot be written"), claimed(below_a_file, {"id": "a"}):
        pytest.fail("a folder was made below a file")
    with pytest.raises(StoreError, match="cannot be written: File name too long"):
        finished(tmp_path / ("x" * 300), {"id": "a"}, "atlas.json")
    for here in (".", "..", "runs/..", "/"):
        with pytest.raises(StoreError, match=r"is no name for something new"), claimed(Path(here), {"id": "a"}):
            pytest.fail("a folder was to be renamed to what is there")
    assert left(final) == {"one", "one.partial"}


def test_a_finished_folder_is_known_by_its_id(final: Path):
    assert finished(final, {"id": "a"}, "atlas.json") is False
    final.mkdir(parents=True)
    assert finished(final, {"id": "a"}, "atlas.json") is False
    (final / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"not a run folder: it holds no atlas\.json"):
        finished(final, {"id": "a"}, "atlas.json")
    write_json(final / "atlas.json", {})
    with pytest.raises(StoreError, match=r"not a run folder: it holds no run\.json"):
        finished(final, {"id": "a"}, "atlas.json")
    write_json(final / "run.json", {"id": "a"})
    assert finished(final, {"id": "a"}, "atlas.json") is True
    with pytest.raises(StoreError, match=r"holds another run \(a\)"):
        finished(final, {"id": "b"}, "atlas.json")
    (final / "atlas.json").write_text("{")
    with pytest.raises(StoreError, match=r"atlas\.json is damaged"):
        finished(final, {"id": "a"}, "atlas.json")
    (final / "run.json").write_text("[]")
    with pytest.raises(StoreError, match=r"run\.json is damaged"):
        finished(final, {"id": "a"}, "atlas.json")


def test_a_file_is_whole_or_as_it_was(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def fail(half: Path) -> None:
        half.write_text("aft")
        assert path.read_text() == "before"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_file(path) as half:
        fail(half)
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == {"a.txt": "before"}
    with whole_file(path) as half:
        half.write_text("after")
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == {"a.txt": "after"}


def test_two_programs_may_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    with whole_file(path) as ours:
        ours.write_text("ours")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_text(path, "theirs")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"


def test_where_a_file_cannot_be_written_is_said(tmp_path: Path):
    with pytest.raises(StoreError, match=r"nowhere.a\.json cannot be written: No such file.*another folder with --out"):
        write_json(tmp_path / "nowhere" / "a.json", {})
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match=r"taken cannot be written: Is a directory\. Say where else"):
        write_text(tmp_path / "taken", "text", "Say where else.")
    with pytest.raises(StoreError, match=r"a\.npz cannot be written"):
        write_arrays(tmp_path / "nowhere" / "a.npz", {})
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]


def test_a_folder_is_whole_or_not_there(tmp_path: Path):
    target, half = tmp_path / "made", tmp_path / "made.unfinished"
    half.mkdir()
    (half / "left by a killed program").write_text("")

    def fail(place: Path) -> None:
        assert list(place.iterdir()) == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_folder(target, half) as place:
        fail(place)
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target, half) as place:
        (place / "a").write_text("a")
    assert [item.relative_to(tmp_path).as_posix() for item in sorted(tmp_path.rglob("*"))] == ["made", "made/a"]
    with pytest.raises(StoreError, match="made exists already"), new_folder(target):
        pytest.fail("a folder was written over another")
    (tmp_path / "empty").mkdir()
    give_name(target, tmp_path / "empty")
    assert (tmp_path / "empty" / "a").read_text() == "a"
    target.mkdir()
    with pytest.raises(StoreError, match=r"empty cannot be written: Directory not empty"):
        give_name(target, tmp_path / "empty")


def renames(file: Path) -> list[int]:
    """Lines that rename something: os.replace and its like, and Path.replace, which takes one argument where str's takes two."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, owner = node.func.attr, ast.unparse(node.func.value)
            system = owner == "os" and called in ("replace", "rename", "renames")
            of_path = called in ("rename", "replace") and len(node.args) == 1 and not node.keywords
            if system or of_path:
                found.append(node.lineno)
    return found


def test_only_the_store_renames():
    files = [file for file in HOUSE.rglob("*.py") if file != HOUSE / "store.py"]
    assert [f"{file.relative_to(HOUSE)}:{line}" for file in files for line in renames(file)] == []
    assert len(renames(HOUSE / "store.py")) == 5
