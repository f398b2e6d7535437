"""Numbers as a reader wants them: few digits, a real minus sign, a dash where nothing was measured."""

from __future__ import annotations

from headatlas.report.reading import finite


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
    known = finite(value)
    return f"+{number(known)}" if known is not None and known > 0 else number(known)


def probability(value: object) -> str:
    """Three decimals, or `< 0.001`."""
    known = finite(value)
    if known is None:
        return "–"
    return "< 0.001" if known < 0.001 else f"{known:.3f}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 head`, `2 heads`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
