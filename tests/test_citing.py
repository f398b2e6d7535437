"""What to cite: whatever can be run has its papers, the entries are BibTeX, and CITATION.cff says what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from pybtex.database import parse_string

import headatlas as ha
from headatlas import citing
from headatlas.catalogue import load
from headatlas.overview import list_known
from headatlas.tasks._names import task_names
from tests.pages import run

ROOT = Path(__file__).parents[1]


def keys(*what: object) -> list[str]:
    return list(parse_string(ha.cite(*what), "bibtex").entries)


def test_headatlas_and_the_survey_come_first_and_alone():
    assert keys() == ["headatlas", "zheng-2024-survey"]
    assert ha.__version__ in ha.cite()


@pytest.mark.parametrize(
    ("what", "paper"),
    [
        ("induction", "olsson-2022-induction-heads"),  # a detector
        ("icl-antonym", "todd-2024-function-vectors"),  # a task of a family
        ("ioi-held-out", "wang-2023-ioi"),
        ("path", "wang-2023-ioi"),  # a command
        ("edge_scores", "hanna-2024-eap-ig"),  # a function
        ("copy-scores", "elhage-2021-mathematical-framework"),
        ("Induction Head", "olsson-2022-induction-heads"),  # a head type by its name
        ("probing", "li-2023-iti"),  # a method of the catalogue
        ("circuit/acronyms", "garcia-carrasco-2024-acronyms"),
    ],
)
def test_whatever_can_be_used_has_its_papers(what, paper):
    found = keys(what)
    assert found[:2] == ["headatlas", "zheng-2024-survey"]
    assert paper in found


def test_every_task_method_and_work_is_known():
    known = citing._known()
    papers = {*load().papers, *known.works}
    assert not known.works.keys() & load().papers.keys()
    assert {id_ for ids in (*known.methods.values(), *known.tasks.values()) for id_ in ids} <= papers
    assert [name for name in task_names() if not list(citing._of_task(name)) and "prose" not in name] == []
    for row in list_known("detectors"):
        assert len(keys(row["name"])) > 2, row["name"]
    functions = {
        name for name, module in ha._PUBLIC.items() if module.split(".")[1] in ("methods", "circuits", "apply")
    }
    measuring = {name for name in functions if name[0].islower()} - {"labels_of", "compare_circuits"}
    assert measuring <= known.methods.keys()


def test_a_work_comes_once_and_the_oldest_first():
    found = keys("induction", "induction-copy", "olsson-2022-induction-heads", "ioi", "path")
    assert len(set(found)) == len(found)
    papers = {**load().papers, **citing._known().works}
    dates = [papers[id_].date for id_ in found[2:]]
    assert len(dates) > 10
    assert dates == sorted(dates)


def test_a_run_a_sweep_and_a_circuit_are_cited_by_what_they_ran(tmp_path):
    with ZipFile(ROOT / "tests" / "mining" / "runs.zip") as packed:
        packed.extractall(tmp_path)
    data = json.loads((tmp_path / "finished" / "atlas.json").read_text())
    expected = {paper.id for one in data["detectors"] for paper in load().papers_for(one["head_type"])}
    assert expected <= set(keys(tmp_path / "finished"))
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "effects.json").write_text(json.dumps({"kind": "denoising", "run": {"task": "acronyms"}}))
    assert {"zhang-2023-patching-practices", "garcia-carrasco-2024-acronyms"} <= set(keys(sweep))
    circuit = tmp_path / "circuit.json"
    circuit.write_text(json.dumps({"schema": "headatlas/circuit/1", "task": "greater-than"}))
    assert {"miller-2024-faithfulness", "hanna-2023-greater-than"} <= set(keys(str(circuit)))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("inducton", "Did you mean 'induction'?"),
        ("nowhere.json", "nowhere.json"),
        ("empty", "holds no finished run"),
        ("other.json", "holds no circuit"),
        ("broken", "lacks run"),
    ],
)
def test_what_cannot_be_cited_is_said_on_one_line(what, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "effects.json").write_text('{"kind": "noising"}')
    code, out, err = run(capsys, "cite", what)
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_command_prints_or_writes_what_the_function_gives(tmp_path, capsys):
    code, out, _ = run(capsys, "cite", "ioi", "path")
    assert (code, out) == (0, ha.cite("ioi", "path"))
    code, out, _ = run(capsys, "cite", "ioi", "--out", tmp_path / "used.bib")
    assert (tmp_path / "used.bib").read_text() == ha.cite("ioi")
    assert code == 0
    assert "used.bib" in out


def test_the_citation_file_says_the_same():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= told.keys()  # what the format demands
    entries = parse_string(ha.cite(), "bibtex").entries
    software, survey = entries["headatlas"], entries["zheng-2024-survey"]
    assert (told["title"], str(told["version"])) == (software.fields["title"], ha.__version__)
    assert [author["name"] for author in told["authors"]] == [
        str(one).strip("{}") for one in software.persons["author"]
    ]
    (reference,) = told["references"]
    names = [f"{one['given-names']} {one['family-names']}" for one in reference["authors"]]
    assert names == [" ".join([*one.first_names, *one.last_names]) for one in survey.persons["author"]]
    assert reference["title"] == survey.fields["title"]
    assert survey.fields["eprint"] in reference["url"]
    assert re.search(r"^license: Apache-2.0$", (ROOT / "CITATION.cff").read_text(), re.M)
