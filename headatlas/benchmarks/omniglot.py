"""Omniglot: handwritten characters as pictures, drawn with letters so that a language model can read them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout
from headatlas.errors import BadInput
from headatlas.own_prompts.rows import Row
from headatlas.reading import Source, reason

SIZE = 8  # lines and columns of a drawing
_LABELS = ("A", "B")


@published(
    layout=Layout((), read=lambda source: _pictures(source), suffixes=(".png",)),
    files="the folder images_background or images_evaluation, unpacked: ALPHABET/characterNN/*.png",
    card="https://github.com/brendenlake/omniglot",
    licence="MIT",
    metrics=("accuracy", "logit-difference"),
)
def omniglot(row: Fields) -> Iterator[Item]:
    """Two characters of an alphabet with labels A and B, then a third picture of one of them: which label?

    Pictures are shrunk to 8 by 8 and written with # and a point. Singh et al. train a transformer on picture features in
    place of tokens; drawn as text, the same question can be put to any language model, and is harder.
    """
    folder = Path(row.text("folder"))
    others = sorted(one for one in folder.parent.iterdir() if one.is_dir())
    other = others[(others.index(folder) + 1) % len(others)]
    mine, theirs = (sorted(one.glob("*.png")) for one in (folder, other))
    if other == folder or len(mine) < 2 or not theirs:
        raise row.bad("folder", "two characters of an alphabet with two pictures each are wanted")
    shown = [_drawn(mine[0]), _drawn(theirs[0])]
    group = str(folder.parent)
    for first in (0, 1):  # the right character stands first, or second
        pair = shown if first == 0 else shown[::-1]
        front = "".join(f"{drawing}\nLabel: {label}\n\n" for drawing, label in zip(pair, _LABELS, strict=True))
        right, wrong = _LABELS[first], _LABELS[1 - first]
        yield Item(f"{front}{_drawn(mine[1])}\nLabel:", (f" {right}",), (f" {wrong}",), right, group)


def _pictures(source: Source) -> Iterator[Row]:
    """A row for each folder of a character, told once: at its first picture."""
    folder = source.path.parent
    if source.path == min(folder.glob("*.png")):
        yield Row(str(source.path.name), 1, {"folder": str(folder)})


@functools.lru_cache(4096)
def _drawn(path: Path) -> str:
    """A picture as SIZE lines of # (ink) and points."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BadInput("Pictures are read by the package pillow, which is missing.", "pip install pillow") from error
    try:
        with Image.open(path) as picture:
            ink = picture.convert("L").point(lambda value: 255 - value).resize((SIZE, SIZE), Image.Resampling.BOX)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is no picture that can be read: {reason(error)}.", "Unpack the archive again."
        ) from error
    values = list(ink.getdata())
    least = max(values) / 4 or 1
    lines = [values[start : start + SIZE] for start in range(0, SIZE * SIZE, SIZE)]
    return "\n".join("".join("#" if value > least else "." for value in line) for line in lines)
