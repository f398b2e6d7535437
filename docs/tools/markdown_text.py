"""Docstrings as Markdown: parameters as a list, and brackets, stars and the like as what they are.

In the code, parameters are told in running text ("heads: default all. edit: mean or zero.").
"""

from __future__ import annotations

import re


def listed(text: str, names: list[str]) -> str:
    """The text with each explanation `name: ...` of a parameter as an item of a list.

    >>> print(listed("Removes heads. heads: default all. edit: mean or zero. Raises BadInput.", ["heads", "edit"]))
    Removes heads.
    <BLANKLINE>
    - **heads**: default all.
    - **edit**: mean or zero.
    <BLANKLINE>
    Raises BadInput.
    """
    if not names:
        return text
    named = "|".join(map(re.escape, names))
    begin = re.compile(rf"(?:^|(?<=[.;)]))\s*\b((?:{named})(?:, (?:{named}))*): ", re.M)
    paragraphs = []
    for paragraph in text.split("\n\n"):
        head, *parts = begin.split(paragraph)
        if not parts:
            paragraphs.append(paragraph)
            continue
        items = [f"- **{name}**: {' '.join(what.split())}" for name, what in zip(parts[::2], parts[1::2], strict=True)]
        last, errors, rest = items[-1].partition(" Raises ")
        paragraphs += [head.strip(), "\n".join([*items[:-1], last]), f"Raises {rest}" if errors else ""]
    return "\n\n".join(part for part in paragraphs if part)


def plain(text: str) -> str:
    """Running text in which shapes such as [example, head], A[i, 0] * B and 18.* are no Markdown; `code` and examples stay.

    >>> print(plain("z [example, d] times 18.*, and `a[0]`"))
    z \\[example, d\\] times 18.\\*, and `a[0]`
    """
    paragraphs = text.split("\n\n")
    return "\n\n".join(one if one.lstrip().startswith(">>>") else _escaped(one) for one in paragraphs)


def _escaped(paragraph: str) -> str:
    parts = re.split(r"(`[^`]*`)", paragraph)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_\[\]<>|])", r"\\\1", part) for part in parts)
