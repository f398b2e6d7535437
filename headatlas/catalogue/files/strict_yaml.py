"""Reads YAML that states facts and nothing else, and remembers on which line each of them stands.

A catalogue takes files from strangers. So there are no anchors and aliases (a few lines of them can unfold into
gigabytes), no tags, no merge keys, no second document, and no key twice (where the last would silently win).
Words such as `no` and `on` stay words: only null, true, false, numbers and ISO dates mean something else.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from headatlas.catalogue.problem import CatalogueError, Problem

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, about ten times as fast
_MAX_DEPTH = 12
_MAX_VALUES = 200_000  # of a file; a review queue of 5,000 papers has half as many
_WORDS: Mapping[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z|[-+]?[0-9]+[eE][-+]?[0-9]+\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A file's value and the lines of its parts, addressed by keys and list positions."""

    value: object
    lines: Mapping[Keys, int]

    def line(self, *keys: str | int) -> int:
        """The line of a part, or of the nearest thing around it that the file does have."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.lines:
                return self.lines[keys[:length]]
        return 1


def read(data: bytes, file: str) -> Document:
    """Parse one YAML file; raises CatalogueError that names `file`, the line, the fault and its cure."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte {error.start} ({data[error.start]:#04x}) is not UTF-8."
        raise CatalogueError([Problem(file, line, wrong, "Save the file as UTF-8.")]) from None
    return _Reader(file).read(text)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cycle collector, which would go through all of a large program's objects again and again for values that have no cycles."""
    had = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if had:
            gc.enable()


class _Reader:
    """Turns the parser's events into plain values; a stack instead of recursion, so depth is ours to limit."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Keys, int] = {}

    def fail(self, line: int, wrong: str, right: str) -> CatalogueError:
        return CatalogueError([Problem(self.file, line, wrong, right)])

    def read(self, text: str) -> Document:
        try:
            with _uncollected():
                return Document(self._build(text), self.lines)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            right = "Check the indentation, and quote a text that holds ': ' or starts with a sign."
            raise self.fail(line, f"this is not YAML: {error.problem}.", right) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise self.fail(line, f"this is not YAML: {error.reason}.", "Remove that character.") from None

    def _build(self, text: str) -> object:
        root: object = None
        documents = 0
        # Each open collection with its address and, for a mapping, the key that waits for its value.
        open_: list[tuple[dict[str, object] | list[object], Keys]] = []
        key: list[str | None] = []
        for event in yaml.parse(text, Loader=_Loader):  # no unions in isinstance: building one each time took half
            if not isinstance(event, yaml.NodeEvent):
                if isinstance(event, yaml.CollectionEndEvent):
                    open_.pop()
                    key.pop()
                documents += isinstance(event, yaml.DocumentStartEvent)
                continue
            line = event.start_mark.line + 1 if event.start_mark else 1
            tag = None if isinstance(event, yaml.AliasEvent) else event.tag  # type: ignore[attr-defined]
            if (
                documents > 1
                or event.anchor is not None
                or tag is not None
                or len(self.lines) >= _MAX_VALUES
                or len(open_) >= _MAX_DEPTH
            ):
                raise self._refused(event, tag, line, documents=documents)
            parent, where = open_[-1] if open_ else (None, ())
            if isinstance(parent, dict) and key[-1] is None:
                name = key[-1] = self._key(event, parent, line)
                self.lines[(*where, name)] = line
                continue
            value: object
            if isinstance(event, yaml.ScalarEvent):
                value = self._scalar(event, line)
            else:
                value = {} if isinstance(event, yaml.MappingStartEvent) else []
            here: Keys = ()
            if isinstance(parent, dict):
                here = (*where, str(key[-1]))
                parent[str(key[-1])] = value
                key[-1] = None
            elif isinstance(parent, list):
                here = (*where, len(parent))
                self.lines[here] = line
                parent.append(value)
            else:
                root = value
            if isinstance(value, (dict, list)):
                open_.append((value, here))
                key.append(None)
        if root is None:
            raise self.fail(1, "the file is empty.", "Write the entry's keys and values.")
        return root

    def _refused(self, event: yaml.NodeEvent, tag: str | None, line: int, *, documents: int) -> CatalogueError:
        if documents > 1:
            return self.fail(line, "a second YAML document starts here.", "Write one document a file.")
        if event.anchor is not None:
            return self.fail(line, f"'{event.anchor}' is a YAML anchor or alias.", "Write the value out.")
        if tag is not None:
            return self.fail(line, f"'{tag}' is a YAML tag.", "Write plain values without tags.")
        if len(self.lines) >= _MAX_VALUES:
            return self.fail(line, f"the file holds more than {_MAX_VALUES:,} values.", "Part it in smaller files.")
        return self.fail(line, f"values are nested more than {_MAX_DEPTH} deep.", "Flatten them.")

    def _key(self, event: yaml.NodeEvent, parent: dict[str, object], line: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self.fail(line, "a list or mapping is used as a key.", "Write a word before the colon.")
        if event.value in parent:
            raise self.fail(line, f"the key '{event.value}' stands here twice.", "Keep one of the two.")
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> object:
        value: str = event.value
        if not value.isprintable():
            for sign in value:
                # Control characters drive terminals, bidirectional marks make a text read otherwise than it is.
                if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co") and sign not in "\n\t":
                    raise self.fail(line, f"the text holds the invisible character U+{ord(sign):04X}.", "Remove it.")
        if event.style:  # quoted or a block: a text
            return value
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
        if _INT.match(value):
            return int(value)
        if _FLOAT.match(value):
            return float(value)
        if _DATE.match(value):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError as error:
                raise self.fail(line, f"'{value}' is no date: {error}.", "Write year-month-day.") from None
        return value
