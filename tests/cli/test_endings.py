"""How a command ends that is not let finish: signals, closed terminals and pipes, in processes of their own."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import headatlas as ha
from tests import toys
from tests.signals import heard

TASKS = ["repeated", "prose", "registers"]
SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"  # the cursor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=400, max_position_embeddings=160), place)
    return place


def command(folder: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", "headatlas", "mine", str(folder), "--n", "24", "--out", str(out), "--no-verdict"]
    return words + [word for task in TASKS for word in ("--task", task)]


def until_something_is_kept(out: Path) -> None:
    limit = time.monotonic() + 240
    while not list(out.parent.glob("*.partial/scans/*.json")):
        assert time.monotonic() < limit
        time.sleep(0.01)


def read(terminal: int) -> bytes:
    """Everything that is still shown on a terminal."""
    found = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other side open any more
        while piece := os.read(terminal, 1 << 16):
            found += piece
    return found


def assert_kept_and_free(out: Path) -> None:
    """The work is there, no lock is."""
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == [f"{out.name}.partial"]
    assert not list(out.parent.rglob("*.half"))
    assert kept(out)


def kept(out: Path) -> set[str]:
    """The tasks whose scans are there."""
    return {path.stem for path in out.parent.glob("*.partial/scans/*.json")}


def assert_goes_on(folder: Path, out: Path) -> None:
    """The same command needs not do again what is kept."""
    from tests.recorder import Recorder

    before = kept(out)

    progress = Recorder()
    ha.mine(ha.load(str(folder)), tasks=TASKS, n=24, verdict=False, out=out, progress=progress)
    assert {f"{task}: kept from before." for task in before} <= set(progress.lines)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),  # sent by the closed terminal below, too
    ],
)
def test_a_signal_ends_a_run_with_its_code_and_the_cursor_comes_back(folder: Path, tmp_path: Path, number, code):
    out = tmp_path / "run"
    terminal, side = pty.openpty()
    process = subprocess.Popen(command(folder, out), stdout=subprocess.PIPE, stderr=side, preexec_fn=heard)
    os.close(side)
    until_something_is_kept(out)
    process.send_signal(number)
    shown = read(terminal)
    os.close(terminal)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == code
    assert HIDE in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert b"Traceback" not in shown
    last = shown.decode().splitlines()[-1]
    assert ("give the same command to go on" in last) == (number != signal.SIGHUP)
    assert_kept_and_free(out)
    if number == signal.SIGTERM:
        assert_goes_on(folder, out)


def test_a_terminal_that_is_closed_ends_a_run(folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command(folder, out))
    until_something_is_kept(out)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert_kept_and_free(out)


def test_a_closed_standard_error_ends_a_run(folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(folder, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_something_is_kept(out)
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    assert process.communicate(timeout=120)[0] == b""
    assert process.returncode == 141
    assert_kept_and_free(out)


WORDS = ["list detectors", "papers list", "--help"]  # by rich, by print, by typer


def listed(words: str, stdout: int, code: str = "") -> tuple[int, str]:
    """Exit code and standard error of a command in a process of its own."""
    program = f"{code}\nfrom headatlas.cli import main; main({words.split()!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", WORDS)
def test_a_reader_that_has_enough_is_no_error(words: str):
    end, pipe = os.pipe()
    os.close(end)
    try:
        assert listed(words, pipe) == (0, "")
    finally:
        os.close(pipe)


def test_head_takes_the_first_line():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m headatlas list detectors --json | head -c 20",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 20, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_behind_standard_output_is_said_in_one_line():
    with open("/dev/full", "w") as full:
        code, told = listed("list detectors", full.fileno())
    assert code == 1
    assert told == "headatlas: The standard output cannot be written: No space left on device. Is the disk full?\n"


def closed(*streams: int) -> Callable[[], None]:
    return lambda: [os.close(stream) for stream in streams] and None


@pytest.mark.parametrize("streams", [(1,), (0, 1, 2)])
def test_streams_that_were_closed_from_the_start_do_not_matter(streams: tuple[int, ...]):
    program = [sys.executable, "-m", "headatlas", "list", "tasks"]
    done = subprocess.run(program, preexec_fn=closed(*streams), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_ignored_stays_ignored_and_handlers_are_put_back(capsys: pytest.CaptureFixture[str]):
    from headatlas.cli import main

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    streams, term = (sys.stdout, sys.stderr), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["list", "tasks"])
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended.value.code == 0
    assert (sys.stdout, sys.stderr) == streams
    assert signal.getsignal(signal.SIGTERM) is term
    assert "ioi" in capsys.readouterr().out
