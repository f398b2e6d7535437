"""Nothing that comes from a file, a model or a name acts on a terminal, or reads as markup."""

from __future__ import annotations

import ast
import json
import warnings
import zipfile
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import headatlas
from headatlas.progress import Stderr
from headatlas.render.console import console
from headatlas.render.escape import shown, shown_json
from tests.pages import run

HOSTILE = "[bold]a\x1b[2J\x07\x9b31m\u202eevil\u2066\ufeff\x7f\u200f\x00[/bold]"
ACTING = set("\x1b\x07\x9b\u202e\u2066\ufeff\x7f\u200f\x00\r")
RUNS = Path(__file__).parents[1] / "mining" / "runs.zip"


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert not set(text) & ACTING, repr(text)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run whose every name and reason is hostile."""
    with zipfile.ZipFile(RUNS) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "finished"
    data = json.loads((folder / "atlas.json").read_text())
    data["model"]["name"] = HOSTILE
    data["skipped"] = [{"detector": HOSTILE, "reason": HOSTILE + "\nheadatlas: all is well"}]
    for one in data["detectors"]:
        one["head_type"] = one["name"] = f"{one['name']}{HOSTILE}"
        one["task"] = f"{one['task']}{HOSTILE}"
        if one["baseline"]:
            one["baseline"]["metric"] = HOSTILE
    (folder / "atlas.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("sign", sorted(ACTING))
def test_what_acts_is_written_out(sign: str):
    assert shown(f"a{sign}b") == "a" + ascii(sign)[1:-1].replace("\\r", "\\x0d") + "b"
    assert json.loads(shown_json(json.dumps(f"a{sign}b", ensure_ascii=False))) == f"a{sign}b"


def test_ordinary_text_of_all_scripts_stays():
    text = "é 中文 می‌خواهم 👩‍👩‍👧 ⏎ “x” − tab\tand\nline"
    assert shown(text) == text
    assert shown("a\nb", lines=False) == "a\\nb"
    assert shown("\ud800\U000e0041") == "\\ud800\\U000e0041"
    assert json.loads(shown_json('"\U000e0041"')) == "\U000e0041"


def test_a_console_shows_data_as_it_is():
    screen = console()
    table = Table(HOSTILE, "n")
    table.add_row(HOSTILE, "1")
    with screen.capture() as caught:
        screen.print(HOSTILE, soft_wrap=True)
        screen.print(Text(HOSTILE), soft_wrap=True)
        screen.print(table)
    assert_harmless(caught.get())
    assert caught.get().count("[bold]a\\x1b[2J") == 4
    assert "\\x9b31m\\u202eevil\\u2066\\ufeff\\x7f\\u200f\\x00[/bold]" in caught.get()


def test_a_hostile_run_is_shown_as_it_is(runs: Path, capsys: pytest.CaptureFixture[str]):
    code, out, err = run(capsys, "show", runs)
    assert code == 0
    assert_harmless(out, err)
    assert "[bold]a\\x1b[2J" in out
    names = [one["name"] for one in json.loads((runs / "atlas.json").read_text())["detectors"]]
    for name in names:
        code, out, err = run(capsys, "show", runs, "--detector", name)
        assert code == 0
        assert_harmless(out, err)
    code, out, err = run(capsys, "show", runs, "--json")
    assert json.loads(out)["model"]["name"] == HOSTILE
    assert_harmless(out, err)


def test_a_run_drawn_on_a_console_of_ones_own_is_harmless(runs: Path):
    from rich.console import Console

    own = Console(width=100)
    with own.capture() as caught:
        own.print(headatlas.show(runs))
    assert_harmless(caught.get())


def test_errors_and_notes_are_one_harmless_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hostile = tmp_path / "\x1b[31mred\u202e\nheadatlas: fine"
    circuit = tmp_path / "c.json"
    circuit.write_text(json.dumps({"schema": HOSTILE}))
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"clean": "a", "answer": "b", "wrong": "c", HOSTILE: "d"}))
    for command in (
        ["show", hostile],
        ["show", runs, "--detector", HOSTILE.replace("\x00", "")],
        ["circuit", "compare", circuit, circuit],
        ["circuit", "compare", hostile, circuit],
        ["ablate", hostile, "--task", "ioi"],
        ["check", hostile],
        ["papers", "check", "--data", hostile],
        ["papers", "show", f"paper/{HOSTILE}"],
    ):
        code, out, err = run(capsys, *command)
        assert code == 1, command
        assert_harmless(out, err)
        assert len(err.strip().splitlines()) == 1, err
    data = json.loads((runs / "atlas.json").read_text())
    (runs / "atlas.json").write_text(json.dumps({**data, HOSTILE: 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = run(capsys, "show", runs)
    assert code == 0
    assert err.startswith("headatlas: note: ")
    assert_harmless(out, err)


def test_slips_on_the_command_line_are_harmless(capsys: pytest.CaptureFixture[str]):
    for command in (
        ["show", f"--{HOSTILE}"],
        [HOSTILE],
        ["show", "a", HOSTILE],
        ["show", "--top", HOSTILE],
        ["circuit", HOSTILE],
    ):
        code, out, err = run(capsys, *command)
        assert code == 2
        assert_harmless(out, err)
        assert "\\x1b[2J" in err or "--top" in err


def test_circuits_with_hostile_names_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    node = {"head": "9.6", "at": HOSTILE, "role": HOSTILE}
    content = {"schema": "headatlas/circuit/1", "name": HOSTILE, "task": HOSTILE, "model": HOSTILE, "nodes": [node]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    for more in ([], ["--json"]):
        code, out, err = run(capsys, "circuit", "compare", tmp_path / "c.json", tmp_path / "c.json", *more)
        assert code == 0
        assert_harmless(out, err)


def test_lines_of_progress_are_harmless(capsys: pytest.CaptureFixture[str]):
    from headatlas.cli._progress import Shown

    Stderr().say(HOSTILE)
    with Shown() as told:
        told.plan([(HOSTILE, 2)])
        told.advance(HOSTILE, 2)
        told.say(HOSTILE)
    err = capsys.readouterr().err
    assert_harmless(err)
    assert err.count("[bold]a\\x1b[2J") == 3


def test_nothing_is_printed_past_the_one_place():
    """`print`, `typer.echo` and rich's own `Console` know nothing of hostile text; `say`, `console` and `print_json` do."""
    home = Path(headatlas.__file__).parent
    allowed = {"render/escape.py", "cli/_printing.py"}
    found = [
        f"{file.relative_to(home)}:{node.lineno}"
        for file in sorted(home.rglob("*.py"))
        if str(file.relative_to(home)) not in allowed
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "typer.echo", "click.echo", "Console", "Console().print")
    ]
    assert found == []
