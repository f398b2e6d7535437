"""`papers check`: no fault passes, and each is reported in the file and line where it stands."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from headatlas.catalogue.check import SCHEMA_FILE, check, json_schema
from headatlas.catalogue.curation.web_links import Offline, check_links
from headatlas.catalogue.gather import FOLDER
from headatlas.catalogue.rules.papers import section_of
from headatlas.cli.papers import app
from tests.catalogue.faults import DOE, FAULTS, POE, ROE, Fault


def plant(folder: Path, fault: Fault) -> None:
    path = folder / fault.file
    text = path.read_text(encoding="utf-8")
    if fault.message == "the summary is missing":
        text = text[: text.index("summary:")]
    elif fault.message == "no paper names this head type":
        text = text.replace(fault.old, "")
        paper = folder / DOE
        paper.write_text(paper.read_text().replace("[memory-head]", "[mover-head]"))
    elif fault.old:
        assert fault.old in text, f"{fault.old!r} is not in the sample"
        text = text.replace(fault.old, fault.new, 1)
    else:
        text = fault.new
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def test_the_sample_has_no_fault(sample: Path):
    assert check(sample)[1] == []


def test_our_data_have_no_fault():
    assert check()[1] == []


def test_thirty_faults_and_more_are_planted():
    assert len(FAULTS) >= 70


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_in_its_file_and_line(sample: Path, name: str):
    fault = FAULTS[name]
    plant(sample, fault)
    _, problems = check(sample)
    path = sample / fault.file
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    wanted = [number for number, text in enumerate(lines, 1) if fault.line is None or fault.line in text]
    wanted = [1] if fault.line is None else wanted
    said = [p for p in problems if fault.message in f"{p.wrong} {p.right}"]
    assert said, f"not found; said instead: {[str(p) for p in problems]}"
    assert all(p.file == str(path) and p.line in wanted for p in said), [str(p) for p in said]
    assert all(p.wrong.endswith(".") and p.wrong for p in said)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("other-title", "arxiv: '2403.01234'", "arxiv: '2403.01234'", "arxiv 2403.01234 belongs to"),
        ("same-doi", "arxiv: '2403.01234'", "doi: 10.1000/WORDS", "doi 10.1000/WORDS belongs to 'doe-2019-words'"),
        ("same-key", "arxiv: '2403.01234'\n", "", "bib_keys Patterns_24 belongs to"),
        ("near-title", "arxiv: '2403.01234'\n", "", "the title is nearly that of"),
    ],
)
def test_a_paper_entered_twice_is_found(sample: Path, name: str, old: str, new: str, message: str):
    text = (sample / ROE).read_text().replace("roe-2024-patterns", name).replace(old, new)
    if name == "near-title":
        text = text.replace(
            "Patterns That Repeat: Induction in GPT-2 & Friends", "Patterns that repeat - induction in GPT2 and friends"
        )
        text = text.replace("https://arxiv.org/abs/2403.01234", "https://example.org/other").replace(
            "bib_keys: [Patterns_24]\n", ""
        )
    (sample / f"papers/{name}.yaml").write_text(text)
    assert any(message in p.wrong for p in check(sample)[1])


def test_titles_that_merely_share_words_are_no_duplicates(sample: Path):
    text = (
        (sample / POE)
        .read_text()
        .replace("poe-2025-names", "poe-2025-faces")
        .replace("Names Move", "Faces Move Slowly")
    )
    (sample / "papers/poe-2025-faces.yaml").write_text(text.replace("example.org/names", "example.org/faces"))
    assert check(sample)[1] == []


@pytest.mark.parametrize("name", ["notes.txt", "roe-2024-patterns.yml", "folder"])
def test_strays_in_the_folders_are_found(sample: Path, name: str):
    path = sample / "papers" / name
    path.write_text("x") if "." in name else path.mkdir()
    assert [p.file for p in check(sample)[1]] == [str(path)]


def test_a_broken_file_is_one_fault_and_not_ten(sample: Path):
    (sample / ROE).write_text("title: [")
    assert [p.file for p in check(sample)[1]] == [str(sample / ROE)]
    (sample / "methods.yaml").write_text("oops")
    assert {p.file for p in check(sample)[1]} == {str(sample / ROE), str(sample / "methods.yaml")}


def test_signs_of_the_field_are_not_markup(sample: Path):
    text = (sample / POE).read_text().replace("Stories.", "'Sinks at <s>, <bos>, <|endoftext|>; a < b and c > d.'")
    (sample / POE).write_text(text)
    assert check(sample)[1] == []


def test_texts_may_link_to_entries(sample: Path):
    (sample / POE).write_text(
        (sample / POE).read_text().replace("Stories.", "'Like [[roe-2024-patterns]], [a](#mover-head).'")
    )
    assert check(sample)[1] == []


def test_the_oldest_section_ends_with_the_announcement():
    assert section_of(datetime.date(2022, 11, 29)) == "before-2023"
    assert section_of(datetime.date(2022, 12, 5)) == "2023"
    assert section_of(datetime.date(2023, 1, 1)) == "2023"


def test_the_command_prints_faults_and_exits_with_1(sample: Path):
    good = CliRunner().invoke(app, ["check", "--data", str(sample)])
    assert (good.exit_code, good.output) == (0, "no problems in 3 papers, 3 head types, 1 claims.\n")
    plant(sample, FAULTS["unknown head type"])
    bad = CliRunner().invoke(app, ["check", "--data", str(sample)])
    assert bad.exit_code == 1
    assert bad.output.startswith(f"{sample / POE}:8: there is no head type 'moving-head'. Did you mean")
    found = json.loads(CliRunner().invoke(app, ["check", "--data", str(sample), "--json"]).output)
    assert found["problems"][0]["line"] == 8


def test_the_whole_program_passes_on_our_data():
    done = subprocess.run([sys.executable, "-m", "headatlas", "papers", "check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"no problems in \d+ papers, \d+ head types, \d+ claims\.\n", done.stdout)


def test_the_schema_for_editors_is_up_to_date_and_fits_our_files():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json_schema(), "run: headatlas papers check --schema > the file"
    schema = json.loads(json_schema())
    validator = jsonschema.Draft202012Validator(schema)
    for path in [
        FOLDER / "methods.yaml",
        *sorted(FOLDER.glob("heads/*.yaml"))[:3],
        *sorted(FOLDER.glob("papers/*.yaml"))[:3],
    ]:
        data = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str))
        assert list(validator.iter_errors(data)) == [], path
    assert list(validator.iter_errors({"id": "x", "nonsense": 1}))


class _Web(BaseHTTPRequestHandler):
    """Answers by path: /alive 200, /gone 404, /shy 403, /noh 405 to HEAD; /api an Atom answer."""

    feed = ""
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def _answer(self) -> None:
        self.asked.append((self.command, self.path))
        code = {"/gone": 404, "/shy": 403}.get(self.path, 200)
        if self.path == "/headless" and self.command == "HEAD":
            code = 405
        body = self.feed.encode() if self.path.startswith("/api") else b"page"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def web(feed: str) -> Iterator[str]:
    handler = type("Handler", (_Web,), {"feed": feed, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def feed_of(title: str) -> str:
    entry = f"<entry><id>http://arxiv.org/abs/2403.01234v3</id><title>{title}</title></entry>"
    return f'<feed xmlns="http://www.w3.org/2005/Atom">{entry if title else ""}</feed>'


def point_to(folder: Path, address: str, pages: dict[str, str]) -> None:
    for file, (old, page) in {
        POE: ("https://example.org/names", pages["poe"]),
        DOE: ("https://doi.org/10.1000/words", pages["doe"]),
        ROE: ("https://github.com/example/patterns", pages["roe"]),
        "benchmarks.yaml": ("https://example.org/pairs", pages["pairs"]),
    }.items():
        path = folder / file
        path.write_text(path.read_text().replace(old, f"{address}{page}"))


PAGES = {"poe": "/alive", "doe": "/gone", "roe": "/shy", "pairs": "/headless"}


def test_links_are_visited_once_each_and_dead_ones_reported(sample: Path, monkeypatch: pytest.MonkeyPatch):
    with web(feed_of("Patterns that repeat: induction in GPT-2 and friends")) as address:
        point_to(sample, address, PAGES)
        monkeypatch.setenv("HEADATLAS_ARXIV_URL", f"{address}/api/query")
        pauses: list[float] = []
        visited = check_links(check(sample)[0], sleep=pauses.append)
    assert [p.wrong for p in visited.problems] == [f"{address}/gone answers 404: it is gone."]
    assert visited.problems[0].file == str(sample / DOE)
    assert visited.unclear == [f"{address}/shy (403)"]
    assert visited.alive == 3
    assert pauses == [1.0] * 3


@pytest.mark.parametrize(("title", "message"), [("", "arXiv has no paper 2403.01234"), ("On Frogs", "is 'On Frogs'")])
def test_arxiv_is_asked_whether_the_id_is_that_paper(
    sample: Path, monkeypatch: pytest.MonkeyPatch, title: str, message: str
):
    with web(feed_of(title)) as address:
        point_to(sample, address, dict.fromkeys(PAGES, "/alive"))
        monkeypatch.setenv("HEADATLAS_ARXIV_URL", f"{address}/api/query")
        visited = check_links(check(sample)[0], sleep=lambda _: None)
    assert [p.file for p in visited.problems] == [str(sample / ROE)]
    assert message in visited.problems[0].wrong


def test_offline_is_said_once(sample: Path, monkeypatch: pytest.MonkeyPatch):
    point_to(sample, "http://127.0.0.1:9", PAGES)
    monkeypatch.setenv("HEADATLAS_ARXIV_URL", "http://127.0.0.1:9/api/query")
    with pytest.raises(Offline, match=r"No link was checked: arXiv, 127\.0\.0\.1:9 cannot be reached"):
        check_links(check(sample)[0], sleep=lambda _: None)
    arguments = [sys.executable, "-m", "headatlas", "papers", "check", "--links", "--data", str(sample)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
