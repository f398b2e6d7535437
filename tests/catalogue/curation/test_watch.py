"""`papers watch`: asks politely, ranks with reasons, goes on where it stopped, and adds nothing."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headatlas.catalogue.curation.arxiv_connection import PAUSE
from headatlas.catalogue.curation.arxiv_feed import ArxivError
from headatlas.catalogue.curation.likeness import Scorer
from headatlas.catalogue.curation.target import open_target
from headatlas.catalogue.curation.watch import QUERY, Queue, day, read_queue, resume, start, watch, write_queue
from headatlas.catalogue.gather import FOLDER
from headatlas.cli import main
from headatlas.errors import BadInput, HeadAtlasError
from tests.catalogue.curation.arxiv_server import FakeArxiv, FakeClock, FakePaper, Misdeed, ask, serving

TARGET = open_target()
SCORER = Scorer(TARGET.names.papers.values(), TARGET.names.heads.values())
SINCE = datetime.date(2025, 2, 17)
NOW = datetime.datetime(2025, 3, 10, 12, tzinfo=datetime.UTC)
HEADS = FakePaper(
    "2502.10001",
    "Which Attention Heads Copy? Induction Heads in Small Models",
    abstract="We ablate induction heads and retrieval heads of language models.",
    published="2025-02-18T09:00:00Z",
)
COOKING = FakePaper("2502.10002", "Recipe Planning with Robots", published="2025-02-19T09:00:00Z")
CACHE = FakePaper(
    "2502.10003",
    "Compressing the Key-Value Cache",
    abstract="Attention keys of language models are stored in fewer bits.",
    published="2025-02-20T09:00:00Z",
)


def crowd(count: int, day_of_month: int = 21) -> list[FakePaper]:
    """Papers about nothing in particular, a minute apart."""
    return [
        FakePaper(
            f"2502.2{n:04d}", f"Filler number {n}", published=f"2025-02-{day_of_month}T{n // 60:02d}:{n % 60:02d}:30Z"
        )
        for n in range(count)
    ]


def look(
    fake: FakeArxiv,
    queue: Queue | None = None,
    *,
    limit: int = 1000,
    keep: int = 200,
    page: int = 100,
    clock: FakeClock | None = None,
    save: Callable[[Queue], None] = lambda queue: None,
    now: datetime.datetime = NOW,
) -> Queue:
    return watch(
        queue or start(SINCE),
        target=TARGET,
        scorer=SCORER,
        arxiv=ask(fake, page=page, clock=clock),
        now=now,
        limit=limit,
        keep=keep,
        save=save,
    )


def test_the_likeliest_comes_first_with_its_reasons() -> None:
    with serving(COOKING, CACHE, HEADS) as fake:
        queue = look(fake)
    assert [row.arxiv for row in queue.papers] == [HEADS.arxiv, CACHE.arxiv, COOKING.arxiv]
    first = queue.papers[0]
    assert 'names induction-head: the title says "Induction Heads"' in first.why
    assert 'names retrieval-head: the abstract says "retrieval heads"' in first.why
    assert any(why.startswith("shares words (0.") and "head" in why for why in first.why)
    assert any(why.startswith("nearest: ") for why in first.why)
    assert first.link == "https://arxiv.org/abs/2502.10001"
    assert queue.progress.complete


def test_the_question_names_categories_and_dates() -> None:
    with serving(HEADS) as fake:
        look(fake)
    (question,) = fake.asked
    assert question["search_query"] == f"({QUERY}) AND submittedDate:[202502170000 TO 202503101200]"
    assert "cat:cs.CL" in QUERY
    assert "cat:cs.LG" in QUERY
    assert (question["sortBy"], question["sortOrder"]) == ("submittedDate", "ascending")


def test_known_and_withdrawn_papers_are_passed_over() -> None:
    known = FakePaper("2404.15574", "Something else")  # the catalogue has this identifier
    titled = FakePaper("2502.10009", "Retrieval Head Mechanistically Explains Long-Context Factuality")
    gone = FakePaper("2502.10008", "Induction heads", comment="This paper has been withdrawn")
    with serving(known, titled, gone, HEADS) as fake:
        queue = look(fake)
    assert [row.arxiv for row in queue.papers] == [HEADS.arxiv]
    assert queue.progress.looked_at == 4


def test_nothing_new_is_no_error() -> None:
    with serving() as fake:
        queue = look(fake)
    assert queue.papers == []
    assert queue.progress.complete


def test_pages_are_asked_three_seconds_apart() -> None:
    clock = FakeClock()
    with serving(*crowd(250)) as fake:
        queue = look(fake, clock=clock)
    assert queue.progress.looked_at == 250
    assert [question["start"] for question in fake.asked] == ["0", "100", "200"]
    assert clock.slept == [PAUSE, PAUSE]
    assert PAUSE == 3.0


def test_the_queue_is_bounded_and_keeps_the_best() -> None:
    with serving(*crowd(150), HEADS, CACHE) as fake:
        queue = look(fake, keep=2)
    assert [row.arxiv for row in queue.papers] == [HEADS.arxiv, CACHE.arxiv]


def test_a_limited_search_goes_on_where_it_stopped() -> None:
    papers = [*crowd(120), HEADS, CACHE]
    with serving(*papers) as fake:
        queue, calls = look(fake, limit=50, page=20), 1
        while not queue.progress.complete:
            queue, calls = look(fake, queue, limit=50, page=20), calls + 1
    assert {row.arxiv for row in queue.papers} == {paper.arxiv for paper in papers}
    assert queue.progress.looked_at == len(papers)
    assert calls == 3


def test_many_papers_of_one_minute_do_not_stop_the_search() -> None:
    papers = [FakePaper(f"2502.3{n:04d}", f"Filler {n}", published=f"2025-02-22T10:00:{n:02d}Z") for n in range(30)]
    with serving(*papers) as fake:
        queue = start(SINCE)
        for _ in range(4):
            queue = look(fake, queue, limit=10)
    assert len(queue.papers) == 30
    assert queue.progress.complete
    assert queue.progress.looked_at == 30


def test_a_failure_keeps_the_pages_before_it() -> None:
    saved: list[Queue] = []
    papers = crowd(250)
    with serving(*papers, misdeeds=[None, None, Misdeed(status=400)]) as fake:
        with pytest.raises(ArxivError):
            look(fake, save=saved.append)
        assert [queue.progress.looked_at for queue in saved] == [100, 200]
        queue = look(fake, saved[-1], keep=1000)
    assert {row.arxiv for row in queue.papers} == {paper.arxiv for paper in papers}
    assert queue.progress.looked_at == 250


def test_a_finished_search_looks_back_a_week_for_late_announcements() -> None:
    with serving(HEADS, CACHE) as fake:
        queue = look(fake)
        # Submitted before the last one seen, shown only now; and one that is too old to be looked for again.
        late = FakePaper("2502.10020", "Name mover heads", published="2025-02-19T20:00:00Z")
        fake.papers.append(late)
        queue = look(fake, queue)
    assert {row.arxiv for row in queue.papers} == {HEADS.arxiv, CACHE.arxiv, late.arxiv}
    assert "submittedDate:[202502170000 TO" in fake.asked[-1]["search_query"]  # not before --since


def test_reviewers_marks_and_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    with serving(COOKING, HEADS) as fake:
        write_queue(path, look(fake))
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# Papers that may belong")
        value = yaml.safe_load(text)
        value["papers"][-1]["review"] = "no, cooking"
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        fake.papers.append(CACHE)
        queue = look(fake, resume(path, since=None, query=None), keep=1)
    assert [(row.arxiv, row.review) for row in queue.papers] == [(HEADS.arxiv, ""), (COOKING.arxiv, "no, cooking")]


@pytest.mark.parametrize("name", ["queue.yaml", "queue.json"])
def test_the_queue_reads_back_as_written(tmp_path: Path, name: str) -> None:
    evil = FakePaper("2502.10030", 'x: [1] # "q" <script> *a\n- b\u2028', abstract="heads", authors=("&a", "1e5"))
    with serving(HEADS, evil) as fake:
        queue = look(fake)
    write_queue(tmp_path / name, queue)
    assert read_queue(tmp_path / name) == queue
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"progress: 1", b"a: &a [*a]", b"\xff\xfe", b'{"papers": []}', b"papers: []\nprogress: {query: x}"],
)
@pytest.mark.parametrize("name", ["queue.yaml", "queue.json"])
def test_files_that_are_no_queue_are_named_and_kept(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(HeadAtlasError, match=name):
        resume(path, since=None, query=None)
    assert path.read_bytes() == content


def test_another_search_does_not_go_into_the_same_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    write_queue(path, start(SINCE))
    assert resume(path, since=SINCE, query=QUERY).progress.since == SINCE
    with pytest.raises(BadInput, match="holds a search since 2025-02-17"):
        resume(path, since=datetime.date(2025, 3, 1), query=None)
    with pytest.raises(BadInput, match="holds a search since 2025-02-17"):
        resume(path, since=None, query="cat:cs.CV")


def test_where_to_begin_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--since"):
        resume(tmp_path / "queue.yaml", since=None, query=None)
    with pytest.raises(BadInput, match=r"cannot be written as 'queue\.txt'"):
        resume(tmp_path / "queue.txt", since=SINCE, query=None)
    with pytest.raises(BadInput, match=r"'17\.2\.2025' is no date"):
        day("17.2.2025")
    with pytest.raises(BadInput, match="in the future"):
        day("2999-01-01")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["papers", "watch", *arguments])
    return int(stop.value.code or 0)


def test_the_command_queues_and_never_touches_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")}
    out = tmp_path / "queue.json"
    with serving(HEADS, COOKING) as fake:
        monkeypatch.setenv("HEADATLAS_ARXIV_URL", fake.url)
        assert run("--since", "2025-02-17", "--out", str(out), "--max", "1") == 0
    assert json.loads(out.read_text(encoding="utf-8"))["papers"][0]["arxiv"] == HEADS.arxiv
    said = capsys.readouterr().out
    assert "2502.10001  2025-02-18  Which Attention Heads Copy?" in said
    assert "1 paper looked at, 1 in the queue" in said
    assert "run again with the same --out" in said
    assert {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")} == before


def test_a_failing_command_leaves_no_half_written_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(HEADS, misdeeds=[Misdeed(body=b"<html/>")]) as fake:
        monkeypatch.setenv("HEADATLAS_ARXIV_URL", fake.url)
        assert run("--since", "2025-02-17", "--out", str(tmp_path / "queue.yaml")) == 1
    assert "not an Atom feed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run() == 1
    assert "--since 2025-02-17" in capsys.readouterr().err
