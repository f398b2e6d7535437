"""Writes papers as BibTeX that BibTeX and biber accept whatever the title holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.describe import find
from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.filters import newest_first, venues
from headatlas.catalogue.schema import Paper
from headatlas.errors import BadInput

# BibTeX counts braces even behind a backslash, hence names for them.
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"{\textbraceleft}", "}": r"{\textbraceright}",
    "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "“": "``", "”": "''", "‘": "`", "’": "'", "–": "--", "—": "---", "…": r"\ldots{}", "\u00a0": "~", "≠": r"{$\neq$}",
    "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "ø": r"{\o}", "Ø": r"{\O}", "œ": r"{\oe}", "Œ": r"{\OE}",
    "ł": r"{\l}", "Ł": r"{\L}", "å": r"{\aa}", "Å": r"{\AA}", "ı": r"{\i}", "đ": r"{\dj}", "Đ": r"{\DJ}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0307": ".",
    "\u0306": "u", "\u030c": "v", "\u030b": "H", "\u0327": "c", "\u0328": "k", "\u030a": "r", "\u0323": "d",
}  # fmt: skip
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_JOURNAL = re.compile(r"\b(?:TMLR|TACL|JMLR|Nature|Patterns|Transactions|Journal|Distill|Computational Linguistics)\b")
_PREPRINT = re.compile(
    r"arxiv|preprint|blog|openreview$|anthropic|lesswrong|alignment forum|transformer circuits", re.I
)


def latex(text: str) -> str:
    """The text with LaTeX's special signs and common accents written in ASCII; what has no such form stays as it is.

    >>> print(latex("50% of Gödel's {heads}"))
    50\\% of G{\\"o}del's {\\textbraceleft}heads{\\textbraceright}
    """
    return "".join(_sign(sign) for sign in unicodedata.normalize("NFC", text))


def _sign(sign: str) -> str:
    if sign in _SIGNS or sign.isascii():
        return _SIGNS.get(sign, sign)
    parts = unicodedata.normalize("NFD", sign)
    base = parts[0]
    if len(parts) == 2 and parts[1] in _ACCENTS and base.isascii():
        accent = _ACCENTS[parts[1]]
        return f"{{\\{accent}{{{base}}}}}" if accent.isalpha() else f"{{\\{accent}{base}}}"
    return sign


def _title(title: str) -> str:
    """The title; words with capitals inside (LLMs, GPT-2, HeadKV) stand in braces, as styles lower-case titles."""
    return re.sub(r"\S+", lambda word: f"{{{latex(word[0])}}}" if _keeps(word[0]) else latex(word[0]), title)


def _keeps(word: str) -> bool:
    """Whether the word has a capital elsewhere than at its start (behind a dash or bracket counts as a start)."""
    return any(re.search(r"[A-Z]", part[1:]) for part in re.split(r"[-–(\"'“]", word)) or bool(
        re.search(r"\b[A-Z]+-?\d", word)
    )


def _names(authors: Iterable[str]) -> str:
    """BibTeX's author list; a name with a comma or the word 'and' is kept in one piece by braces."""
    return " and ".join(f"{{{latex(n)}}}" if re.search(r",|\band\b", n) else latex(n) for n in authors)


def _verbatim(text: str) -> str:
    """An address as it is; braces and backslashes, which would end the field, are percent-encoded."""
    return "".join(f"%{ord(sign):02X}" if sign in "{}\\" else sign for sign in text)


def entry(paper: Paper) -> str:
    """One entry; its key is the paper's id, which nothing else has."""
    fields = {"title": _title(paper.title)}
    if paper.authors:
        fields["author"] = _names(paper.authors)
    else:
        fields["key"] = latex(paper.title)  # what styles sort by where no author is known
    where = next((venue for venue in venues(paper) if not _PREPRINT.search(venue)), None)
    journal = where is not None and _JOURNAL.search(where) is not None
    if where:
        # A volume's year stands in `year`; proceedings keep theirs, which is part of their name.
        fields["journal" if journal else "booktitle"] = latex(re.sub(r"\s+\d{4}$", "", where) if journal else where)
    elif paper.arxiv is None and paper.venue:
        fields["howpublished"] = latex(paper.venue)
    edition = re.search(r"\b(?:19|20)\d\d\b", where or "")
    fields["year"] = edition[0] if edition else str(paper.date.year)
    if not where:  # the date is that of the first public version, not of the proceedings
        fields["month"] = _MONTHS[paper.date.month - 1]
    if paper.doi:
        fields["doi"] = _verbatim(paper.doi)
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archiveprefix": "arXiv"}
    fields["url"] = _verbatim(paper_url(paper))
    lines = [f"  {name} = {value if name == 'month' else f'{{{value}}}'}," for name, value in fields.items()]
    kind = "article" if journal else "inproceedings" if where else "misc"
    return "\n".join([f"@{kind}{{{paper.id},", *lines, "}"]) + "\n"


def bibtex(papers: Iterable[Paper]) -> str:
    """All entries, in the given order."""
    return "\n".join(entry(paper) for paper in papers)


def chosen(catalogue: Catalogue, names: Iterable[str]) -> list[Paper]:
    """The papers that go by these names, in their order; all, newest first, where none is named."""
    papers = []
    for name in names:
        kind, id_ = find(catalogue, name)
        if kind != "paper":
            raise BadInput(f"'{name}' is a {kind}, not a paper.", "Name papers by id, title or arXiv id.")
        papers.append(catalogue.papers[id_])
    return papers or list(newest_first(catalogue.papers.values()))
