"""Text from files, models and names as a terminal may show it: characters that act, or that hide, are written out."""

from __future__ import annotations

import re
import sys
from typing import TextIO

# Control characters (C0 but tab and line feed, DEL, C1) drive terminals; marks of direction, invisible signs and tags make
# a text read otherwise than it is; line and paragraph separators break lines; lone surrogates cannot be written at all.
# U+200C and U+200D stay: Persian and Indic words, and composed emoji, are spelled with them.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: object, *, lines: bool = True) -> str:
    """The text with what acts or hides written as in Python: ESC as \\x1b, a mark of direction as \\u202e.

    lines: whether line feeds stay; False writes them out too, so that a name cannot begin a line of its own.
    """
    found = _ACTING.sub(_written, str(text))
    return found if lines else found.replace("\n", "\\n")


def shown_json(text: str) -> str:
    """JSON text with the same characters as \\u sequences, which any reader of JSON takes back."""
    return _ACTING.sub(_json_written, text)


def cell(text: str) -> str:
    """Text that does not end a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def say(*parts: object, file: TextIO | None = None) -> None:
    """Print, with what acts or hides written out."""
    print(*(shown(part) for part in parts), file=file or sys.stdout, flush=file is not None)


def rewrite(text: str, file: TextIO, *, ended: bool) -> None:
    """Print a line over the one that stands there, with what acts or hides written out; ended: the next one goes below."""
    print(f"\r{shown(text, lines=False)}", end="\n" if ended else "", file=file, flush=True)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_written(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
