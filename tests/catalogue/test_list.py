"""`papers list`, `show` and `stats`: what is asked for comes out, and wrong names are answered with the right one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headatlas.catalogue import load
from headatlas.catalogue.describe import KINDS, entries, find, page, record
from headatlas.catalogue.filters import Filters, select
from headatlas.catalogue.stats import STRENGTH, stats
from headatlas.cli.papers import app
from headatlas.errors import UnknownName


def ids(folder: Path, **filters: object) -> list[str]:
    return [paper.id for paper in select(load(folder), Filters(**filters))]  # type: ignore[arg-type]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_all_papers_come_newest_first(sample: Path):
    assert ids(sample) == ["poe-2025-names", "roe-2024-patterns", "doe-2019-words"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"stage": "lr"}, ["poe-2025-names", "roe-2024-patterns"]),
        ({"stage": "Knowledge Recalling"}, ["doe-2019-words"]),
        ({"head": "induction-head"}, ["roe-2024-patterns"]),
        ({"head": "prefix matching"}, ["roe-2024-patterns"]),
        ({"method": "Mean Ablation"}, ["poe-2025-names", "roe-2024-patterns"]),
        ({"method": "probing"}, ["poe-2025-names", "doe-2019-words"]),
        ({"benchmark": "Word Pairs"}, ["roe-2024-patterns"]),
        ({"year": 2024}, ["roe-2024-patterns"]),
        ({"model": "gpt2"}, ["roe-2024-patterns"]),
        ({"model": "pythia"}, ["poe-2025-names"]),
        ({"venue": "neurips"}, ["roe-2024-patterns"]),
        ({"venue": "acl"}, ["doe-2019-words"]),
        ({"has_code": True}, ["roe-2024-patterns"]),
        ({"stage": "lr", "method": "probing"}, ["poe-2025-names"]),
        ({"stage": "kr", "has_code": True}, []),
    ],
)
def test_each_filter_and_their_combination(sample: Path, filters: dict[str, object], expected: list[str]):
    assert ids(sample, **filters) == expected


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"stage": "latent reasonin"}, "no stage called 'latent reasonin'. Did you mean 'latent reasoning'"),
        ({"head": "inducton-head"}, "no head type called 'inducton-head'. Did you mean 'induction-head'"),
        ({"method": "mean-ablaton"}, "no method called 'mean-ablaton'. Did you mean 'mean-ablation'"),
        ({"benchmark": "paris"}, "no benchmark called 'paris'. Did you mean 'pairs'"),
        ({"year": 2020}, "no paper of 2020. Years are: 2019, 2024, 2025"),
        ({"model": "gtp2 small"}, "No paper names a model like 'gtp2 small'. Did you mean 'GPT-2 small'"),
        ({"venue": "neurops 2024"}, "Did you mean 'NeurIPS 2024'"),
        ({"model": "---"}, "No paper names a model like '---'."),
    ],
)
def test_an_unknown_value_is_answered_with_the_nearest(sample: Path, filters: dict[str, object], message: str):
    with pytest.raises(UnknownName) as caught:
        ids(sample, **filters)
    assert message in str(caught.value)


def test_the_model_is_found_however_it_is_written():
    catalogue = load()
    sizes = {written: len(select(catalogue, Filters(model=written))) for written in ("gpt2", "GPT-2", "gpt 2")}
    assert len(set(sizes.values())) == 1
    assert sizes["gpt2"] > 5
    small = select(catalogue, Filters(model="gpt2-small"))
    assert 0 < len(small) < sizes["gpt2"] + 1


def test_json_has_the_agreed_shape(sample: Path):
    data = json.loads(run("list", "--data", str(sample), "--json"))
    assert list(data) == ["papers"]
    paper = data["papers"][1]
    assert paper["id"] == "roe-2024-patterns"
    assert paper["date"] == "2024-03-05"
    assert paper["heads"] == ["induction-head", "mover-head"]
    assert paper["stages"] == ["lr"]
    assert {"innovation", "tasks", "result"} <= set(paper["summary"])
    assert paper["summary"]["result"] == "Two heads suffice."


def test_the_listing_names_every_paper(sample: Path):
    text = run("list", "--data", str(sample), "--stage", "lr")
    assert "2 of 3 papers." in text
    assert "poe-2025-names" in text
    assert "doe-2019-words" not in text
    assert run("list", "--data", str(sample), "--stage", "kr", "--has-code") == "0 of 3 papers.\n"


def test_a_wrong_name_is_one_line_and_exit_code_1():
    arguments = [sys.executable, "-m", "headatlas", "papers", "list", "--head", "indcution-head"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ("headatlas: There is no head type called 'indcution-head'. Did you mean 'induction-head'?\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("roe-2024-patterns", ("paper", "roe-2024-patterns")),
        ("names move", ("paper", "poe-2025-names")),
        ("2403.01234", ("paper", "roe-2024-patterns")),
        ("10.1000/words", ("paper", "doe-2019-words")),
        ("prefix matching", ("head type", "induction-head")),
        ("S-Mover Head", ("head type", "mover-head")),
        ("head-type/mover-head", ("head type", "mover-head")),
        ("Mean Ablation", ("method", "mean-ablation")),
        ("word pairs", ("benchmark", "pairs")),
        ("repeats", ("circuit", "repeats")),
        ("roe-2024-induction", ("claim", "roe-2024-induction")),
        ("lr", ("stage", "lr")),
    ],
)
def test_entries_of_every_kind_are_found_by_their_names(sample: Path, name: str, expected: tuple[str, str]):
    assert find(load(sample), name) == expected


def test_an_unknown_entry_and_a_shared_id_say_what_to_write(sample: Path):
    with pytest.raises(UnknownName, match="Did you mean 'names move'"):
        find(load(sample), "names moove")
    with pytest.raises(UnknownName, match="papers search"):
        find(load(sample), "qqqqqqqq")
    circuit = (sample / "circuits/repeats.yaml").read_text().replace("id: repeats", "id: pairs")
    (sample / "circuits/pairs.yaml").write_text(circuit)
    with pytest.raises(UnknownName, match="Write benchmark/pairs or circuit/pairs"):
        find(load(sample), "pairs")
    assert find(load(sample), "circuit/pairs") == ("circuit", "pairs")


def test_every_entry_of_ours_has_a_page_and_a_record():
    catalogue = load()
    for kind in KINDS:
        for id_ in entries(catalogue, kind):
            made, data = page(catalogue, kind, id_), record(catalogue, kind, id_)
            assert made.title, (kind, id_)
            assert made.facts, (kind, id_)
            assert all(text for _, text in made.facts), (kind, id_)
            assert all(len(row) == len(columns) for _, columns, rows in made.tables for row in rows), (kind, id_)
            assert data["entry"] == kind
            json.dumps(data)


def test_a_page_shows_what_other_entries_say_of_it(sample: Path):
    text = run("show", "prefix matching head", "--data", str(sample))
    for expected in (
        "Induction Head",
        "Latent Reasoning › In-context Learning",
        "roe-2024-patterns",
        "5.5 6.9",
        "repeats",
    ):
        assert expected in text
    data = json.loads(run("show", "induction-head", "--data", str(sample), "--json"))
    assert data["papers"] == ["roe-2024-patterns"]
    assert data["claims"] == ["roe-2024-induction"]
    assert data["circuits"] == ["repeats"]
    assert data["detectors"]
    circuit = run("show", "repeats", "--data", str(sample))
    assert "Previous token heads" in circuit
    assert "4.11" in circuit


def test_square_brackets_in_texts_are_not_taken_for_markup(sample: Path):
    path = sample / "papers/poe-2025-names.yaml"
    path.write_text(path.read_text().replace("Names Move", "'[bold]Names[/bold] [link=file:///etc/passwd]Move[/link]'"))
    assert "[bold]Names[/bold] [link=file:///etc/passwd]Move[/link]" in run(
        "show", "poe-2025-names", "--data", str(sample)
    )


def test_counts_add_up():
    catalogue, counted = load(), stats(load())
    papers = counted["papers"]
    assert sum(papers["section"].values()) == sum(papers["year"].values()) == len(catalogue.papers)
    assert list(papers["year"]) == sorted(papers["year"], reverse=True)
    assert sum(counted["head_types"]["stage"].values()) == sum(counted["head_types"]["dimension"].values())
    placed_by = counted["head_types"]["placed_by"]
    assert placed_by == {"survey": 41, "ours": len(catalogue.heads) - 41}
    assert papers["head_type"]["induction-head"] == len(catalogue.papers_for("induction-head"))
    assert list(papers["stage"]) == ["kr", "ici", "lr", "ep"]
    evidence = counted["evidence"]
    best = {what: sum(kind["best"] for kind in kinds.values()) for what, kinds in evidence.items()}
    assert best["summaries"] == counted["totals"]["papers_with_summary"] == len(catalogue.papers)
    assert best["claims"] == counted["totals"]["claims"] == len(catalogue.claims)
    assert best["head_types"] == len(catalogue.heads)
    assert list(evidence["claims"]) == list(STRENGTH)


def test_evidence_is_counted_as_best_only_and_named(sample: Path):
    evidence = stats(load(sample))["evidence"]["summaries"]
    # [abstract, code], [abstract], [recall]
    assert evidence["code"] == {"best": 1, "only": 0, "named": 1}
    assert evidence["abstract"] == {"best": 1, "only": 1, "named": 2}
    assert evidence["recall"] == {"best": 1, "only": 1, "named": 1}
    assert evidence["upstream"] == {"best": 0, "only": 0, "named": 0}


def test_stats_are_printed_and_given_as_json(sample: Path):
    text = run("stats", "--data", str(sample), "--top", "1")
    assert "papers by year" in text
    assert "and 2 more" in text
    assert json.loads(run("stats", "--data", str(sample), "--json"))["totals"]["papers"] == 3


@pytest.mark.parametrize("command", ["list", "show", "search", "stats", "render", "bib", "export", "check"])
def test_every_command_has_help_with_an_example(command: str):
    text = " ".join(run(command, "--help").split())
    assert f"Example: headatlas papers {command}" in text


def test_the_example_of_the_issue_finds_papers():
    text = run("list", "--stage", "lr", "--head", "induction-head", "--year", "2024")
    wanted = [paper for paper in load().papers_for("induction-head") if paper.date.year == 2024]
    assert len(wanted) >= 13
    assert f"{len(wanted)} of {len(load().papers)} papers." in text


def test_a_terminal_without_unicode_still_gets_the_list(sample: Path):
    arguments = [sys.executable, "-m", "headatlas", "papers", "show", "roe-2024-patterns", "--data", str(sample)]
    done = subprocess.run(arguments, capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "Jan? Roe, Ada Example" in done.stdout
