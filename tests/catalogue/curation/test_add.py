"""`papers add`: from an arXiv identifier to an entry that only lacks its summary."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headatlas.catalogue.check import check
from headatlas.catalogue.curation import entry_file
from headatlas.catalogue.curation.add import Added, add
from headatlas.catalogue.curation.arxiv_feed import ArxivError
from headatlas.catalogue.curation.target import Target, open_target
from headatlas.catalogue.files import strict_yaml
from headatlas.catalogue.gather import FOLDER
from headatlas.catalogue.schema import Link, Paper
from headatlas.cli import main
from headatlas.errors import BadInput, HeadAtlasError
from tests.catalogue.curation.arxiv_server import FakePaper, ask, serving

NEW = FakePaper(
    "2502.99991",
    "Echo Chambers: Induction Heads and Their Rivals",
    abstract=(
        "We ablate heads of GPT-2 by activation patching. Retrieval and streaming heads differ from induction heads.\n"
        "  Copy suppression plays no part. Code: https://github.com/example/echo."
    ),
    published="2025-02-20T23:30:00Z",
    authors=("Ada M. Lovelace", "Émile Borel"),
    comment="12 pages",
    doi="10.1234/echo.5",
    journal="Journal of Echoes 3 (2025)",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of our catalogue that tests may write into."""
    return Path(shutil.copytree(FOLDER, tmp_path / "data"))


def added(home: Path, paper: FakePaper = NEW, id: str | None = None) -> Added:
    with serving(paper) as fake:
        return add(paper.arxiv, target=open_target(home), arxiv=ask(fake), id=id)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_entry_holds_the_metadata(home: Path) -> None:
    result = added(home)
    assert result.path == home / "papers" / "lovelace-2025-echo-chambers.yaml"
    entry = yaml.safe_load(result.path.read_text(encoding="utf-8"))
    assert entry["title"] == NEW.title
    assert entry["authors"] == ["Ada M. Lovelace", "Émile Borel"]
    assert entry["date"] == datetime.date(2025, 2, 20)
    assert entry["section"] == "2025"
    assert entry["arxiv"] == "2502.99991"
    assert entry["doi"] == "10.1234/echo.5"
    assert [link["url"] for link in entry["links"]] == [
        "https://arxiv.org/abs/2502.99991",
        "https://github.com/example/echo",
    ]


def test_proposals_stand_in_the_file_with_their_reasons(home: Path) -> None:
    result = added(home)
    text = result.path.read_text(encoding="utf-8")
    entry = yaml.safe_load(text)
    assert set(entry["heads"]) == {"induction-head", "retrieval-head", "streaming-head"}
    assert '- induction-head  # the title says "Induction Heads"' in text
    assert '- retrieval-head  # the abstract says "Retrieval and streaming heads"' in text
    assert "naive-activation-patching" in entry["methods"]
    # A head type that is touched on without "head" is left to the reader, as a comment.
    assert "copy-suppression-head" not in entry["heads"]
    assert '#   heads: copy-suppression-head (the abstract says "Copy suppression")' in text
    assert 'venue: arXiv names "Journal of Echoes 3 (2025)".' in text


def test_only_the_summary_is_left_to_write(home: Path) -> None:
    before = {str(problem) for problem in check(home)[1]}
    result = added(home)
    new = [problem for problem in check(home)[1] if str(problem) not in before]
    assert [problem.wrong for problem in new] == ["the summary is missing."]
    assert [problem.wrong for problem in result.left] == ["the summary is missing."]
    # Following the hint in the file is enough.
    text = result.path.read_text(encoding="utf-8")
    start = text.index("# summary:")
    hint = "".join(line.removeprefix("# ") for line in text[start:].splitlines(keepends=True))
    result.path.write_text(text[:start] + hint, encoding="utf-8")
    assert {str(problem) for problem in check(home)[1]} == before


def test_known_arxiv_id_is_refused_without_asking_arxiv(home: Path) -> None:
    with serving(NEW) as fake, pytest.raises(BadInput, match="already, as 'chen-2024-unveiling-induction-heads'"):
        add("arXiv:2409.10559v3", target=open_target(home), arxiv=ask(fake))
    assert fake.asked == []


def test_near_equal_title_is_refused_and_nothing_is_written(home: Path) -> None:
    before = files(home)
    twin = FakePaper("2502.99992", "Retrieval head mechanistically explains long context factuality!")
    with pytest.raises(BadInput, match="already, as 'wu-2024-retrieval-head'"):
        added(home, twin)
    assert files(home) == before


def test_adding_twice_is_refused(home: Path) -> None:
    added(home)
    with pytest.raises(BadInput, match="already, as 'lovelace-2025-echo-chambers'"):
        added(home)


def test_a_broken_file_of_somebody_else_does_not_stand_in_the_way(home: Path) -> None:
    (home / "papers" / "half-done.yaml").write_text("id: [", encoding="utf-8")
    assert added(home).path.exists()


def test_an_empty_folder_may_lean_on_our_head_types(tmp_path: Path) -> None:
    result = added(tmp_path)
    assert result.path == tmp_path / "papers" / "lovelace-2025-echo-chambers.yaml"
    assert [problem.wrong for problem in result.left] == ["the summary is missing."]


@pytest.mark.parametrize("bad", ["2409.105", "2413.10559", "cs/0112017", "../../etc/passwd", "2409.10559; rm -rf", ""])
def test_malformed_ids_are_named(home: Path, bad: str) -> None:
    with serving() as fake, pytest.raises(BadInput, match=r"not an arXiv identifier.*2409\.10559"):
        add(bad, target=open_target(home), arxiv=ask(fake))
    assert fake.asked == []


@pytest.mark.parametrize("bad", ["../evil", "a/b", "UPPER", "with space", "x" * 90, ""])
def test_ids_of_entries_cannot_leave_the_folder(home: Path, bad: str) -> None:
    before = files(home.parent)
    if bad == "":
        assert added(home, id=bad).paper.id == "lovelace-2025-echo-chambers"  # none given
        return
    with pytest.raises(BadInput, match="--id"):
        added(home, id=bad)
    assert files(home.parent) == before


def test_an_existing_file_is_not_overwritten(home: Path) -> None:
    path = home / "papers" / "mine.yaml"
    path.write_text("not: a paper\n", encoding="utf-8")
    with pytest.raises(BadInput, match="exists already"):
        added(home, id="mine")
    assert path.read_text(encoding="utf-8") == "not: a paper\n"


def test_a_linked_papers_folder_is_refused(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(home / "papers", elsewhere)
    (home / "papers").symlink_to(elsewhere)
    before = files(elsewhere)
    with pytest.raises(HeadAtlasError, match="symbolic link"):
        added(home)
    assert files(elsewhere) == before


def test_absent_papers_are_named(home: Path) -> None:
    with serving() as fake, pytest.raises(ArxivError, match=r"arXiv has no paper 2502\.99991"):
        add("2502.99991", target=open_target(home), arxiv=ask(fake))


@pytest.mark.parametrize(
    "gone",
    [
        FakePaper("2502.99991", "Gone", abstract="This paper has been withdrawn by the authors."),
        FakePaper("2502.99991", "Gone", comment="Withdrawn due to an error in Theorem 2"),
    ],
)
def test_withdrawn_papers_are_refused(home: Path, gone: FakePaper) -> None:
    with pytest.raises(BadInput, match="has been withdrawn"):
        added(home, gone)


def test_hostile_metadata_stays_data(home: Path) -> None:
    evil = FakePaper(
        "2502.99993",
        "Induction heads\n- evil: 1 # <script>alert(1)</script> \u202e &a *b !!python/object 'x' \"y\" {z}",
        abstract="induction heads # \u2028id: other\n\nid: other \u0085 previous   token\nheads: [x]",
        authors=("../../../etc/passwd", "*alias", "&anchor"),
        journal="x\nid: other",
    )
    result = added(home, evil)
    assert result.path.parent == home / "papers"
    entry = yaml.safe_load(result.path.read_text(encoding="utf-8"))
    assert entry["id"] == result.path.stem
    assert "\u202e" not in entry["title"]
    assert set(entry) <= set(Paper.model_fields)
    # Markup in a title is kept as text here and left for `papers check` to complain of.
    assert any("markup" in problem.wrong for problem in result.left)


# Any visible text, with all signs that mean something to YAML in front.
TEXT = st.builds(
    str.__add__,
    st.sampled_from(list("-*&!%@`#{}[]>|'\"?:,~=<+.09aé注"))
    | st.sampled_from(["null ", "1e5", "0x1f", "- ", "? ", "<<"]),
    st.text(st.characters(exclude_categories=["C"]), min_size=3, max_size=150),
)


@settings(max_examples=300, deadline=None)
@given(title=TEXT, author=TEXT, reason=st.text(max_size=60), note=st.text(max_size=80))
def test_what_is_composed_reads_back_as_the_same_paper(title: str, author: str, reason: str, note: str) -> None:
    paper = Paper(
        id="some-paper",
        title=title,
        authors=[author],
        date=datetime.date(2024, 1, 1),
        section="2024",
        links=[Link(kind="paper", url="https://example.org/")],
        heads=["induction-head"],
        models=["1e5", "yes", "2024-01-01"],
    )
    text = entry_file.compose(paper, reasons={"heads/induction-head": reason}, head_note=note, foot_note=note)
    assert Paper.model_validate(strict_yaml.read(text.encode(), "some-paper.yaml").value) == paper


def test_ids_are_readable_and_unique() -> None:
    authors = ["Yejin Müller-Lüdenscheidt"]
    first = entry_file.entry_id("On the Role of Attention Heads in Safety", 2024, authors, [])
    assert first == "muller-ludenscheidt-2024-role-attention-heads"
    second = entry_file.entry_id("On the Role of Attention Heads in Safety", 2024, authors, [first])
    assert second == "muller-ludenscheidt-2024-role-attention-heads-safety"
    assert entry_file.entry_id("RazorHeads: Cutting Caches", 2024, [], []) == "2024-razorheads"
    assert entry_file.entry_id("注意力头", 2024, ["王伟"], ["2024-paper"]) == "2024-paper-2"


def test_the_command_writes_and_says_what_is_left(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(NEW) as fake:
        monkeypatch.setenv("HEADATLAS_ARXIV_URL", fake.url)
        with pytest.raises(SystemExit) as stop:
            main(["papers", "add", "--arxiv", NEW.arxiv, "--data", str(home), "--no-edit"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert 'heads: induction-head (the title says "Induction Heads")' in out
    assert 'perhaps heads: copy-suppression-head (the abstract says "Copy suppression")' in out
    assert "the summary is missing" in out
    assert (home / "papers" / "lovelace-2025-echo-chambers.yaml").exists()


def test_the_editor_opens_on_a_terminal(home: Path) -> None:
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "headatlas", "papers", "add", "--arxiv", NEW.arxiv, "--data", str(home)]
    with serving(NEW) as fake:
        environment = {**os.environ, "HEADATLAS_ARXIV_URL": fake.url, "EDITOR": 'sh -c \'echo "# edited" >> "$1"\' -'}
        environment.pop("VISUAL", None)
        done = subprocess.run(command, env=environment, stdin=follower, stdout=follower, stderr=follower, timeout=60)
    os.close(follower)
    os.close(leader)
    assert done.returncode == 0
    assert (home / "papers" / "lovelace-2025-echo-chambers.yaml").read_text(encoding="utf-8").endswith("# edited\n")


def test_shelf_needs_an_existing_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no folder"):
        open_target(tmp_path / "nowhere")
    assert isinstance(open_target(tmp_path), Target)
