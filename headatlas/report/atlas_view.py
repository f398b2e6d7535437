"""Reads an atlas (the dict of `atlas.json`) into what pictures need: which heads exist, what was seen in each.

Nothing is measured here: an observation is one line of the atlas, with the names of its head type and stage beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.render.numbers import finite
from headatlas.render.palette import STAGE, STAGES
from headatlas.report.atlas_schema import SCHEMA, VERDICTS
from headatlas.report.head_line import checks_of, line_of

# VERDICTS has the strongest first; a head with several observations shows the first that applies.
CONFIRMED = ("causal", "group")
VERDICT_WORDS = {
    "causal": "switching this head off alone changes the result",
    "group": "switching it off changes the result once other heads like it are off",
    "refuted": "it looks the part, but switching it off changes nothing, alone or beside others",
    "untested": "seen in the scores, but its effect was not tested, or too few examples or other heads tell of one",
}
# What runs called a group before heads that are causal alone were left out of it; it says nothing of any one head.
OLD_GROUP = "group (old definition)"


@dataclass(frozen=True)
class Observation:
    """One observed head of one detector."""

    detector: str
    head_type: str
    type_name: str
    stage: str
    stack: str
    layer: int
    head: int
    verdict: str
    shown: str  # the verdict in words, with what the head works against
    checks: str  # their outcomes in a few words
    line: str  # all of it in one line
    marginal: bool  # whether other examples may well give another verdict
    works: str  # "for" or "against" what the task measures; "" where it does neither, or that was not asked
    numbers: Mapping[str, float | None]  # the keys of _NUMBERS, and beside_effect

    @property
    def address(self) -> str:
        """As `HeadId` prints it: 17.4, or encoder:17.4."""
        name = f"{self.layer}.{self.head}"
        return name if self.stack == "decoder" else f"{self.stack}:{name}"


@dataclass(frozen=True)
class Ability:
    """A task that was tried: the model's metric on it and without the ability, its share of right answers and by chance.

    able: whether the model does it; None where that was not measured. detectors: those that ask it.
    """

    task: str
    able: bool | None
    metric: str
    value: float | None
    floor: float | None
    accuracy: float | None
    chance: float | None
    detectors: tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """The heads of one stack: `exists[layer][head]`; layers without attention have no heads."""

    name: str
    exists: tuple[tuple[bool, ...], ...]

    @property
    def n_layers(self) -> int:
        """How many layers, those without attention included."""
        return len(self.exists)

    @property
    def n_heads(self) -> int:
        """The largest number of heads in a layer."""
        return max((len(row) for row in self.exists), default=0)

    @property
    def count(self) -> int:
        """How many heads there are."""
        return sum(map(sum, self.exists))


@dataclass(frozen=True)
class AtlasView:
    """An atlas, checked and joined with the catalogue's words."""

    atlas: Mapping[str, Any]
    extras: Mapping[str, Any]
    observations: tuple[Observation, ...]
    stacks: tuple[Stack, ...]  # the main stack first: the one that most grids of scores are about

    @property
    def model(self) -> Mapping[str, Any]:
        """The atlas' facts about the model."""
        return self.atlas.get("model") or {}

    @property
    def detectors(self) -> Sequence[Mapping[str, Any]]:
        """The detectors that ran."""
        return self.atlas.get("detectors") or []

    @property
    def skipped(self) -> Sequence[Mapping[str, Any]]:
        """The detectors that did not run, with the reason."""
        return self.atlas.get("skipped") or []

    @property
    def pages(self) -> Sequence[Mapping[str, Any]]:
        """Pages of heads on text that are linked, as `text_pages.linked` tells of them."""
        return self.extras.get("pages") or []

    @property
    def abilities(self) -> list[Ability]:
        """The tasks in the order of their names."""
        asked: dict[str, list[Mapping[str, Any]]] = {}
        for entry in self.detectors:
            asked.setdefault(entry["task"], []).append(entry)
        found = []
        for task, entries in sorted(asked.items()):
            base = entries[0].get("baseline") or {}
            numbers = {name: finite(base.get(name)) for name in ("value", "floor", "accuracy", "chance")}
            names = tuple(entry["name"] for entry in entries)
            found.append(Ability(task, base.get("able"), base.get("metric") or "", detectors=names, **numbers))
        return found

    @property
    def n_heads(self) -> int:
        """How many heads the model has."""
        return sum(stack.count for stack in self.stacks)

    def stage_name(self, stage: str) -> str:
        """The name of a stage, the caller's words first."""
        named = {entry["id"]: entry["name"] for entry in self.extras.get("stages") or []}
        return str(named.get(stage, STAGE[stage].name))

    def type_name(self, kind: str) -> str:
        """The name of a head type, in the catalogue's words where it is there."""
        about = (self.extras.get("head_types") or {}).get(kind) or {}
        return about.get("name") or str(kind).replace("-", " ").capitalize()

    def stack_of(self, entry: Mapping[str, Any]) -> Stack:
        """The stack that a detector's grids of scores are about."""
        return next((one for one in self.stacks if one.name == entry.get("stack")), self.stacks[0])

    def stage_of(self, entry: Mapping[str, Any]) -> str:
        """The stage of a detector: its own, else that of its head type, else `none`."""
        about = (self.extras.get("head_types") or {}).get(entry["head_type"]) or {}
        return entry.get("stage") or about.get("stage") or "none"

    def by_head(self, stack: str) -> dict[tuple[int, int], list[Observation]]:
        """(layer, head) -> its observations, the strongest verdict first."""
        heads: dict[tuple[int, int], list[Observation]] = {}
        for seen in self.observations:
            if seen.stack == stack:
                heads.setdefault((seen.layer, seen.head), []).append(seen)
        for found in heads.values():
            found.sort(key=lambda seen: VERDICTS.index(seen.verdict))
        return heads

    def by_type(self) -> list[tuple[str, list[Observation]]]:
        """Head types by name, in the atlas' order, with each head's best observation, the highest score first."""
        types: dict[str, dict[str, Observation]] = {}
        for seen in sorted(self.observations, key=lambda seen: -(seen.numbers["score"] or 0)):
            types.setdefault(seen.type_name, {}).setdefault(seen.address, seen)
        order = list(dict.fromkeys(seen.type_name for seen in self.observations))
        return [(name, list(types[name].values())) for name in order]


def best_of(entry: Mapping[str, Any]) -> tuple[str, float, float] | None:
    """The head with the highest score of a detector, its score and chance; None where nothing was scored.

    As layer.head of the model's first stack, by its address where the detector's scores are another stack's.
    """
    found = [
        (str(HeadId(i, j, entry.get("stack") or "decoder")), score, chance)
        for i, rows in enumerate(zip(entry.get("scores") or [], entry.get("chance") or [], strict=False))
        for j, pair in enumerate(zip(rows[0] or [], rows[1] or [], strict=False))
        if (score := finite(pair[0])) is not None and (chance := finite(pair[1])) is not None
    ]
    return max(found, key=lambda one: one[1]) if found else None


def stages_of(found: Sequence[Observation]) -> list[tuple[str, bool]]:
    """The stages of a head's observations in the survey's order, each with whether any of them was confirmed."""
    confirmed: dict[str, bool] = {}
    for seen in found:
        confirmed[seen.stage] = confirmed.get(seen.stage, False) or seen.verdict in CONFIRMED
    return [(stage.id, confirmed[stage.id]) for stage in STAGES if stage.id in confirmed]


def read(atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None) -> AtlasView:
    """Check the schema and join the observed heads with their names. Raises BadInput."""
    schema = atlas.get("schema") if isinstance(atlas, Mapping) else None
    if schema != SCHEMA:
        raise BadInput(
            f"This is not an atlas that this version reads: its schema is {schema!r}, expected '{SCHEMA}'.",
            "Give the content of an atlas.json written by `headatlas mine`.",
        )
    bare = AtlasView(atlas, extras or {}, (), ())
    observations = tuple(_observe(bare, entry, line) for entry in bare.detectors for line in entry["heads"])
    seen_in = [name for name, _ in Counter(seen.stack for seen in observations).most_common()]
    names = list(dict.fromkeys([*(bare.model.get("stacks") or ()), *seen_in])) or ["decoder"]
    stacks = tuple(_stack(name, bare, observations, main=name == names[0]) for name in names)
    return replace(bare, observations=observations, stacks=stacks)


def summary(view: AtlasView) -> str:
    """One sentence: how many heads show a known behaviour, and for how many it matters."""
    seen = {(item.stack, item.layer, item.head) for item in view.observations}
    causal = {(item.stack, item.layer, item.head) for item in view.observations if item.verdict == "causal"}
    tried = len(view.detectors)
    if not seen:
        return f"None of the {view.n_heads} heads passed any of {tried} detectors."
    kinds = len({item.head_type for item in view.observations})
    shown = f"{len(seen)} of {view.n_heads} heads show a known kind of behaviour ({kinds} kinds, {tried} detectors)"
    if all(item.verdict == "untested" for item in view.observations):
        return f"{shown}; whether the model depends on them was not tested."
    n_against = len({(item.stack, item.layer, item.head) for item in view.observations
                     if item.verdict == "causal" and item.works == "against"})  # fmt: skip
    sure = {(item.stack, item.layer, item.head) for item in view.observations
            if item.verdict == "causal" and not item.marginal}  # fmt: skip
    told = [f"{n_against} {'works' if n_against == 1 else 'work'} against it"] if n_against else []
    told += [f"{n_marginal} marginal"] if (n_marginal := len(causal - sure)) else []
    against = f" ({', '.join(told)})" if told else ""
    return f"{shown}; for {len(causal)} of them, switching that head off alone changes the result{against}."


_NUMBERS = ("score", "low", "high", "chance", "p", "q", "effect", "effect_low", "effect_high", "random_effect")


def _observe(names: AtlasView, entry: Mapping[str, Any], line: Mapping[str, Any]) -> Observation:
    stage, verdict, works = names.stage_of(entry), line.get("verdict") or "untested", line.get("works") or ""
    if stage not in STAGE or verdict not in VERDICTS:
        raise BadInput(
            f"Detector '{entry['name']}' has stage '{stage}' and verdict '{verdict}' for head "
            f"{line['layer']}.{line['head']}.",
            f"Known are the stages {', '.join(STAGE)} and the verdicts {', '.join(VERDICTS)}.",
        )
    shown = f"{verdict}, works against" if works == "against" else verdict
    if line.get("carries"):
        shown += f", {line['carries']}"
    if line.get("marginal"):
        shown += ", marginal"
    if verdict == "group" and (entry.get("group") or {}).get("heads") is None:
        verdict, shown = "untested", OLD_GROUP
    beside = line.get("beside_others") or {}
    return Observation(
        detector=entry["name"],
        head_type=entry["head_type"],
        type_name=names.type_name(entry["head_type"]),
        stage=stage,
        stack=line.get("stack") or "decoder",
        layer=int(line["layer"]),
        head=int(line["head"]),
        verdict=verdict,
        shown=shown,
        checks=checks_of(line),
        line=line_of(entry, line),
        marginal=bool(line.get("marginal")),
        works=works,
        numbers={name: finite(line.get(name)) for name in _NUMBERS} | {"beside_effect": finite(beside.get("effect"))},
    )


def _stack(name: str, bare: AtlasView, observations: Sequence[Observation], *, main: bool) -> Stack:
    """A head exists where the model says so by stack, else where any detector has a score for it, else by the model's own numbers."""
    known = (bare.model.get("stack_heads") or {}).get(name)
    if known is not None:
        return Stack(name, tuple((True,) * heads for heads in known))
    grids = [
        e["scores"] for e in bare.detectors if e.get("scores") and (e.get("stack") == name if e.get("stack") else main)
    ]
    found = {(seen.layer, seen.head) for seen in observations if seen.stack == name}
    for grid in grids:
        found |= {
            (i, j) for i, row in enumerate(grid) for j, value in enumerate(row or []) if finite(value) is not None
        }
    if not grids:
        found |= {(i, j) for i in range(bare.model.get("n_layers") or 0) for j in range(bare.model.get("n_heads") or 0)}
    n_layers = max([len(grid) for grid in grids] + [i + 1 for i, _ in found] + [0])
    widths = [0] * n_layers
    for i, j in found:
        widths[i] = max(widths[i], j + 1)
    return Stack(name, tuple(tuple((i, j) in found for j in range(width)) for i, width in enumerate(widths)))
