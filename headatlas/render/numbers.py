"""Numbers as a reader wants them: few digits, a real minus sign, a dash where nothing was measured."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def finite(value: Any) -> float | None:
    """The number, NumPy's included, or None where there is none (null, NaN, infinity)."""
    if value is None or isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def number(value: object) -> str:
    """Two decimals near one, fewer for large numbers, more for small ones.

    >>> number(0.777), number(-12.34), number(0.0031), number(None)
    ('0.78', '−12.3', '0.003', '–')
    """
    known = finite(value)
    if known is None:
        return "–"
    size = abs(known)
    if size >= 100:
        text = f"{size:.0f}"
    elif size >= 10:
        text = f"{size:.1f}"
    elif size >= 0.01 or size == 0:
        text = f"{size:.2f}"
    else:
        text = f"{size:.3f}"
    return f"−{text}" if known < 0 and float(text) else text


def signed(value: object) -> str:
    """As `number`, with a plus sign on gains."""
    known, text = finite(value), number(value)
    return f"+{text}" if known is not None and known > 0 and float(text) else text


def change(effect: object, low: object = None, high: object = None) -> str:
    """An effect in words; effects count for the worse, so below 0 the metric gets better.

    >>> change(0.6, 0.37, 0.91), change(-0.4, -0.5, -0.35), change(0.2)
    ('worse by 0.60 (95% 0.37 to 0.91)', 'better by 0.40 (95% 0.35 to 0.50)', 'worse by 0.20')
    """
    known, ends = finite(effect), (finite(low), finite(high))
    if known is None:
        return "not measured"
    sign = -1 if known < 0 else 1
    span = sorted(sign * end for end in ends if end is not None)
    words = f"{'better' if known < 0 else 'worse'} by {number(abs(known))}"
    return f"{words} (95% {number(span[0])} to {number(span[1])})" if len(span) == 2 else words


def probability(value: object) -> str:
    """p and q: three decimals, or `< 0.001`.

    >>> probability(0.0476), probability(0.0002), probability(None)
    ('0.048', '< 0.001', '–')
    """
    known = finite(value)
    if known is None:
        return "–"
    return "< 0.001" if known < 0.001 else f"{known:.3f}"


def percent(value: object) -> str:
    """A share in percent, without decimals.

    >>> percent(0.4375), percent(None)
    ('44%', '–')
    """
    known = finite(value)
    return "–" if known is None else f"{known:.0%}"


def count(number: int, one: str, many: str = "") -> str:
    """How many of something.

    >>> count(1, "head"), count(2, "head"), count(3, "query", "queries")
    ('1 head', '2 heads', '3 queries')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def show_size(n_bytes: float) -> str:
    """How much memory or disk, in units of 1024: a computer that has 16 GB has this much.

    >>> show_size(3 << 29), show_size(5 << 20)
    ('1.5 GB', '5 MB')
    """
    return f"{n_bytes / (1 << 30):.1f} GB" if n_bytes >= 1 << 30 else f"{n_bytes / (1 << 20):.0f} MB"


def seconds(value: float) -> str:
    """How long something took: tenths of a second only where there are few.

    >>> seconds(3.14), seconds(188.04)
    ('3.1 s', '188 s')
    """
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
