"""Looks through new arXiv papers and queues those that read like the catalogue's, best first, for a human to review.

Nothing is ever added to the catalogue here. The queue is one file that also remembers how far the search got, so
that the next call goes on from there; marks that a reviewer left in it are kept.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headatlas.catalogue.curation import entry_file
from headatlas.catalogue.curation.arxiv_client import Arxiv
from headatlas.catalogue.curation.arxiv_feed import Found
from headatlas.catalogue.curation.likeness import Likeness, Scorer
from headatlas.catalogue.curation.target import Target
from headatlas.catalogue.files import strict_yaml
from headatlas.catalogue.files.output import write_text
from headatlas.catalogue.problem import CatalogueError
from headatlas.errors import BadInput
from headatlas.reading import Source, read_bytes, read_json

QUERY = (
    "(cat:cs.CL OR cat:cs.LG) AND "
    "(abs:attention OR abs:heads OR abs:circuits OR abs:interpretability OR abs:mechanistic OR abs:induction)"
)
# arXiv shows some papers days after their submission date; a finished search therefore starts again a little earlier.
OVERLAP = datetime.timedelta(days=7)
PAGE = 100
QUEUE_NOTE = """\
Papers that may belong in the catalogue, most alike first. Nothing is added by itself: read, then run
`headatlas papers add --arxiv ID`. Whatever you write under review stays when the search goes on."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Row(_Part):
    """One paper to review."""

    arxiv: str
    title: str
    authors: list[str]
    date: datetime.date
    link: str
    score: float
    why: list[str]
    review: str = ""


class Progress(_Part):
    """How far the search got."""

    query: str
    since: datetime.date
    reached: datetime.datetime  # submission time of the last paper looked at
    at_reached: list[str] = Field(default_factory=list)  # papers of that very minute, which the next call skips
    complete: bool = False  # whether that was the newest paper there was
    looked_at: int = 0


class Queue(_Part):
    """The review queue: the file that `papers watch --out` writes."""

    progress: Progress
    papers: list[Row] = Field(default_factory=list)


def day(text: str) -> datetime.date:
    """A day that is written 2025-02-17 and not in the future."""
    hint = "Expected year-month-day, such as 2025-02-17."
    try:
        found = datetime.date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"'{text[:40]}' is no date.", hint) from None
    if found > datetime.datetime.now(datetime.UTC).date():
        raise BadInput(f"{found} is in the future.", hint)
    return found


def start(since: datetime.date, query: str | None = None) -> Queue:
    """An empty queue for papers submitted from that day on."""
    return Queue(progress=Progress(query=query or QUERY, since=since, reached=_midnight(since)))


def _midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), tzinfo=datetime.UTC)


def reasons(likeness: Likeness) -> list[str]:
    """Why a paper got its score, in words."""
    why = [f"names {proposal.id}: {proposal.reason}" for proposal in likeness.heads]
    why.append(f"shares words ({likeness.cosine:.2f}): {', '.join(likeness.terms) or 'none'}")
    if likeness.nearest:
        why.append("nearest: " + ", ".join(f"{id_} ({cosine:.2f})" for id_, cosine in likeness.nearest))
    return why


def watch(
    queue: Queue,
    *,
    target: Target,
    scorer: Scorer,
    arxiv: Arxiv,
    now: datetime.datetime,
    limit: int,
    keep: int,
    save: Callable[[Queue], None],
) -> Queue:
    """Look at up to `limit` papers more; keep the `keep` best and all that were reviewed; `save` after each page."""
    progress = queue.progress
    begin = max(progress.reached - OVERLAP, _midnight(progress.since)) if progress.complete else progress.reached
    skip = set() if progress.complete else set(progress.at_reached)
    stream = (
        found
        for found in arxiv.search(progress.query, since=begin, until=now)
        if not (found.arxiv in skip and _minute(found.published) == _minute(progress.reached))
    )
    left = limit
    while left:
        wanted = min(left, PAGE)
        page = list(itertools.islice(stream, wanted))
        left -= len(page)
        done = len(page) < wanted
        queue = _with_page(queue, page, complete=done, target=target, scorer=scorer, keep=keep)
        save(queue)
        if done:
            break
    return queue


def _minute(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(second=0, microsecond=0)


def _with_page(queue: Queue, page: list[Found], *, complete: bool, target: Target, scorer: Scorer, keep: int) -> Queue:
    rows = {row.arxiv: row for row in queue.papers}
    for found in page:
        if found.arxiv in rows or found.withdrawn or target.known(arxiv=found.arxiv, title=found.title):
            continue
        likeness = scorer.score(found.title, found.abstract)
        rows[found.arxiv] = Row(
            arxiv=found.arxiv,
            title=found.title,
            authors=list(found.authors),
            date=found.published.date(),
            link=found.link,
            score=round(likeness.score, 4),
            why=reasons(likeness),
        )
    ranked = sorted(rows.values(), key=lambda row: (-row.score, row.arxiv))
    progress = queue.progress.model_copy(
        update={"complete": complete, "looked_at": queue.progress.looked_at + len(page)}
    )
    if page:
        last = _minute(max(found.published for found in page))
        here = [found.arxiv for found in page if _minute(found.published) == last]
        before = progress.at_reached if last == _minute(progress.reached) else []
        progress = progress.model_copy(update={"reached": last, "at_reached": list(dict.fromkeys([*before, *here]))})
    return Queue(progress=progress, papers=[row for n, row in enumerate(ranked) if n < keep or row.review])


def read_queue(path: Path) -> Queue:
    """The queue in a .yaml or .json file; BadInput where it is none."""
    kind = queue_kind(path)
    try:
        source = Source(path, "Name another file with --out.", BadInput)
        value = read_json(source) if kind == "json" else strict_yaml.read(read_bytes(source), str(path)).value
        return Queue.model_validate(value)
    except ValidationError as error:
        raise BadInput(
            f"{path} is not a review queue: {entry_file.first_fault(error)}.", "Name another file with --out."
        ) from error
    except CatalogueError as error:
        raise BadInput(f"{path} cannot be read as a review queue: {error}.", "Name another file with --out.") from error


def write_queue(path: Path, queue: Queue) -> None:
    """Replace the file by this queue, whole or not at all."""
    value = queue.model_dump(mode="json")
    if queue_kind(path) == "json":
        write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    else:
        write_text(path, entry_file.comment(QUEUE_NOTE) + entry_file.dump(value))


def queue_kind(path: Path) -> str:
    """ "yaml" or "json", by the file's name."""
    kind = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"The queue cannot be written as '{path.name}'.", "Name it something.yaml or something.json.")
    return kind


def resume(path: Path, *, since: datetime.date | None, query: str | None) -> Queue:
    """The queue to go on with: that of the file where there is one, else a new one from `since`."""
    if not path.exists():
        if since is None:
            raise BadInput(f"There is no queue {path} to go on with.", "Say from when to search: --since 2025-02-17.")
        queue_kind(path)
        return start(since, query)
    queue = read_queue(path)
    asked = queue.progress
    if since not in (None, asked.since) or query not in (None, asked.query):
        hint = "Leave out --since and --query to go on with it, or name another file with --out."
        raise BadInput(f"{path} holds a search since {asked.since} for {asked.query}.", hint)
    return queue
