"""`papers import-issue`: a stranger's form becomes an entry, or a list of what is missing, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headatlas.catalogue.check import check
from headatlas.catalogue.curation.form_text import LARGEST, OPTIONAL, REQUIRED, FormError, answers, read_form
from headatlas.catalogue.curation.issue_form import READ, import_form
from headatlas.catalogue.curation.target import open_target
from headatlas.catalogue.gather import FOLDER
from headatlas.cli import main
from headatlas.errors import BadInput, HeadAtlasError

OURS = open_target()
ROOT = Path(__file__).parents[3]
GOOD = {
    "Title": "Echo Chambers: Induction Heads and Their Rivals",
    "Date": "2025-02-20",
    "Link": "https://arxiv.org/abs/2502.99991",
    "More links": "https://github.com/example/echo\nhttps://echo.example.org/",
    "Authors": "Ada M. Lovelace\nÉmile Borel",
    "Venue": "_No response_",
    "Head types": "Induction Head\nprevious token heads, S-Inhibition Head",
    "Models": "GPT-2 small",
    "Innovation": "Heads that compete with induction heads are told apart from them.",
    "Tasks": "Repeated words in GPT-2 small.",
    "Result": "Half of the heads only look like induction heads.",
    "What did you read?": "the abstract, the authors' code",
}


def form(**changes: str | None) -> str:
    """The form's text with other answers; None leaves the heading out. Keyword `Head_types` is 'Head types'."""
    values = {**GOOD, **{key.replace("_", " "): value for key, value in changes.items()}}
    return "".join(f"### {key}\n\n{value}\n\n" for key, value in values.items() if value is not None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "data"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An empty folder of one's own."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def problems(folder: Path, text: str | bytes) -> str:
    """What is said of a form that must be refused; checks that nothing at all was written."""
    path = folder.parent / "form.md"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(HeadAtlasError) as caught:
        import_form(path, target=open_target(folder))
    assert sorted(folder.parent.rglob("*")) == before
    return str(caught.value)


def test_a_filled_in_form_becomes_an_entry_that_passes_the_check(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "form.md"
    path.write_text(form(), encoding="utf-8")
    before = {str(problem) for problem in check(home)[1]}
    imported = import_form(path, target=open_target(home))
    assert imported.path == home / "papers" / "lovelace-2025-echo-chambers.yaml"
    assert {str(problem) for problem in check(home)[1]} == before
    entry = yaml.safe_load(imported.path.read_text(encoding="utf-8"))
    assert entry["title"] == GOOD["Title"]
    assert entry["date"] == datetime.date(2025, 2, 20)
    assert entry["arxiv"] == "2502.99991"
    assert entry["venue"] == "arXiv"
    assert entry["authors"] == ["Ada M. Lovelace", "Émile Borel"]
    assert entry["heads"] == ["induction-head", "previous-head", "inhibition-head"]
    assert [(link["kind"], link["url"]) for link in entry["links"]] == [
        ("paper", "https://arxiv.org/abs/2502.99991"),
        ("code", "https://github.com/example/echo"),
        ("project", "https://echo.example.org/"),
    ]
    assert entry["summary"] == {
        "innovation": GOOD["Innovation"],
        "tasks": GOOD["Tasks"],
        "result": GOOD["Result"],
        "evidence": ["abstract", "code"],
    }
    assert imported.notes == ()


@pytest.mark.parametrize("heading", sorted(REQUIRED))
@pytest.mark.parametrize("answer", [None, "", "_No response_"])
def test_each_missing_part_is_named(small: Path, heading: str, answer: str | None) -> None:
    said = problems(small, form(**{heading: answer}))
    assert f"- {heading} is missing" in said
    assert said.count("\n- ") == 1


def test_all_that_is_missing_is_listed_at_once(small: Path) -> None:
    said = problems(small, form(Title=None, Result="", Date="soon", Link="see attachment"))
    for part in ("Title is missing", "Result is missing", "Date is 'soon'", "Link holds 'see'"):
        assert part in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Date": "20.02.2025"}, "write year-month-day"),
        ({"Date": "2025-02-30"}, "write year-month-day"),
        ({"Date": "2999-01-01"}, "expected a day from 2014 to today"),
        ({"Date": "0001-01-01"}, "expected a day from 2014 to today"),
        ({"Link": "javascript:alert(1)"}, "web addresses that start with https"),
        ({"Link": "file:///etc/passwd"}, "web addresses that start with https"),
        ({"Link": 'https://example.org/"onmouseover=alert(1)'}, "web addresses that start with https"),
        ({"Link": "https://example.org/" + "a" * 400}, "web addresses that start with https"),
        ({"Title": "Heads <script>alert(1)</script>"}, "Title holds HTML"),
        ({"Title": "Heads <img src=x onerror=alert(1)>"}, "Title holds HTML"),
        ({"Title": "Heads &lt;script&gt;"}, "Title holds HTML"),
        ({"Result": "See [here](javascript:alert(1))"}, "Result holds HTML or a Markdown link"),
        ({"Innovation": "<!-- hidden -->new"}, "Innovation holds HTML"),
        ({"Authors": "Ada <b>L</b>"}, "Authors holds HTML"),
        ({"Title": "Heads \u202egnp.exe"}, "invisible character U\\+202E"),
        ({"Tasks": "\x1b[2J cleared"}, "invisible character U\\+001B"),
        ({"Title": "x" * 400}, "'title' is"),
        ({"Title": "ab"}, "'title' is"),
        ({"Result": "word " * 60}, "at most 60"),
        ({"Head_types": "$(rm -rf /)"}, "Head types holds"),
        ({"Head_types": "../../etc/passwd"}, "Head types holds"),
        ({"What_did_you_read?": "nothing"}, "What did you read\\? is missing"),
        ({"Link": "https://arxiv.org/abs/1901.00001"}, "2019|years|months"),
        ({"Authors": "A B\nC D\n- A B\nA B"}, None),
    ],
)
def test_wrong_answers_are_named(small: Path, changes: dict[str, str], message: str | None) -> None:
    if message is None:  # a name given twice is only kept once
        path = small.parent / "form.md"
        path.write_text(form(**changes), encoding="utf-8")
        assert import_form(path, target=open_target(small)).paper.authors == ["A B", "C D"]
        return
    assert re.search(message, problems(small, form(**changes)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "none of the form's headings"),
        (b"\x00\x01\x02", "none of the form's headings"),
        (b"hello, please add my paper", "none of the form's headings"),
        (form().encode().replace(b"Echo", b"Ech\xff"), r"byte \d+ \(0xff\) is not UTF-8"),
        (form().encode("utf-16"), "not UTF-8"),
        (b"### Title\n\n" + b"x" * LARGEST, "more than 280,000 bytes"),
        ((form() + "### Title\n\nAnother").encode(), "'Title' stands there twice"),
        ((form() + "### id\n\n../../evil").encode(), "'id' is not a heading of the form"),
        (form(Innovation="fine\n### Title\nmine").encode(), "'Title' stands there twice"),
        (("### Title\n\nx\n" + "### <script>\n" * 500).encode(), "and 470 more"),
    ],
)
def test_files_that_are_no_form_are_refused(small: Path, text: bytes, message: str) -> None:
    assert re.search(message, problems(small, text))


def test_a_line_of_a_hundred_thousand_blanks_takes_no_time() -> None:
    with pytest.raises(FormError):
        answers("### " + " " * 200_000 + "x\n" + "###" + " " * 50_000)


def test_a_title_never_becomes_a_path(small: Path) -> None:
    path = small.parent / "form.md"
    path.write_text(form(Title="../../../etc/cron.d/evil: heads", Authors="../..\n/root"), encoding="utf-8")
    imported = import_form(path, target=open_target(small))
    assert imported.path is not None
    assert imported.path.parent == small / "papers"
    assert re.fullmatch(r"[a-z0-9-]+\.yaml", imported.path.name)


def test_yaml_in_answers_stays_text(small: Path) -> None:
    path = small.parent / "form.md"
    title = "&a *b !!python/object/apply:os.system ['id']: {x}"
    path.write_text(form(Title=title, Authors="*alias\n!!tag", Tasks="a: b # c"), encoding="utf-8")
    imported = import_form(path, target=open_target(small))
    assert imported.path is not None
    entry = yaml.safe_load(imported.path.read_text(encoding="utf-8"))
    assert (entry["title"], entry["authors"], entry["summary"]["tasks"]) == (title, ["*alias", "!!tag"], "a: b # c")


def test_known_papers_are_refused_by_name(home: Path) -> None:
    assert "already, as 'chen-2024-unveiling-induction-heads'" in problems(
        home, form(Link="https://arxiv.org/abs/2409.10559v2", Date="2024-09-16")
    )
    assert "already, as 'wu-2024-retrieval-head'" in problems(
        home, form(Title="Retrieval Head Mechanistically Explains Long Context Factuality")
    )


def test_a_new_kind_of_head_is_kept_and_pointed_out(small: Path) -> None:
    path = small.parent / "form.md"
    path.write_text(form(**{"Head types": "Echo Head"}), encoding="utf-8")
    imported = import_form(path, target=open_target(small))
    assert (imported.paper.heads, imported.paper.tags) == ([], ["Echo Head"])
    assert "'Echo Head' is no head type of the catalogue" in imported.notes[0]
    assert imported.notes[0] in imported.text.replace("\n# ", " ")


def test_identifiers_are_read_off_the_link(small: Path) -> None:
    path = small.parent / "form.md"
    path.write_text(form(Link="https://aclanthology.org/2025.acl-long.7/ https://openreview.net/forum?id=abc"), "utf-8")
    paper = import_form(path, target=open_target(small)).paper
    assert (paper.arxiv, paper.acl, paper.openreview) == (None, "2025.acl-long.7", "abc")


def test_importing_twice_is_refused(small: Path) -> None:
    path = small.parent / "form.md"
    path.write_text(form(), encoding="utf-8")
    import_form(path, target=open_target(small))
    with pytest.raises(BadInput, match="is in the catalogue already"):
        import_form(path, target=open_target(small))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*REQUIRED, *OPTIONAL]), st.text(max_size=60), max_size=6))
def test_no_form_ever_fails_in_another_way(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, str]) -> None:
    folder = tmp_path_factory.mktemp("forms")
    path = folder / "form.md"
    path.write_bytes(form(**changes).encode("utf-8", "surrogatepass"))
    (folder / "mine").mkdir()
    expected: list[Path] = []
    with contextlib.suppress(HeadAtlasError):
        imported = import_form(path, target=dataclasses.replace(OURS, folder=folder / "mine"))
        expected = [folder / "mine" / "papers" / f"{imported.paper.id}.yaml"]
    assert [item for item in folder.rglob("*") if item.is_file() and item != path] == expected


def test_the_command_prints_the_entry_or_the_problems(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small.parent / "form.md"
    path.write_text(form(), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["papers", "import-issue", str(path), "--data", str(small), "--dry-run"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["id"] == "lovelace-2025-echo-chambers"
    assert list(small.iterdir()) == []
    path.write_text(form(Title=None), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["papers", "import-issue", str(path), "--data", str(small)])
    assert stop.value.code == 1
    assert "- Title is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["papers", "import-issue", str(path), "--data", str(small), "--json"])
    assert stop.value.code == 1
    assert "Title is missing" in json.loads(capsys.readouterr().out)["problems"][0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.md' cannot be read"):
        read_form(tmp_path / "nowhere.md")
    with pytest.raises(BadInput, match="cannot be read"):
        read_form(tmp_path)


def test_the_form_on_github_has_the_headings_that_the_program_reads() -> None:
    template = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/paper.yml").read_text(encoding="utf-8"))
    fields = [part for part in template["body"] if part["type"] != "markdown"]
    labels = {part["attributes"]["label"]: part.get("validations", {}).get("required", False) for part in fields}
    assert labels == {**dict.fromkeys(REQUIRED, True), **dict.fromkeys(OPTIONAL, False)}
    (read,) = [part for part in fields if part["type"] == "dropdown"]
    assert list(READ) == read["attributes"]["options"]
    assert len({part["id"] for part in fields}) == len(fields)


def test_the_workflow_lets_no_strangers_text_near_a_shell() -> None:
    text = (ROOT / ".github/workflows/import-issue.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["import"]
    assert workflow["permissions"] == {}
    assert set(job["permissions"]) == {"contents", "issues", "pull-requests"}
    assert job["if"] == "github.event.label.name == 'import'"
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)
    assert text.count("github.event.issue.body") == 1
    assert "github.event.issue.title" not in text
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_workflows_step_writes_the_entry_and_a_hostile_body_runs_nothing(home: Path, tmp_path: Path) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/import-issue.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["import"]["steps"] if step.get("id") == "form"]
    script = step["run"].replace("python -m", f"'{sys.executable}' -m").replace("headatlas/catalogue/data", str(home))
    trap = tmp_path / "ran"
    output = tmp_path / "output"
    output.write_text("")
    body = form(Title=f'"; touch {trap}; $(touch {trap}) `touch {trap}` %s')
    environment = {"BODY": body, "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(output), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-e", "-c", script], env=environment, cwd=ROOT, check=True, capture_output=True)
    assert output.read_text() == "entry=yes\n"
    assert "Written: " in (tmp_path / "outcome.txt").read_text(encoding="utf-8")
    assert not trap.exists()


def test_importing_needs_none_of_the_heavy_packages(small: Path) -> None:
    path = small.parent / "form.md"
    path.write_text(form(), encoding="utf-8")
    heavy = [
        "torch",
        "transformers",
        "safetensors",
        "gguf",
        "huggingface_hub",
        "numpy",
        "scipy",
        "pyarrow",
        "sklearn",
        "arxiv",
    ]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({heavy!r}))\n"
        "from headatlas.cli import main\n"
        f"main(['papers', 'import-issue', {str(path)!r}, '--data', {str(small)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (small / "papers" / "lovelace-2025-echo-chambers.yaml").exists()
