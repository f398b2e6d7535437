"""Commands that only look things up load no torch, and what `list` reads from its index is what there is."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

import headatlas
from headatlas import overview

PROGRAM = """
import resource, sys
from headatlas.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
usage = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("torch", "transformers", "pyarrow", "duckdb", "scipy") if name in sys.modules]
print(heavy, usage.ru_utime + usage.ru_stime, file=sys.stderr)
"""


def ran(*arguments: str) -> tuple[str, str, float]:
    """Output, heavy modules and processor seconds of a command in a program of its own, start of Python included."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    heavy, _, seconds = done.stderr.strip().splitlines()[-1].rpartition(" ")
    return done.stdout, heavy, float(seconds)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    with ZipFile(Path(__file__).parents[1] / "mining" / "runs.zip") as packed:
        packed.extractall(place)
    return place / "finished"


COMMANDS = ["--version", "cite induction ioi path", "list detectors", "list tasks", "list models", "list head-types", "list methods", "list interventions", "papers stats",
            "papers search induction", "papers list", "papers show olsson-2022-induction-heads"]  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, "show"])
def test_looking_things_up_loads_no_torch_and_takes_half_a_second(command, run_folder):
    words = ["show", str(run_folder)] if command == "show" else command.split()
    out, heavy, _ = ran(*words)
    assert out.strip()
    assert heavy == "[]"
    assert min(ran(*words)[2] for _ in range(2)) < 1.0  # half of it on a machine that does nothing else


def test_the_versions_are_those_that_are_installed():
    said, _, _ = ran("--version")
    found = [metadata.version(name) for name in ("torch", "transformers")]
    assert said == f"headatlas {headatlas.__version__} (torch {found[0]}, transformers {found[1]})\n"


def test_the_index_is_current():
    assert overview._index() is not None, "Run `make index`: what `headatlas list` prints has changed."
    for what, make in overview._MAKERS.items():
        assert overview.list_known(what) == json.loads(json.dumps(make())), "Run `make index`."


def test_a_changed_file_or_a_package_with_plugins_sets_the_index_aside(monkeypatch, tmp_path):
    live = [{"name": "made anew"}]
    monkeypatch.setattr(overview, "_MAKERS", {**overview._MAKERS, "tasks": lambda: live})
    assert overview.list_known("tasks") != live
    with monkeypatch.context() as patch:
        patch.setattr(overview, "entry_points", lambda group: ["one"])
        assert overview.list_known("tasks") == live
    more = tmp_path / "more.py"
    more.write_text("")
    sources = overview._sources()
    with monkeypatch.context() as patch:
        patch.setattr(overview, "_sources", lambda: sources[:-1])
        assert overview.list_known("tasks") == live
    with monkeypatch.context() as patch:
        patch.setattr(overview, "_INDEX", tmp_path / "none.json")
        assert overview.list_known("tasks") == live
    assert Path(headatlas.__file__).parent in sources[0].parents
