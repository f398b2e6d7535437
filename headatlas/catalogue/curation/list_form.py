"""The plain issue form of the list that the catalogue sprang from, told in the headings of ours.

It asks for Title, Published_Date, Source, Head_Name and a Summary with three lines; it has no place for a link, nor for what
was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

OWN = ("Published_Date", "Source", "Head_Name", "Summary")  # the headings that our form does not have
_SAME = {"Published_Date": "Date", "Head_Name": "Head types"}
_PART = re.compile(r"^\s*(?:[-*•]\s*)?(?:\*\*)?(innovation|tasks?|(?:significant )?results?)\s*:(?:\*\*)?", re.I | re.M)
_PARTS = {"innovation": "Innovation", "task": "Tasks", "result": "Result"}
_ADDRESS = re.compile(r"https?://[^\s<>\"'`\\()\[\]]+|\barxiv:\s*\d{4}\.\d{4,5}(?:v\d+)?", re.I)
_READ = "somebody else's account"  # of us: the form does not ask what its author read


def ours(form: Mapping[str, str]) -> dict[str, str]:
    """The answers under our headings; a part that was left out is missing there too.

    Addresses within Source are the paper's links, the rest of it is the venue.
    """
    told = {heading: answer for heading, answer in form.items() if heading not in OWN}
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
