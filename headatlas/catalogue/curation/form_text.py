"""Reads the Markdown that GitHub makes of a filled-in contribution form: headings of ours or of the list's, text of a stranger's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from headatlas.errors import BadInput, HeadAtlasError

LARGEST = 280_000  # bytes; GitHub's own limit for an issue is 65,536 characters, of up to four bytes each
# The headings of the form, with what each asks for; the optional ones may be left empty.
REQUIRED: Mapping[str, str] = {
    "Title": "the paper's title",
    "Date": "the day of the first public version, as 2024-09-16",
    "Link": "a web address of the paper, best its arXiv page (in the list's own form: under Source)",
    "Head types": "the kinds of heads, one a line",
    "Innovation": "what is new, in your own words",
    "Tasks": "what was tried, on which models and data",
    "Result": "what came out",
    "What did you read?": "the abstract, the paper, the authors' code or somebody else's account",
}
OPTIONAL = ("Authors", "Venue", "More links", "Models")
# The list that the catalogue sprang from has a plain form of its own, told here in the headings of ours. It has no place for a
# link, nor for what was read.
OF_THE_LIST = ("Published_Date", "Source", "Head_Name", "Summary")  # its headings that our form does not have
_SAME = {"Published_Date": "Date", "Head_Name": "Head types"}
_PART = re.compile(r"^\s*(?:[-*•]\s*)?(?:\*\*)?(innovation|tasks?|(?:significant )?results?)\s*:(?:\*\*)?", re.I | re.M)
_PARTS = {"innovation": "Innovation", "task": "Tasks", "result": "Result"}
_ADDRESS = re.compile(r"https?://[^\s<>\"'`\\()\[\]]+|\barxiv:\s*\d{4}\.\d{4,5}(?:v\d+)?", re.I)
_READ = "somebody else's account"  # of us: the form does not ask what its author read
_EMPTY = ("_No response_", "None", "")
_HEADING = re.compile(r"^### +(.*)$", re.M)
_SHOWN = 30  # problems named one by one


class FormError(HeadAtlasError):
    """A form that cannot become an entry; `problems` lists all that is missing or wrong."""

    lines = True

    def __init__(self, problems: list[str]) -> None:
        more = [f"and {len(problems) - _SHOWN} more."] if len(problems) > _SHOWN else []
        self.problems = (*problems[:_SHOWN], *more)
        super().__init__("The form is not complete:\n" + "\n".join(f"- {problem}" for problem in self.problems))


def read_form(path: Path) -> dict[str, str]:
    """The form's answers by heading; FormError where the file is no such form."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"'{path}' cannot be read: {error.strerror}.", "Name the file with the form's text.") from error
    if len(raw) > LARGEST:
        raise FormError([f"the form has more than {LARGEST:,} bytes; an entry is a few kilobytes."])
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise FormError(
            [f"byte {error.start} ({raw[error.start]:#04x}) is not UTF-8; save the form as UTF-8."]
        ) from None
    return answers(text)


def answers(text: str) -> dict[str, str]:
    """The text under each heading of our form; FormError where headings are unknown, repeated or absent altogether.

    The form of the list that the catalogue sprang from is taken too, and told in our headings.
    """
    parts = _HEADING.split(text)[1:]
    found: dict[str, str] = {}
    problems = []
    for heading, answer in zip(map(str.strip, parts[::2]), parts[1::2], strict=True):
        if heading not in REQUIRED and heading not in OPTIONAL and heading not in OF_THE_LIST:
            problems.append(f"'{quoted(heading)}' is not a heading of the form; leave the headings as they are.")
        elif heading in found:
            problems.append(f"'{heading}' stands there twice; start no line of an answer with '###'.")
        else:
            found[heading] = "" if answer.strip() in _EMPTY else answer.strip()
    if not found:
        problems = ["none of the form's headings is there (### Title, ### Date ...); use the form 'Add a paper'."]
    if problems:
        raise FormError(problems)
    return _told_in_ours(found) if any(heading in found for heading in OF_THE_LIST) else found


def _told_in_ours(form: Mapping[str, str]) -> dict[str, str]:
    """The answers under our headings; a part that was left out is missing there too.

    Addresses within Source are the paper's links, the rest of it is the venue.
    """
    told = {heading: answer for heading, answer in form.items() if heading not in OF_THE_LIST}
    told |= {new: form[old] for old, new in _SAME.items() if old in form}
    told |= _summary(form.get("Summary", "")) | {"What did you read?": _READ}
    source = form.get("Source", "")
    found = [re.sub(r"(?i)^arxiv:\s*", "https://arxiv.org/abs/", one.rstrip(".,;")) for one in _ADDRESS.findall(source)]
    given = told.get("Link", "")
    told["Link"], *more = [*([given] if given else []), *found] or [""]
    told["More links"] = "\n".join(more)
    told["Venue"] = re.sub(r"\(\s*\)|\[\s*\]", "", _ADDRESS.sub("", source)).strip(" \n\t,;:-")
    return told


def _summary(text: str) -> dict[str, str]:
    """The three parts of a summary that is written "- Innovation: ... - Tasks: ... - Significant Result: ..."."""
    _, *pieces = _PART.split(text)
    told: dict[str, str] = {}
    for name, words in zip(pieces[::2], pieces[1::2], strict=True):
        part = _PARTS[name.lower().removeprefix("significant ").removesuffix("s")]
        told[part] = f"{told.get(part, '')} {words}".strip()
    return told


def quoted(text: str) -> str:
    """A stranger's text, short, on one line and harmless on a terminal and in Markdown."""
    plain = "".join(c if c.isprintable() and c not in "<>`[]@#" else " " for c in text)
    return " ".join(plain.split())[:60]
