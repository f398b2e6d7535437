"""Pages of heads as objects: printed, as plain data, and written to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.ops.types import Array
from headatlas.pages.clusters import Behaviour, Behaviours, told
from headatlas.pages.events import Event, Place
from headatlas.pages.generated import Generated
from headatlas.pages.kinds import OFFSETS, PAIRS, columns
from headatlas.pages.removal import Removal
from headatlas.pages.scan import Counts
from headatlas.pages.structure import CLASSES
from headatlas.render.numbers import count, number, percent, signed
from headatlas.report.text_pages import SCHEMA
from headatlas.store import clean


@dataclass(frozen=True)
class Role:
    """What becomes of a detector's role on text: of `met` events in which it could be played, in how many the head does it
    (attention of a half or more), rests, or does something else. mean: its attention to the role's keys over these events.
    """

    kind: str
    detector: str
    met: int
    does: int
    rests: int
    mean: float

    @property
    def otherwise(self) -> int:
        """Events in which it does something else."""
        return self.met - self.does - self.rests

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "otherwise": self.otherwise}


@dataclass(frozen=True)
class Removed:
    """A head removed at the events of one behaviour, and at as many random events of its others."""

    there: Removal
    random: Removal

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {"events": self.there.data, "random": self.random.data}


@dataclass(frozen=True)
class HeadPage:
    """One head's page. examples, removals: by number of the behaviour. weights: tokens that the weights alone give (`ov`, `qk`)."""

    head: HeadId
    behaviours: Behaviours
    strongest: tuple[Event, ...] = ()
    deciles: tuple[Event, ...] = ()
    random: tuple[Event, ...] = ()
    examples: Mapping[int, tuple[Event, ...]] = field(default_factory=dict)
    removals: Mapping[int, Removed] = field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [f"HeadPage({self.head}: rests in {percent(self.behaviours.resting)} of events)"]
        for number_, one in enumerate(self.behaviours.groups):
            lines.append(f"  {behaviour_line(one)}{removed_line(self.removals.get(number_))}")
        return "\n".join(lines)


def behaviour_line(one: Behaviour) -> str:
    """A behaviour in words: "follows-same in 12% of events (follows-same 86%)"."""
    return f"{one.name} in {percent(one.share)} of events ({told(one.reads) or 'spread over many parts'})"


def removed_line(removed: Removed | None) -> str:
    """What removing the head there does to the loss, in words; empty where that was not measured."""
    if removed is None:
        return ""
    at, other = removed.there.data["there"], removed.random.data["there"]
    beside = (
        f"at random events {signed(other['mean'])}" if len(removed.random.there) else "no other events to compare with"
    )
    return f"; removed there: loss {signed(at['mean'])} ({signed(at['low'])} to {signed(at['high'])}) nats, {beside}"


@dataclass(frozen=True)
class HeadPages:
    """What a model's heads do on a corpus.

    model: its name. facts: what decides the numbers, and how they were made. heads: every head. counts: of the scan.
    pages: of the heads asked for. generated: what heads did while the model wrote, where it did.
    """

    model: str
    facts: Mapping[str, Any]
    heads: tuple[HeadId, ...]
    counts: Counts
    pages: Mapping[HeadId, HeadPage]
    generated: Generated | None = None

    @property
    def active(self) -> Array:
        """[head] attention beside resting places, summed over events."""
        found: Array = np.maximum(self.counts.n - self.counts.rest, 1e-12)
        return found

    @property
    def explained(self) -> Array:
        """[head] share of the attention beside resting places that falls on keys of any known kind."""
        found: Array = self.counts.mass[:, columns()["known"]][:, 0] / self.active
        return found

    @property
    def chance(self) -> Array:
        """[head] the same if each event's attention were spread evenly over the keys that it can see and does not rest on."""
        found: Array = self.counts.chance[:, columns()["known"]][:, 0] / self.active
        return found

    @property
    def overall(self) -> tuple[float, float]:
        """(explained, chance) of the model: all heads' attention beside resting places together."""
        total = self.active.sum()
        return float((self.explained * self.active).sum() / total), float((self.chance * self.active).sum() / total)

    @property
    def kinds(self) -> Array:
        """[head, kind] share of the attention beside resting places that falls on keys of each kind (in the order of `kinds.PAIRS`)."""
        found: Array = self.counts.mass[:, columns()["pairs"]] / self.active[:, None]
        return found

    @property
    def kinds_chance(self) -> Array:
        """[head, kind] chance levels of `kinds`."""
        found: Array = self.counts.chance[:, columns()["pairs"]] / self.active[:, None]
        return found

    def page(self, head: str | HeadId | tuple[int, int]) -> HeadPage:
        """The page of one head. Raises BadInput where there is none."""
        wanted = HeadId.parse(head)
        if wanted not in self.pages:
            raise BadInput(
                f"There is no page of head {wanted} here.", f"There are {' '.join(map(str, list(self.pages)[:8]))}."
            )
        return self.pages[wanted]

    def row(self, head: HeadId) -> dict[str, Any]:
        """One head's numbers as plain data."""
        i, n = self.heads.index(head), float(self.counts.n[0])
        shares = lambda group: self.counts.mass[i, columns()[group]] / self.active[i]  # noqa: E731
        return {
            "head": str(head), "stack": head.stack, "layer": head.layer, "index": head.head, "events": int(n),
            "resting": float(self.counts.rest[i] / n), "resting_on_start": float(self.counts.start[i] / n),
            "entropy": float(self.counts.entropy[i] / n), "entropy_even": float(self.counts.uniform[i] / n),
            "write": float(self.counts.write[i] / n), "explained": float(self.explained[i]), "explained_chance": float(self.chance[i]),
            "kinds": {
                name: {"share": float(self.kinds[i, k]), "chance": float(self.kinds_chance[i, k])} for k, name in enumerate(PAIRS)
            },
            "offsets": dict(zip(OFFSETS, map(float, shares("offsets")), strict=True)),
            "classes": dict(zip(CLASSES, map(float, shares("classes")), strict=True)),
        }  # fmt: skip

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        explained, chance = self.overall
        return {
            "schema": SCHEMA, "model": self.model, "facts": dict(self.facts), "explained": explained, "explained_chance": chance,
            "heads": [self.row(head) for head in self.heads],
            "pages": {str(head): page_data(page) for head, page in self.pages.items()},
            "generated": None if self.generated is None else self.generated.data(self.heads),
        }  # fmt: skip

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Columns of two tables: `heads`, a row a head, and `behaviours`, a row a behaviour of the heads with pages."""
        rows = [self.row(head) for head in self.heads]
        plain = ("head", "stack", "layer", "index", "events", "resting", "resting_on_start", "entropy", "entropy_even", "write",
                 "explained", "explained_chance")  # fmt: skip
        heads: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in plain}
        for name in PAIRS:
            heads[name] = [row["kinds"][name]["share"] for row in rows]
            heads[f"{name}_chance"] = [row["kinds"][name]["chance"] for row in rows]
        groups: list[dict[str, Any]] = []
        for head, page in self.pages.items():
            for i, one in enumerate(page.behaviours.groups):
                removed = page.removals.get(i)
                at = removed.data["events"]["there"] if removed else {}
                other = removed.data["random"]["there"] if removed else {}
                groups.append({
                    "head": str(head), "behaviour": i, "name": one.name, "share": one.share, "reads": told(one.reads), "spread": one.spread,
                    "loss_change": at.get("mean"), "loss_change_low": at.get("low"), "loss_change_high": at.get("high"),
                    "loss_change_random": other.get("mean"),
                })  # fmt: skip
        names = ("head", "behaviour", "name", "share", "reads", "spread", "loss_change", "loss_change_low", "loss_change_high",
                 "loss_change_random")  # fmt: skip
        return {"heads": heads, "behaviours": {name: [row[name] for row in groups] for name in names}}

    def __repr__(self) -> str:
        explained, chance = self.overall
        return (
            f"HeadPages({self.model} on {self.facts['corpus']}, {self.facts['tokens']:,} tokens, {int(self.counts.n[0]):,} events a head: "
            f"known kinds explain {percent(explained)} of the attention beside resting places (chance {percent(chance)}); "
            f"{count(len(self.pages), 'page')})"
        )


def page_data(page: HeadPage) -> dict[str, Any]:
    """A page as plain data."""
    found = page.behaviours
    events = {name: [one.data for one in getattr(page, name)] for name in ("strongest", "deciles", "random")}
    groups = []
    for i, one in enumerate(found.groups):
        removed = page.removals.get(i)
        groups.append({
            "name": one.name, "share": one.share, "reads": one.reads, "kinds": one.kinds, "spread": one.spread,
            "examples": [event.data for event in page.examples.get(i, ())], "removal": removed.data if removed else None,
        })  # fmt: skip
    return {
        "resting": found.resting, "silhouette": number_or_none(found.silhouette), "agreement": number_or_none(found.agreement),
        "note": found.note, "behaviours": groups, "roles": [role.data for role in page.roles], "weights": dict(page.weights), **events,
    }  # fmt: skip


def number_or_none(value: float) -> float | None:
    """NaN as None."""
    found: float | None = clean(value)
    return found


def places(events: Array) -> list[Place]:
    """(window, position) of rows of events, those that are not filled left out."""
    return [(int(window), int(position)) for window, position in events if window >= 0]


def summary_lines(found: HeadPages, heads: Sequence[HeadId]) -> list[str]:
    """What a terminal shows of heads: a head in a paragraph; what was measured while the model wrote first."""
    lines = [] if found.generated is None else found.generated.lines(found.heads)
    for head in heads:
        row = found.row(head)
        lines.append(
            f"{head}: rests {percent(row['resting'])} (on start tokens {percent(row['resting_on_start'])}), entropy {number(row['entropy'])} of "
            f"{number(row['entropy_even'])} nats, known kinds explain {percent(row['explained'])} of the rest (chance {percent(row['explained_chance'])})"
        )
        page = found.pages.get(head)
        if page is None:
            continue
        for i, one in enumerate(page.behaviours.groups):
            lines.append(f"  {behaviour_line(one)}{removed_line(page.removals.get(i))}")
        if page.behaviours.note and len(page.behaviours.groups) < 2:
            lines.append(f"  ({page.behaviours.note})")
        for role in page.roles:
            lines.append(
                f"  {role.detector} on text: {role.met} events in which it could ({role.kind}); does it in {percent(role.does / max(role.met, 1))}, "
                f"rests in {percent(role.rests / max(role.met, 1))}, does something else in {percent(role.otherwise / max(role.met, 1))}"
            )
    return lines
