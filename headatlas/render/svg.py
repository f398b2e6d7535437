"""Writes elements of HTML and SVG with everything escaped, and guesses how wide a text will be drawn."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

# Widths of signs as shares of the font size in a wide font (DejaVu Sans, Verdana): in others there is room to spare.
_THIN, _NARROW, _SLIM, _WIDE, _CAPITAL, _OTHER = 0.31, 0.41, 0.56, 0.97, 0.7, 0.625


def tag(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element; texts and attribute values are escaped, attributes that are None are left out.

    >>> str(tag("a", "x < y", href="#", stroke_width=1.50, class_=None))
    '<a href="#" stroke-width="1.5">x &lt; y</a>'
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)


def picture(*children: Markup, corner: float, size: tuple[float, float], **attributes: object) -> Markup:
    """An SVG element in its own size, wide and tall, whose upper left corner is at (corner, corner)."""
    wide, tall = size
    view = f"{short(corner)} {short(corner)} {short(wide)} {short(tall)}"
    return tag("svg", *children, **attributes, viewBox=view, width=wide, height=tall)


def joined(parts: Iterable[Markup]) -> Markup:
    """The elements one after the other."""
    return Markup("").join(parts)


def text(x: float, y: float, words: str, class_: str | None = None, *, anchor: str | None = None) -> Markup:
    """A line of text in a drawing; size and weight come with the class."""
    # The space, which is not drawn, keeps lines apart for programs that read them as one text.
    return tag("text", f"{words} ", x=x, y=y, class_=class_, text_anchor=anchor)


def linked(href: str, label: str, drawn: Iterable[Markup], **attributes: object) -> Markup:
    """A link in a drawing. The label, which screen readers say, should begin with the words that are seen."""
    return tag("a", *drawn, href=href, aria_label=label, **attributes)


def box(x: float, y: float, wide: float, tall: float) -> str:
    """A rectangle as a piece of a path, so that many of one colour are one element.

    >>> box(1.0, 2.25, 10.0, 4.0)
    'M1 2.2h10v4h-10z'
    """
    return f"M{short(x)} {short(y)}h{short(wide)}v{short(tall)}h{short(-wide)}z"


def short(number: float) -> str:
    """A coordinate with at most one decimal.

    >>> short(2.0), short(-0.04), short(3.14159)
    ('2', '0', '3.1')
    """
    written = f"{number:.1f}".removesuffix(".0")
    return "0" if written == "-0" else written


def clean(text: str) -> str:
    """The text without the characters that XML does not allow: controls and halves of surrogate pairs."""
    return "".join(
        c for c in text if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff")
    )


def width(words: str, size: float) -> float:
    """How wide the words are in a sans-serif font of this size, at most."""
    return size * sum(map(_share, words))


def _share(sign: str) -> float:
    if sign in "iljI.,:;'|! ":
        return _THIN
    if sign in "tfr()[]-":
        return _NARROW
    if sign in "sczvkxyJ":
        return _SLIM
    if sign in "mwMW@%" or ord(sign) > 0x2E80:
        return _WIDE
    return _CAPITAL if sign.isupper() else _OTHER


def wrap(words: str, size: float, room: float, *, most: int) -> list[str]:
    """The words on at most `most` lines of about this width; what does not fit is cut off with an ellipsis."""
    lines: list[str] = []
    for word in words.split():
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [_cut(line, size, room) for line in lines]


def _cut(line: str, size: float, room: float) -> str:
    if width(line, size) <= room:
        return line
    while line and width(f"{line}…", size) > room:
        line = line[:-1]
    return f"{line.rstrip()}…"


def _value(value: object) -> object:
    if isinstance(value, float):
        return short(value)
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
