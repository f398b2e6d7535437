"""On which of the shipped atlases does each detector find something? Writes docs/detectors/found.md.

    python examples/where_found.py docs/atlas/*.html > docs/detectors/found.md

Reads the numbers that a report holds. For each detector the model on which its strongest head has the best verdict (causal, then
group), among those the one with the highest score above chance; "none known" where no atlas has one.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headatlas.detector import detectors
from headatlas.render.numbers import number
from headatlas.report.atlas_schema import VERDICTS

HEADER = """# Where detectors find something

Written by `python examples/where_found.py docs/atlas/*.html` from [the shipped atlases](../atlas/README.md): for each detector one
real model on which it finds a head, and the head with the strongest verdict there. {found} of {all} detectors have one. A
detector without one is known to work on [planted models](../calibration.md) alone, where it is calibrated at all. The numbers are
those of the atlases ({measured}): a detector that changed since may find more or less.
"""


def numbers_of(page: Path) -> dict[str, Any]:
    """What a report's script gets: its JSON, packed in reports of today and plain in those of before."""
    found = re.search(r'<script[^>]*id="atlas"[^>]*>(.*?)</script>', page.read_text(), re.S)
    assert found is not None, f"{page} is no report"
    text = found[1].strip()
    held: dict[str, Any] = json.loads(text if text.startswith("{") else zlib.decompress(base64.b64decode(text)))
    return held


def day_of(page: Path) -> str:
    """The day on which it was measured, as the report says it."""
    found = re.search(r"Measured\D*(\d{4}-\d\d-\d\d)", page.read_text())
    return found[1] if found else "no known day"


def heads_of(held: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(detector, observed head)."""
    seen = held["seen"]
    rows = (
        [dict(zip(seen, row, strict=True)) for row in zip(*seen.values(), strict=True)]
        if isinstance(seen, dict)
        else seen
    )
    for row in rows:
        yield held["detectors"][row["d"]]["name"], row


def page_of(pages: list[Path]) -> str:
    """The page."""
    best: dict[str, tuple[tuple[int, float], str, dict[str, Any]]] = {}
    for page in pages:
        for name, row in heads_of(numbers_of(page)):
            rank = -VERDICTS.index(row["verdict"]), row["score"] - row["chance"]
            if name not in best or rank > best[name][0]:
                best[name] = rank, page.stem, row
    known = sorted(detectors())
    measured = ", ".join(f"{page.stem} of {day_of(page)}" for page in pages)
    lines = [HEADER.format(found=sum(name in best for name in known), all=len(known), measured=measured)]
    lines += ["| detector | model | head | score (chance) | verdict |", "| --- | --- | --- | --- | --- |"]
    for name in known:
        if name not in best:
            lines.append(f"| {name} | none known | | | |")
            continue
        _, model, row = best[name]
        score = f"{number(row['score'])} ({number(row['chance'])})"
        lines.append(
            f"| {name} | [{model}](../atlas/{model}.html) | {row['layer']}.{row['head']} | {score} | {row['verdict']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(page_of([Path(name) for name in sorted(sys.argv[1:])]))
