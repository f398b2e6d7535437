"""Writes a new paper's file: valid from the first byte, with comments that tell its author what is left to do."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from headatlas.catalogue.files import strict_yaml
from headatlas.catalogue.files.output import write_text
from headatlas.catalogue.rules.texts import MAX_SUMMARY_WORDS
from headatlas.catalogue.schema import Paper
from headatlas.errors import BadInput

_SMALL_WORDS = frozenset(
    {
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "by",
        "do",
        "does",
        "for",
        "from",
        "how",
        "in",
        "into",
        "is",
        "of",
        "on",
        "or",
    }
    | {"the", "to", "towards", "via", "what", "with"}
)

SUMMARY_HINT = f"""\
Write the summary in your own words, at most {MAX_SUMMARY_WORDS} words in the three parts together, and take away
the signs before it. Copy no sentence from the abstract; give a number only where you read it.
evidence: what you read (abstract, paper, code, secondary).

summary:
  innovation: What is new?
  tasks: What was tried, on which models and data?
  result: What came out?
  evidence: [abstract]"""


class _Plain(yaml.SafeDumper):
    """Dumps facts only: no anchors, lists indented under their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Plain, value: str) -> yaml.Node:
    """Quote whatever starts like a number or date: readers of YAML differ in what they take for one."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, "'" if re.match(r"[-+.\d]", value) else None)


_Plain.add_representer(str, _text)


def dump(value: Mapping[str, object]) -> str:
    """YAML as this project writes it: keys in the given order, text in Unicode."""
    return yaml.dump(dict(value), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


def slug(text: str) -> str:
    """Small ASCII letters, digits and single dashes; "" where nothing of the text can be kept."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "-".join(re.findall(r"[a-z0-9]+", ascii_only.lower()))


def entry_id(title: str, year: int, authors: Sequence[str], taken: Iterable[str]) -> str:
    """A readable id such as `chen-2024-unveiling-induction-heads`, not among `taken`."""
    family = slug(authors[0].split()[-1]) if authors and authors[0].split() else ""
    before, colon, _ = title.partition(":")
    words = [word for word in slug(before if colon and len(before.split()) <= 2 else title).split("-") if word]
    words = [word for word in words if word not in _SMALL_WORDS] or words or ["paper"]
    used = set(taken)
    for length in range(min(3, len(words)), len(words) + 1):
        candidate = "-".join(part for part in (family[:30], str(year), *words[:length]) if part)[:76].rstrip("-")
        if candidate not in used:
            return candidate
    return next(f"{candidate}-{n}" for n in range(2, len(used) + 3) if f"{candidate}-{n}" not in used)


def comment(text: str) -> str:
    """The text as YAML comment lines; nothing in it can end the comment."""
    lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def compose(paper: Paper, *, reasons: Mapping[str, str], head_note: str, foot_note: str) -> str:
    """The file's text: a note, the facts (each list item with its reason, where there is one), and another note."""
    facts = paper.model_dump(exclude_none=True, exclude_defaults=True)
    parts = [comment(head_note)]
    for key, value in facts.items():
        for line in dump({key: value}).splitlines():
            item = line.strip().removeprefix("- ").strip("'\"")
            reason = reasons.get(f"{key}/{item}") if line.lstrip().startswith("- ") else None
            parts.append(f"{line}  {comment(reason)}" if reason else f"{line}\n")
    if foot_note:
        parts.append("\n" + comment(foot_note))
    return "".join(parts)


def verify(paper: Paper, text: str) -> None:
    """Raise BadInput unless the text, read back, is exactly this paper."""
    title = paper.title[:80]
    try:
        again = Paper.model_validate(strict_yaml.read(text.encode(), f"{paper.id}.yaml").value)
    except ValidationError as error:
        raise BadInput(
            f"The entry for '{title}' would not be valid: {first_fault(error)}.", "Nothing was written."
        ) from error
    if again != paper:
        raise BadInput(f"The entry for '{title}' does not survive being written.", "Nothing was written.")


def write(folder: Path, paper: Paper, text: str) -> Path:
    """Put the text at `folder/papers/<id>.yaml`, whole or not at all; what is there already stays."""
    verify(paper, text)
    home = folder / "papers"
    if home.is_symlink():
        raise BadInput(f"{home} is a symbolic link.", "Name the folder that it leads to with --data.")
    target = home / f"{paper.id}.yaml"
    if os.path.lexists(target):
        raise BadInput(f"{target} exists already.", "Choose another id with --id, or edit that file.")
    if not home.exists():
        home.mkdir()
    write_text(target, text)
    return target


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, as "field: why"."""
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
