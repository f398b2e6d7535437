"""The commands on the pages of benchmarks, methods and circuits are commands of this program."""

import shlex

import pytest
import typer

from headatlas import catalogue
from headatlas.catalogue.describe import hub_id, page, record
from headatlas.catalogue.files.commands import benchmark_commands, circuit_commands, method_commands
from headatlas.catalogue.site.build import render
from headatlas.catalogue.site.context import SiteContext
from headatlas.cli import build
from headatlas.task import find_task
from headatlas.task.benchmark import benchmarks
from tests import pages, toys
from tests.benchmarks.samples import SAMPLES

KNOWN = catalogue.load()
PROGRAM = typer.main.get_command(build())
COMMANDS = {
    **{("benchmark", id_): commands for id_, commands in benchmark_commands().items()},
    **{("method", id_): commands for id_, commands in method_commands().items()},
    **{("circuit", id_): circuit_commands(found, hub_id(KNOWN, id_)) for id_, found in KNOWN.circuits.items()},
}


def parsed(command: str) -> dict[str, object]:
    """What the program makes of a command line; raises where it does not know it."""
    words = shlex.split(command)
    assert words[0] == "headatlas"
    inner, left = PROGRAM, words[1:]
    while hasattr(inner, "commands"):
        inner, left = inner.commands[left[0]], left[1:]
    return inner.make_context("x", left).params


def test_every_benchmark_and_method_has_a_command():
    assert {id_ for kind, id_ in COMMANDS if kind == "benchmark"} == set(KNOWN.benchmarks)
    assert {id_ for kind, id_ in COMMANDS if kind == "method"} == set(KNOWN.methods)


@pytest.mark.parametrize(("kind", "id_"), COMMANDS)
def test_the_commands_of_a_page_are_understood(kind: str, id_: str):
    for command in COMMANDS[kind, id_]:
        task = parsed(command).get("task")
        for one in [task] if isinstance(task, str) else task or ():
            if "=" in one:
                known = benchmarks()[id_]
                assert one in (f"{id_}=PATH", known.spec)
                assert known.load is not None
            elif one != "TASK":
                assert find_task(one)
                assert kind != "benchmark" or benchmarks()[id_].spec == one
    if COMMANDS[kind, id_]:
        said = [text for label, text in page(KNOWN, kind, id_).facts if label == "Runs here"]
        assert said == record(KNOWN, kind, id_)["commands"] == list(COMMANDS[kind, id_])


def test_pages_of_the_site_carry_the_commands():
    made = render(SiteContext(KNOWN))
    for path, command in (
        ("benchmarks/mmlu.html", "headatlas score MODEL --task mmlu=cais/mmlu:all:test"),
        ("methods/mean-ablation.html", "headatlas ablate MODEL --task ioi --edit mean"),
        ("circuits/ioi.html", "headatlas circuit test openai-community/gpt2 ioi --task"),
    ):
        assert command in made[path]


def test_the_commands_of_the_page_are_understood(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("truthfulqa", "sst-sst2", "lre", "ag-news"):
        SAMPLES[name](tmp_path)
    (tmp_path / "relations" / "data").mkdir()
    (tmp_path / "relations" / "factual").rename(tmp_path / "relations" / "data" / "factual")
    for words in pages.commands("benchmark-tasks.md"):
        task = parsed(shlex.join(["headatlas", *words])).get("task")
        for one in [task] if isinstance(task, str) else task or ():
            assert len(find_task(one)(toys.smollm2_vocabulary(), 4)) >= 4


def test_the_list_names_files_and_licences():
    import headatlas as ha

    rows = {row["name"]: row for row in ha.list_known("benchmarks")}
    assert set(rows) == set(KNOWN.benchmarks)
    for name, found in benchmarks().items():
        assert rows[name]["spec"] == found.spec
        if found.load is not None:
            assert all(rows[name][key] for key in ("files", "card", "licence"))
