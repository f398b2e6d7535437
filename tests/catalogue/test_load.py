"""Loading: what is read, how fast, and what is refused before it can do harm."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headatlas.catalogue import CatalogueError, extras, gather, head_type, load, papers_for, stage_of
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.files.strict_yaml import read
from headatlas.catalogue.gather import FOLDER
from headatlas.errors import BadInput, UnknownName


def value_of(text: str) -> object:
    return read(text.encode(), "file.yaml").value


def refusal(data: bytes) -> str:
    with pytest.raises(CatalogueError) as caught:
        read(data, "file.yaml")
    return str(caught.value)


def test_our_catalogue_has_what_the_raw_list_has():
    catalogue = load()
    listed = [paper for paper in catalogue.papers.values() if paper.tags]  # as the list badges them
    sections = [paper.section for paper in listed]
    counts = {section: sections.count(section) for section in ("2025", "2024", "2023", "before-2023")}
    assert counts == {"2025": 12, "2024": 50, "2023": 13, "before-2023": 11}  # six of them by the day on arXiv
    assert len(listed) == 86
    for kind, entries in (("papers", catalogue.papers), ("heads", catalogue.heads)):
        assert len(entries) == len(list((FOLDER / kind).glob("*.yaml"))), kind
    assert [len(stage.dimensions) for stage in catalogue.stages.values()] == [2, 3, 3, 3]
    assert len(catalogue.methods) == 9
    assert len(catalogue.benchmarks) == 21
    assert all(paper.summary for paper in catalogue.papers.values())
    assert sum(head.placed_by == "survey" for head in catalogue.heads.values()) == 41


def test_every_part_is_read_with_its_lines(sample: Path):
    catalogue = load(sample)
    assert list(catalogue.papers) == ["doe-2019-words", "poe-2025-names", "roe-2024-patterns"]
    assert catalogue.papers["roe-2024-patterns"].date == datetime.date(2024, 3, 5)
    assert catalogue.claims["roe-2024-induction"].heads[0].head == "5.5"
    assert catalogue.circuits["repeats"].edges[0].kind == "k"
    place = catalogue.places["claim", "roe-2024-induction"]
    lines = (sample / "claims/roe-2024-patterns.yaml").read_text().splitlines()
    line = place.problem(("heads", 1), "", "").line
    assert "6.9" in lines[line - 1]


def test_head_types_are_found_by_id_name_and_alias(sample: Path):
    catalogue = load(sample)
    for name in ("induction-head", "Induction Head", "induction", "PREFIX matching head", "prefix-matching"):
        assert catalogue.head_type(name).id == "induction-head"
    with pytest.raises(UnknownName, match="Did you mean 'induction head'"):
        catalogue.head_type("inducton hed")


def test_papers_of_a_head_type_come_from_both_sides_oldest_first(sample: Path):
    catalogue = load(sample)
    assert [paper.id for paper in catalogue.papers_for("mover")] == ["roe-2024-patterns", "poe-2025-names"]
    # The head type names the paper, though the paper need not tag the head type.
    path = sample / "papers/doe-2019-words.yaml"
    path.write_text(path.read_text().replace("[memory-head]", "[mover-head]"))
    assert [paper.id for paper in load(sample).papers_for("memory-head")] == ["doe-2019-words"]
    assert [paper.id for paper in catalogue.papers_with_method("probing")] == ["doe-2019-words", "poe-2025-names"]


def test_the_mining_program_gets_what_its_report_needs():
    assert head_type("S-Inhibition Head").id == "inhibition-head"
    assert stage_of("induction-head").name == "Latent Reasoning"
    assert "olsson-2022-induction-heads" in [paper.id for paper in papers_for("induction-head")]
    report = extras()
    assert [stage["id"] for stage in report["stages"]] == ["kr", "ici", "lr", "ep"]
    induction = report["head_types"]["induction-head"]
    assert set(induction) == {"name", "stage", "dimension", "role", "papers"}
    assert {"id", "title", "year", "url"} == set(induction["papers"][0])
    assert list(report["head_types"]) == list(load().heads)


def test_our_catalogue_loads_in_a_third_of_a_second():
    seconds = []
    for _ in range(5):
        start = time.process_time()
        gather()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


def test_loading_needs_no_torch():
    script = "import sys, headatlas.catalogue as c; c.extras(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "command", ["list --head induction-head", "search induction", "check", "show induction-head", "add --help"]
)
def test_commands_of_the_catalogue_start_without_the_heavy_packages(command: str):
    script = (
        "import sys\nfrom headatlas.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'duckdb'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script, "papers", *command.split()], check=True, stdout=subprocess.DEVNULL)


def test_the_detectors_read_from_their_files_are_those_that_exist():
    from headatlas.detector import detectors

    real: dict[str, list[str]] = {}
    for detector in detectors().values():
        if detector.module.startswith("headatlas."):
            real.setdefault(detector.head_type, []).append(detector.name)
    assert detector_names() == {head_type: tuple(sorted(names)) for head_type, names in real.items()}


def test_a_dangling_id_stops_loading(sample: Path):
    path = sample / "papers/poe-2025-names.yaml"
    path.write_text(path.read_text().replace("heads: [mover-head]", "heads: [moover-head]"))
    with pytest.raises(CatalogueError, match=r"poe-2025-names.yaml:8: .*Did you mean 'mover-head'"):
        load(sample)


def test_a_folder_without_a_catalogue_is_named(tmp_path: Path):
    with pytest.raises(BadInput, match="is not a catalogue folder"):
        load(tmp_path)
    with pytest.raises(BadInput, match="There is no folder"):
        load(tmp_path / "nowhere")


def test_words_stay_words_and_numbers_become_numbers():
    text = "a: no\nb: 09\nc: 1.5\nd: 2024-01-02\ne: ~\nf: '1'\ng: -3\nh: yes\ni: 12:30\nj: 1e3\nk: |\n  7\nl: <<\n"
    assert value_of(text) == {
        **{"a": "no", "b": "09", "c": 1.5, "d": datetime.date(2024, 1, 2), "e": None, "f": "1", "g": -3},
        **{"h": "yes", "i": "12:30", "j": 1000.0, "k": "7\n", "l": "<<"},
    }


def test_numbers_too_long_to_convert_stay_texts():
    assert value_of("a: " + "9" * 5000) == {"a": "9" * 5000}


BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "file.yaml:1: 'a' is a YAML anchor"),
        (b"a: *b", "file.yaml:1: 'b' is a YAML anchor or alias"),
        (b"x: 1\n*b : 1", "file.yaml:2: 'b' is a YAML anchor or alias"),
        (b"a: 1\nb:\n  c: 1\n  c: 2", "file.yaml:4: the key 'c' stands here twice"),
        (
            b"a: !!python/object/apply:os.system ['true']",
            "file.yaml:1: 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        (b"a: !!str 1", "is a YAML tag"),
        (b"a: 1\n---\nb: 2", "file.yaml:3: a second YAML document"),
        (b"a: 1\nb: Caf\xe9", "file.yaml:2: byte 11 (0xe9) is not UTF-8. Save the file as UTF-8."),
        (b"\xff\xfea\x00:\x00", "file.yaml:1: byte 0 (0xff) is not UTF-8"),
        (b"[" * 100_000, "nested more than 12 deep"),
        (b"[" + b"[]," * 200_001 + b"]", "more than 200,000 values"),
        (b"- " * 50_000, "nested more than 12 deep"),
        (b"? [a]\n: 1", "a list or mapping is used as a key"),
        (b"", "file.yaml:1: the file is empty"),
        (b"# nothing", "the file is empty"),
        (b"a: [1", "this is not YAML"),
        (b"a: b: c", "quote a text that holds"),
        (b"a:\n\tb: 1", "file.yaml:2: this is not YAML"),
        (b"a: 1\nb: \x07", "file.yaml:2: this is not YAML: control characters are not allowed"),
        (b'a: "\\e[31mred"', "invisible character U+001B"),
        ("a: x\u202ey".encode(), "invisible character U+202E"),
        (b"d: 2024-02-31", "'2024-02-31' is no date"),
    ],
)
def test_hostile_and_broken_yaml_is_refused_with_its_line(data: bytes, message: str):
    start = time.process_time()  # which a busy machine does not stretch
    assert message in refusal(data)
    assert time.process_time() - start < 1


@given(st.binary(max_size=300) | st.text("ab: -[]{}&*!|>'\"\n#?%@`0.\\", max_size=80).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused_in_words(data: bytes):
    said = ""
    try:
        read(data, "file.yaml")
    except CatalogueError as error:
        said = str(error)
    assert not said or said.startswith("file.yaml:")


def test_a_huge_file_is_refused_unread(sample: Path):
    (sample / "papers/huge.yaml").write_bytes(b"a: '" + b"x" * 5_000_000)
    with pytest.raises(CatalogueError, match=r"huge.yaml:1: the file has more than 200,000 bytes"):
        load(sample)


def test_links_to_files_outside_are_refused(sample: Path, tmp_path: Path):
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: hunter2\n")
    (sample / "papers/link.yaml").symlink_to(secret)
    with pytest.raises(CatalogueError, match=r"link.yaml:1: this is not a regular file") as caught:
        load(sample)
    assert "hunter2" not in str(caught.value)
    (sample / "papers/link.yaml").unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    os.rename(sample / "circuits", tmp_path / "circuits")
    (sample / "circuits").symlink_to(tmp_path / "circuits")
    with pytest.raises(CatalogueError, match="the folder is a symbolic link"):
        load(sample)


def test_a_pipe_does_not_hang_the_loader(sample: Path):
    os.mkfifo(sample / "papers/pipe.yaml")
    with pytest.raises(CatalogueError, match="not a regular file"):
        load(sample)


@pytest.mark.parametrize("id_", ["../../etc/passwd", "a/b", "A-B", "a--b", "-a", "", ".", "con ", "a\n", "x" * 81])
def test_ids_cannot_lead_out_of_a_folder(sample: Path, id_: str):
    path = sample / "papers/poe-2025-names.yaml"
    path.write_text(path.read_text().replace("id: poe-2025-names", f"id: {id_!r}"))
    with pytest.raises(CatalogueError, match=r"poe-2025-names\.yaml:1: 'id'"):
        load(sample)


def test_entries_cannot_be_changed(sample: Path):
    catalogue = load(sample)
    with pytest.raises(Exception, match="frozen"):
        catalogue.papers["poe-2025-names"].title = "Other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        catalogue.papers["x"] = catalogue.papers["poe-2025-names"]  # type: ignore[index]
