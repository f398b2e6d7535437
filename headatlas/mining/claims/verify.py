"""Running the rows of a board again: reproduced, differs, or not verifiable, with a tolerance measured while it runs.

A row names the weights, texts, detectors and examples that it rests on, so on the same machine the same heads come out. On
another one sums are taken in another order. How much that moves scores here is measured: the scan is made a second time with
another number of threads, and the tolerance is ten times the largest difference, at least 1e-4. A head may be observed in one
place and not in the other only where its score stands that close to the detector's bar (chance + minimum effect), and its
verdict may turn only where it is marginal.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headatlas import catalogue
from headatlas import model as models
from headatlas.atlas import Atlas
from headatlas.catalogue.files.boards import read_board, run_of
from headatlas.detector import detectors
from headatlas.errors import BadInput, SourceError, UnknownName
from headatlas.heads import HeadId
from headatlas.mining.claims.board import versions_here
from headatlas.mining.claims.outcomes import Outcome, compare, detectors_for, needed, stack_of
from headatlas.mining.claims.replicate import facts_of
from headatlas.mining.run import mine
from headatlas.model import Model
from headatlas.progress import Progress, Silent
from headatlas.reading import Source
from headatlas.registry import did_you_mean

RESULTS = ("reproduced", "differs", "not verifiable")
LEAST, TIMES = 1e-4, 10  # the smallest tolerance of a score, and how many measured differences it is else
_LOCAL = ("headatlas", "torch", "transformers")


@dataclass(frozen=True)
class Verification:
    """One row, run again. result: one of RESULTS; reason says why, and what else is other here than where the row was made.

    now: what came out here, None where nothing did. tolerance: of scores, in the detector's unit; None where nothing ran.
    """

    model: str
    claim: str
    detector: str | None
    result: str
    reason: str
    now: Outcome | None = None
    tolerance: float | None = None


def verify(
    file: str | Path,
    *,
    claim: str | None = None,
    model: Model | str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    progress: Progress | None = None,
) -> list[Verification]:
    """Run the rows of a board (`headatlas replicate --board`, or what its --json printed) again; one answer a row.

    claim: only the rows of this claim. model: where the weights lie, if not where the board found them; they have to be the
    board's, byte for byte. device, dtype: see `headatlas.load`. Raises BadInput for a file that is no board, UnknownName for a
    claim that it does not have.
    """
    progress = progress or Silent()
    known = read_board(Source(Path(file), "Name the JSON file of a board.", BadInput))
    claims = [row["claim"] for one in known for row in one["outcomes"]]
    if claim is not None and claim not in claims:
        raise UnknownName(f"{file} has no row of '{claim}'.", did_you_mean(claim, claims) or "")
    found = []
    for one in known:
        runs: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for row in one["outcomes"]:
            if claim in (None, row["claim"]):
                run = run_of(one, row)
                runs.setdefault(id(run), (run, []))[1].append(row)
        for run, rows in runs.values():
            found += _Again(one["model"], run, rows, model, device, dtype, progress).answers()
    return found


@dataclass
class _Again:
    """The rows of one run of one model, and how they are run again."""

    name: str
    run: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    place: Model | str | None
    device: str | None
    dtype: str
    progress: Progress

    def answers(self) -> list[Verification]:
        """An answer a row, in their order."""
        reasons = [_unfit(row, self.run) for row in self.rows]
        able = [row for row, reason in zip(self.rows, reasons, strict=True) if not reason]
        mined, why = self._mined(able)
        return [
            self._told(row, "not verifiable", reason) if reason else self._of(row, mined, why)
            for row, reason in zip(self.rows, reasons, strict=True)
        ]

    def _mined(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[dict[str, Any], dict[str, Any], float] | None, str]:
        """atlas.json, the facts of the run, and the tolerance; or why nothing ran ("" where nothing had to)."""
        if not any(row["detector"] for row in rows):
            return None, ""
        try:
            model = self._opened()
        except (SourceError, UnknownName) as error:
            return None, f"the weights of {self.name} cannot be had: {error.message}"
        if model.sha256() != self.run["sha256"]:
            return None, (
                f"the weights here have sha256 {model.sha256()[:12]}, the row's have {str(self.run['sha256'])[:12]}"
            )
        asked = list(self.run.get("detectors") or needed([catalogue.load().claims[row["claim"]] for row in rows]))
        asked = [name for name in asked if name in detectors()]
        options: dict[str, Any] = {"n": self.run["n"], "seed": self.run["seed"], "progress": self.progress}
        verdict = bool(self.run.get("verdict", True))
        with tempfile.TemporaryDirectory(prefix="headatlas-verify-") as home:
            first = mine(model, asked, verdict=verdict, out=Path(home) / "first", **options)
            with _other_threads():
                second = mine(model, asked, verdict=False, out=Path(home) / "second", **options)
            return (first.data, facts_of(first), max(LEAST, TIMES * _difference(first, second))), ""

    def _opened(self) -> Model:
        if isinstance(self.place, Model):
            return self.place
        where = self.place or self.name
        self.progress.say(f"Loading {where} ...")
        return models.load(where, device=self.device, dtype=self.dtype)

    def _of(
        self, row: Mapping[str, Any], mined: tuple[dict[str, Any], dict[str, Any], float] | None, why: str
    ) -> Verification:
        if row["detector"] and mined is None:
            return self._told(row, "not verifiable", why)
        atlas, facts, tolerance = mined or (None, {}, None)
        claim = catalogue.load().claims[row["claim"]]
        (now,) = [one for one in compare([claim], atlas) if one.detector == row["detector"]]
        ran = next((one for one in (atlas or {"detectors": ()})["detectors"] if one["name"] == row["detector"]), None)
        if ran is not None:
            here, there = facts.get("texts", {}).get(ran["task"]), self.run.get("texts", {}).get(ran["task"])
            if there is not None and here != there:
                return self._told(
                    row, "not verifiable", f"the texts of {ran['task']} are others here ({here}, not {there})"
                )
        at_bar = (
            _at_the_bar(ran, stack_of(ran, (atlas or {})["model"]), tolerance or LEAST) if ran is not None else set()
        )
        differs = _differing(row, now, ran, at_bar)
        result, said = ("differs", "; ".join(differs)) if differs else ("reproduced", _same(row, now))
        return self._told(row, result, said, now=now, tolerance=tolerance if ran is not None else None)

    def _told(self, row: Mapping[str, Any], result: str, reason: str, **more: Any) -> Verification:
        made = row.get("versions") or self.run.get("versions") or {}
        ours = versions_here()
        other = [
            f"{name} {made[name]} there, {ours[name]} here"
            for name in _LOCAL
            if made.get(name, ours[name]) != ours[name]
        ]
        return Verification(self.name, row["claim"], row["detector"], result, "; ".join([reason, *other]), **more)


def _unfit(row: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Why a row cannot be run again whatever the weights; "" where it can."""
    claim = catalogue.load().claims.get(row["claim"])
    if claim is None:
        return "the catalogue has no such claim"
    if {head.rpartition(":")[2] for head in row["claimed"]} != {head.head.rpartition(":")[2] for head in claim.heads}:
        return "the claim names other heads now"
    names = [detector.name for detector in detectors_for(claim)] if claim.heads else []
    if row["detector"] is None:
        return f"{claim.head_type} is measured now, by {', '.join(names)}" if names else ""
    if row["detector"] not in names:
        return f"no detector '{row['detector']}' measures {claim.head_type} here"
    there, ours = run.get("detectors", {}).get(row["detector"]), detectors()[row["detector"]]
    if there is not None and there != [ours.version, ours.minimum_effect]:
        return (
            f"{ours.name} is another one here: version {ours.version} with a bar of {ours.minimum_effect}, not {there}"
        )
    lacks = [name for name in ("sha256", "n", "seed") if run.get(name) is None]
    return f"its run does not say {' and '.join(lacks)}" if lacks else ""


@contextlib.contextmanager
def _other_threads() -> Iterator[None]:
    """Sums in another order: one thread where there are several, two where there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _difference(first: Atlas, second: Atlas) -> float:
    """The largest difference of a score between two runs of the same detectors."""
    again = {one["name"]: one["scores"] for one in second.data["detectors"]}
    pairs = (
        (a, b)
        for one in first.data["detectors"]
        for rows in zip(one["scores"], again[one["name"]], strict=True)
        for a, b in zip(*rows, strict=True)
    )
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _differing(row: Mapping[str, Any], now: Outcome, ran: Mapping[str, Any] | None, at_bar: set[str]) -> list[str]:
    """What came out otherwise than the row says; heads at the bar may be observed or not, marginal ones act or not."""
    found = []
    if now.result != row["result"]:
        found.append(f"{now.result} here, {row['result']} there")
    if ran is None:
        return found
    marginal = {str(HeadId(one["layer"], one["head"], one["stack"])) for one in ran["heads"] if one.get("marginal")}
    for said, heads in (
        ("observed here, not there", set(now.observed) - set(row["observed"]) - at_bar),
        ("observed there, not here", set(row["observed"]) - set(now.observed) - at_bar),
        ("acting here, not there", set(now.acting) - set(row["acting"]) - marginal - at_bar),
        ("acting there, not here", set(row["acting"]) - set(now.acting) - marginal - at_bar),
    ):
        if heads:
            found.append(f"{' '.join(sorted(heads, key=HeadId.parse))} {said}")
    return found


def _at_the_bar(ran: Mapping[str, Any], stack: str, tolerance: float) -> set[str]:
    """The heads whose score stands within the tolerance of what a detector asks for."""
    grids = zip(ran["scores"], ran["chance"], strict=True)
    return {
        str(HeadId(layer, head, stack))
        for layer, rows in enumerate(grids)
        for head, (score, chance) in enumerate(zip(*rows, strict=True))
        if score is not None and abs(score - (chance or 0.0) - ran["minimum_effect"]) <= tolerance
    }


def _same(row: Mapping[str, Any], now: Outcome) -> str:
    if not now.claimed or now.recall is None:
        return f"{row['result']} here too: {now.reason}"
    return f"{row['result']} here too, with {len(now.found)} of {len(now.claimed)} claimed heads"
