"""Turns the answers of a filled-in contribution form into a paper's entry, or says all that is wrong with them.

The form comes from strangers: its text is data, is checked field by field, and never becomes part of a path as it is.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from headatlas.catalogue.curation import entry_file
from headatlas.catalogue.curation.arxiv_client import arxiv_id
from headatlas.catalogue.curation.form_text import REQUIRED, FormError, quoted, read_form
from headatlas.catalogue.curation.target import Target
from headatlas.catalogue.files.wording import explain
from headatlas.catalogue.rules.papers import ACL_LINK, DOI_LINK, OPENREVIEW_LINK, section_of
from headatlas.catalogue.rules.texts import MAX_SUMMARY_WORDS
from headatlas.catalogue.schema import Link, Paper
from headatlas.errors import BadInput
from headatlas.registry import did_you_mean

READ: Mapping[str, str] = {
    "the abstract": "abstract",
    "the paper": "paper",
    "the authors' code": "code",
    "somebody else's account": "secondary",
}
_HTML = re.compile(r"<\s*[/!?a-zA-Z]|&#?\w+;")
_MARKDOWN_LINK = re.compile(r"\]\s*[\[(]")
_URL = re.compile(r"https?://[^\s<>\"'`\\]+")


@dataclass(frozen=True)
class Imported:
    """A new file (or what it would be), and what a reviewer should look at."""

    paper: Paper
    text: str
    notes: tuple[str, ...]
    path: Path | None  # None where only asked what it would be


@dataclass
class _Reader:
    """Collects the entry's values and everything that is wrong with the form."""

    form: Mapping[str, str]
    problems: list[str]
    notes: list[str]

    def line(self, heading: str) -> str:
        """An answer on one line, safe to print and to publish."""
        given = self.form.get(heading, "")
        if not given:
            if heading in REQUIRED:
                self.problems.append(f"{heading} is missing: {REQUIRED[heading]}.")
            return ""
        text = " ".join(given.split())
        if not text.isprintable():
            sign = next(c for c in text if not c.isprintable())
            self.problems.append(f"{heading} holds the invisible character U+{ord(sign):04X}; remove it.")
        if _HTML.search(text) or _MARKDOWN_LINK.search(text):
            self.problems.append(f"{heading} holds HTML or a Markdown link; write plain text.")
        return text

    def items(self, heading: str) -> list[str]:
        """The entries of a list with one a line, or separated by commas or semicolons."""
        given = self.form.get(heading, "")
        self.line(heading)
        cleaned = [re.sub(r"^[-*] +", "", item.strip()) for item in re.split(r"[\n,;]", given)]
        return list(dict.fromkeys(" ".join(item.split()) for item in cleaned if item))

    def date(self) -> datetime.date | None:
        given = self.line("Date")
        if not given:
            return None
        try:
            day = datetime.date.fromisoformat(given) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", given) else None
        except ValueError:
            day = None
        if day is None:
            self.problems.append(f"Date is '{quoted(given)}'; write year-month-day, such as 2024-09-16.")
        elif not datetime.date(2014, 1, 1) <= day <= datetime.date.today():
            self.problems.append(f"Date is {day}; expected a day from 2014 to today.")
        return day

    def links(self) -> list[Link]:
        links = []
        for heading in ("Link", "More links"):
            given = self.form.get(heading, "")
            if not given and heading in REQUIRED:
                self.problems.append(f"{heading} is missing: {REQUIRED[heading]}.")
            for word in re.split(r"[\s,]+", given):
                url = word.strip("<>()-*") if word else ""
                if not url:
                    continue
                if not _URL.fullmatch(url) or len(url) > 300:
                    self.problems.append(
                        f"{heading} holds '{quoted(url)}'; write web addresses that start with https://."
                    )
                elif heading == "Link":
                    links.append(Link(kind="paper", url=url, venue="arXiv" if "//arxiv.org/" in url else None))
                else:
                    code = re.match(r"https?://(?:www\.)?(github|gitlab)\.com/", url)
                    venue = "GitHub" if code and code[1] == "github" else None
                    links.append(Link(kind="code" if code else "project", url=url, venue=venue))
        return links

    def heads(self, target: Target) -> tuple[list[str], list[str]]:
        """Ids of known head types, and names that the catalogue does not have yet."""
        known, new = [], []
        for name in self.items("Head types"):
            found = target.names.head_names.get(re.sub(r"(?i)\bheads$", "head", name))
            if found is not None:
                known.append(found)
            elif re.fullmatch(r"[\w][\w '()/+-]{1,60}", name):
                new.append(name)
                near = did_you_mean(name, target.names.head_names)
                self.notes.append(f"'{name}' is no head type of the catalogue. {near} It stands under tags for now.")
            else:
                self.problems.append(f"Head types holds '{quoted(name)}'; write names such as Induction Head.")
        return list(dict.fromkeys(known)), new

    def summary(self) -> dict[str, object]:
        parts: dict[str, object] = {key.lower(): self.line(key) for key in ("Innovation", "Tasks", "Result")}
        words = sum(len(str(part).split()) for part in parts.values())
        if words > MAX_SUMMARY_WORDS:
            self.problems.append(
                f"The summary has {words} words; at most {MAX_SUMMARY_WORDS} in its three parts together."
            )
        read = self.form.get("What did you read?", "").lower().replace("\u2019", "'")
        evidence = [tag for words_, tag in READ.items() if re.search(rf"(?<!\[ \] ){re.escape(words_)}\b", read)]
        if not evidence:
            self.problems.append(f"What did you read? is missing: {REQUIRED['What did you read?']}.")
        return {**parts, "evidence": evidence}


def import_form(path: Path, *, target: Target, dry_run: bool = False) -> Imported:
    """Turn the form in `path` into an entry; FormError lists all that is missing, BadInput names a known paper."""
    reader = _Reader(read_form(path), [], [])
    title, date, links = reader.line("Title"), reader.date(), reader.links()
    heads, tags = reader.heads(target)
    summary = reader.summary()
    authors, models, venue = reader.items("Authors"), reader.items("Models"), reader.line("Venue")
    if reader.problems or date is None:
        raise FormError(reader.problems)
    arxiv = next((found for link in links if (found := _arxiv(link.url)) is not None), None)
    target.refuse_known(arxiv=arxiv, title=title)
    values = {
        "id": entry_file.entry_id(title, date.year, authors, target.names.papers),
        "title": title,
        "authors": authors,
        "date": date,
        "venue": venue or ("arXiv" if arxiv else None),
        "section": section_of(date),
        "arxiv": arxiv,
        "doi": _named(DOI_LINK, links),
        "acl": _named(ACL_LINK, links),
        "openreview": _named(OPENREVIEW_LINK, links),
        "links": links,
        "heads": heads,
        "tags": tags,
        "models": models,
        "summary": summary,
    }
    try:
        paper = Paper.model_validate(values)
    except ValidationError as error:
        raise FormError([f"{wrong} {right}".strip() for _, wrong, right in explain(error, Paper, "form")]) from None
    note = "\n".join(["From a contribution form. Check every line against the paper.", *reader.notes])
    text = entry_file.compose(paper, reasons={}, head_note=note, foot_note="")
    entry_file.verify(paper, text)
    # A paper on a new kind of head may have no known one yet: its reviewer adds the head type, so here it passes.
    judged = paper if heads else paper.model_copy(update={"heads": list(target.names.heads)[:1]})
    left = target.problems(judged, text)
    if left:
        raise FormError([f"{problem.wrong} {problem.right}".strip() for problem in left])
    written = None if dry_run else entry_file.write(target.folder, paper, text)
    return Imported(paper, text, tuple(reader.notes), written)


def _named(pattern: re.Pattern[str], links: list[Link]) -> str | None:
    """The identifier within the first link to the paper that has one."""
    matches = (pattern.match(link.url) for link in links if link.kind == "paper")
    return next((match[1] for match in matches if match), None)


def _arxiv(url: str) -> str | None:
    if not re.match(r"https?://(?:www\.|export\.)?arxiv\.org/", url):
        return None
    try:
        return arxiv_id(url)
    except BadInput:
        return None
