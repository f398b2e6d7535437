"""Reads what runs have measured: for each head type, in which models its heads were observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headatlas.errors import StoreError

SCHEMA = "headatlas/atlas/1"
# Best first; as in the reports of runs.
VERDICTS = ("causal", "group", "refuted", "untested")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ObservedHead(_Part):
    """A head that a detector observed."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    stack: str = "decoder"
    score: float | None = None
    chance: float | None = None
    verdict: Literal["causal", "group", "refuted", "untested"]
    works: Literal["for", "against", ""] = ""

    @property
    def shown(self) -> str:
        """The verdict in words."""
        return f"{self.verdict}, works against" if self.works == "against" else self.verdict

    @property
    def name(self) -> str:
        """As the command line prints it: 17.4, or encoder:17.4."""
        address = f"{self.layer}.{self.head}"
        return address if self.stack == "decoder" else f"{self.stack}:{address}"


class _Detector(_Part):
    name: str
    head_type: str
    heads: list[ObservedHead]
    group: dict[str, Any] | None = None

    @property
    def judged(self) -> tuple[ObservedHead, ...]:
        """The heads with today's verdicts: runs that name no `heads` in `group` called every observed head a group's."""
        if self.group is not None and "heads" in self.group:
            return tuple(self.heads)
        old = {"verdict": "untested"}
        return tuple(head.model_copy(update=old) if head.verdict == "group" else head for head in self.heads)


class _Model(_Part):
    name: str = Field(min_length=1)


class _Run(_Part):
    id: str
    created: str


class _Atlas(_Part):
    model: _Model
    run: _Run
    detectors: list[_Detector]


@dataclass(frozen=True)
class Sighting:
    """What one detector saw in one model: its observed heads, best first; none where it found nothing."""

    model: str
    detector: str
    run: str
    heads: tuple[ObservedHead, ...]

    @property
    def shown(self) -> str:
        """The model's name for readers: of a local folder only its own name, as where it lies is nobody's business."""
        local = self.model.startswith((".", "~")) or PurePosixPath(self.model).is_absolute() or "\\" in self.model
        return PureWindowsPath(self.model).name if local else self.model

    def with_verdict(self, verdict: str) -> int:
        """How many of the heads have this verdict."""
        return sum(head.verdict == verdict for head in self.heads)


def sightings(atlases: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, tuple[Sighting, ...]]:
    """Head type id -> what was seen of it, by model and detector, from (name of the file, its `atlas.json`) pairs.

    Of several runs of a detector on a model the newest counts. Raises StoreError for another schema or a damaged file.
    """
    newest: dict[tuple[str, str, str], tuple[str, Sighting]] = {}
    for file, data in atlases:
        atlas = _read(file, data)
        for found in atlas.detectors:
            seen = Sighting(atlas.model.name, found.name, atlas.run.id, found.judged)
            key = (found.head_type, seen.model, seen.detector)
            if key not in newest or newest[key][0] < atlas.run.created:
                newest[key] = (atlas.run.created, seen)
    result: dict[str, list[Sighting]] = {}
    for head_type, model, detector in sorted(newest):
        result.setdefault(head_type, []).append(newest[head_type, model, detector][1])
    return {head_type: tuple(found) for head_type, found in result.items()}


def _read(file: str, data: Mapping[str, Any]) -> _Atlas:
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        raise StoreError(f"{file} is not a {SCHEMA} file.", "Leave it out, or mine the model again.")
    try:
        return _Atlas.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{file} is damaged: {where}: {first['msg']}.", "Mine the model again.") from error
