"""What mkdocstrings does to each docstring before it goes on a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from markdown_text import listed, plain


class Docstrings(griffe.Extension):
    """Applied to whatever has a docstring that goes on a page."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Write out signs of Markdown, and list the parameters of functions and the fields of classes."""
        if obj.docstring is None:
            return
        names = []
        if isinstance(obj, griffe.Function):
            names = [one.name for one in obj.parameters if one.name not in ("self", "cls")]
        elif isinstance(obj, griffe.Class):
            names = [name for name, one in obj.members.items() if one.is_attribute]
        text = plain(obj.docstring.value)
        obj.docstring.value = listed(text, [name.replace("_", r"\_") for name in names])
