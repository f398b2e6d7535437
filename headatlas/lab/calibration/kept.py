"""The parts of a calibration that are done, kept in a folder, so that one of hours goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headatlas.lab.calibration.tally import Tallies, Tally, as_json
from headatlas.mining.kept import read_kept, write_kept
from headatlas.reading import Name, Record
from headatlas.store import claimed, partial_of

Rates = dict[str, Any]  # what a planting's rates are, by "reported" and "tuning"


class _Counted(Record):
    """What a `Tally` holds."""

    scores: list[float]
    labels: list[bool]
    observed: list[bool]
    verdicts: list[list[str | bool]]
    curve: list[list[float]]
    fake: list[list[str | bool]]
    controls: list[bool]
    chance: dict[str, list[float]]


class _Part(Record):
    """One part of a calibration: the name that it has in full, and what was counted."""

    part: Name
    tallies: dict[str, dict[str, _Counted]]


class _PlantingPart(Record):
    """The rates of one planting."""

    part: Name
    rates: dict[str, dict[str, float | int | None]]


class Kept:
    """Parts of a calibration by name; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def tallies(self, part: str, count: Callable[[], Tallies]) -> Tallies:
        """What `count` gives, or what it gave before."""

        def parse(content: dict[str, Any]) -> Tallies:
            found = content["tallies"]
            return {(name, half): _tally(one) for name, halves in found.items() for half, one in halves.items()}

        return self._of(part, count, _Part, parse, lambda found: {"tallies": as_json(found)})

    def rates(self, part: str, count: Callable[[], Rates]) -> Rates:
        """The same for the rates of a planting."""
        return self._of(part, count, _PlantingPart, lambda content: content["rates"], lambda found: {"rates": found})

    def _of(
        self,
        part: str,
        count: Callable[[], Any],
        schema: Any,
        parse: Callable[[dict[str, Any]], Any],
        content: Callable[[Any], Mapping[str, Any]],
    ) -> Any:
        if self._folder is None:
            return count()
        name = re.sub(r"[^\w.-]+", "-", part)
        found = read_kept(self._folder, name, schema, parse)
        if found is None:
            found = count()
            write_kept(self._folder, name, {"part": part, **content(found)})
        return found


def _tally(one: Mapping[str, Any]) -> Tally:
    pairs: dict[str, Any] = {name: [tuple(pair) for pair in one[name]] for name in ("verdicts", "curve", "fake")}
    return Tally(**{name: one[name] for name in ("scores", "labels", "observed", "controls", "chance")}, **pairs)


@contextlib.contextmanager
def keeping(final: Path | None, identity: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[Kept]:
    """Where parts are kept until all are there: beside `final`; what other settings left there is dropped, and said.

    identity: what decides the numbers, with an "id". Raises StoreError.
    """
    if final is None:
        yield Kept(None)
        return
    with claimed(final, identity) as dropped:
        folder = partial_of(final)
        if dropped:
            say(f"An unfinished calibration in {folder} was dropped; it differs in {'; '.join(dropped)}.")
        yield Kept(folder / "parts")
        shutil.rmtree(folder)
