"""Writes elements of HTML and SVG with everything escaped, and coordinates with few digits."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


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


def joined(parts: Iterable[Markup]) -> Markup:
    """The elements one after the other."""
    return Markup("").join(parts)


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


def _value(value: object) -> object:
    if isinstance(value, float):
        return short(value)
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
