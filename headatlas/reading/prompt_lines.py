"""The lines of a file of prompts: which keys they have and that these hold text, checked without a model or its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput
from headatlas.reading.files import Source
from headatlas.reading.json_text import read_json_lines

_LARGEST = 256 << 20  # bytes of a file of prompts
PAIR = ("clean", "corrupted", "answer", "wrong")
LABELLED = ("text", "label")  # and "group", in all lines or none
_FORMS = (
    'Each line is {"clean", "corrupted", "answer", "wrong"} ("corrupted" may be left out of all) or {"text", "label"} with '
    '"group" if wanted.'
)
Lines = list[tuple[int, dict[str, Any]]]


def is_former(path: str | Path) -> bool:
    """Whether a file of prompts is one that `prompt_lines` reads: JSON Lines with "clean" or "text" in the first. Raises BadInput."""
    file = Path(path)
    if file.suffix.lower() != ".jsonl":
        return False
    source = Source(file, _FORMS, BadInput, largest=_LARGEST, pipe=True)
    lines = read_json_lines(source, lambda line, wrong: BadInput(f"Line {line} of {file.name} {wrong}.", _FORMS))
    first = next(iter(lines), (0, None))[1]
    return isinstance(first, dict) and bool({"text", "clean"} & first.keys())


def prompt_lines(path: str | Path) -> Lines:
    """(number, object) of every line that is not empty, all pairs or all labelled texts. Raises BadInput."""
    file = Path(path)
    lines = _objects(file)
    if "text" in lines[0][1]:
        _demand_labelled(file, lines)
    else:
        _demand_pairs(file, lines)
    return lines


def _objects(file: Path) -> Lines:
    found = []
    source = Source(file, _FORMS, BadInput, largest=_LARGEST, pipe=True)
    for number, value in read_json_lines(
        source, lambda line, wrong: BadInput(f"Line {line} of {file.name} {wrong}.", _FORMS)
    ):
        if not isinstance(value, dict):
            raise BadInput(f"Line {number} of {file.name} is not a JSON object.", _FORMS)
        for name, entry in value.items():
            plain = isinstance(entry, str) or (name in ("label", "group") and isinstance(entry, int))
            if not plain or entry == "":
                raise BadInput(
                    f"Line {number} of {file.name}: '{name}' must be text, got {json.dumps(entry)[:60]}.", _FORMS
                )
        found.append((number, value))
    if not found:
        raise BadInput(f"{file.name} has no prompts.", _FORMS)
    return found


def _demand_pairs(file: Path, lines: Lines) -> None:
    for number, value in lines:
        _demand_keys(file, number, value, needed=("clean", "answer", "wrong"), known=PAIR)
        if ("corrupted" in value) != ("corrupted" in lines[0][1]):
            raise BadInput(f"Line {number} of {file.name}: either all lines have 'corrupted' or none.", _FORMS)


def _demand_labelled(file: Path, lines: Lines) -> None:
    wanted = (*LABELLED, *(["group"] if "group" in lines[0][1] else []))
    for number, value in lines:
        _demand_keys(file, number, value, needed=wanted, known=wanted)
    classes = {str(value["label"]) for _, value in lines}
    if len(classes) < 2:
        raise BadInput(f"All texts of {file.name} have the label '{classes.pop()}'.", "Give at least two labels.")


def _demand_keys(
    file: Path, number: int, value: dict[str, Any], *, needed: tuple[str, ...], known: tuple[str, ...]
) -> None:
    missing = [name for name in needed if name not in value]
    strange = [name for name in value if name not in known]
    if missing or strange:
        what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(strange)}"
        raise BadInput(f"Line {number} of {file.name} {what}.", _FORMS)
