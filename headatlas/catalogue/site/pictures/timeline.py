"""A time axis that gives early, quiet years one place each and the busy ones a place a month."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from headatlas.catalogue.site.words import MONTHS
from headatlas.render.svg import tag, text

_BUSY = 6  # papers that make a year worth twelve places


@dataclass(frozen=True)
class Axis:
    """Places from left to right: the years before `monthly`, a gap, then months until the last one with a paper."""

    first: int
    monthly: int
    last: tuple[int, int]
    left: float
    cell: float

    @property
    def gap(self) -> float:
        """The room between years and months."""
        return min(30.0, 1.6 * self.cell) if self.monthly > self.first else 0.0

    @property
    def n_places(self) -> int:
        """How many places there are."""
        years = self.monthly - self.first
        return years + 12 * (self.last[0] - self.monthly) + self.last[1]

    @property
    def right(self) -> float:
        """The x at which the last place ends."""
        return self.left + self.n_places * self.cell + self.gap

    def place(self, day: datetime.date) -> int:
        """The place of a day, from 0."""
        if day.year < self.monthly:
            return day.year - self.first
        return self.monthly - self.first + 12 * (day.year - self.monthly) + day.month - 1

    def x(self, place: int) -> float:
        """Where a place begins."""
        return self.left + place * self.cell + (self.gap if place >= self.monthly - self.first else 0)

    def ticks(self, y: float) -> list[Markup]:
        """The line below the places, with years and, where there is room, months."""
        years = range(self.first, self.monthly)
        parts = [tag("path", d=f"M{self.left} {y}H{self.x(len(years)) - self.gap}", class_="axis")] if years else []
        parts.append(tag("path", d=f"M{self.x(len(years))} {y}H{self.right}", class_="axis"))
        roomy = self.cell >= 20
        name = str if self.cell >= 34 else lambda year: f"’{year % 100:02d}"
        step = next((n for n in range(1, len(years)) if n * self.cell >= 24), max(1, len(years)))
        for place, year in enumerate(years):
            if place % step == 0:
                parts.append(text(self.x(place) + self.cell / 2, y + 16, name(year), "tick", anchor="middle"))
        for place in range(len(years), self.n_places):
            year, month = divmod(place - len(years), 12)
            at = self.x(place)
            if roomy:
                parts.append(text(at + self.cell / 2, y + 16, MONTHS[month][0], "tick", anchor="middle"))
            if month == 0:
                below = y + (34 if roomy else 16)
                parts.append(tag("path", d=f"M{at} {y}v{below - y - 6}", class_="axis"))
                written = str(self.monthly + year)
                fits = at + 36 <= self.right
                parts.append(
                    text(at + 5 if fits else self.right, below, written, "tick year", anchor=None if fits else "end")
                )
        return parts


def axis(days: Iterable[datetime.date], *, left: float, right: float, widest: float = 26.0) -> Axis:
    """The axis for these days that fills the room from `left` to `right`, with places of at most `widest`."""
    found = sorted(days) or [datetime.date(2024, 1, 1)]
    papers = Counter(day.year for day in found)
    last = found[-1]
    monthly = last.year
    while monthly > found[0].year and papers[monthly - 1] >= _BUSY:
        monthly -= 1
    trial = Axis(found[0].year, monthly, (last.year, last.month), left, 1.0)
    gap = 1.6 if monthly > found[0].year else 0.0
    cell = min(widest, (right - left) / (trial.n_places + gap))
    return Axis(trial.first, monthly, trial.last, left, cell)
