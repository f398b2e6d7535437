"""The list of models that a campaign mines: a YAML file, or the same in Python; checked before anything slow, without torch.

n: 16                        # options for all models
detectors: [induction, previous-token]
models:
  - smollm2-135m
  - name: org/larger         # options of one model stand before those for all
    revision: v1.1
    dtype: bfloat16
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.files import strict_yaml
from headatlas.choices import CHECKS, DEVICE_MAP, DTYPE, parse_size
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.model.sources.resolve import look
from headatlas.reading import Name, Source, Written, checked
from headatlas.reading.files import read_bytes
from headatlas.registry import did_you_mean
from headatlas.renamed import current_detector

_MOST = 10_000  # models of a list


class _Options(Written):
    dtype: Name | None = None
    device: Name | None = None
    bos: Name | None = None
    device_map: Name | None = None
    weight_memory: Name | None = None
    detectors: list[Name] | None = None
    tasks: list[Name] | None = None
    n: Annotated[int, Field(ge=4, le=100_000)] | None = None
    seed: int | None = None
    verdict: bool | None = None
    verdict_n: Annotated[int, Field(ge=4)] | None = None
    checks: list[Name] | None = None


class _Entry(_Options):
    name: Name
    revision: Name | None = None


class _List(_Options):
    models: Annotated[list[_Entry], Field(min_length=1, max_length=_MOST)]


@dataclass(frozen=True)
class ModelEntry:
    """One model of a campaign with its options, as `load` and `mine` take them. label: its run's folder, and its name on the page."""

    label: str
    name: str
    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    bos: str = "auto"
    device_map: str | None = None
    weight_memory: str | None = None
    detectors: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    n: int = 32
    seed: int = 0
    verdict: bool = True
    verdict_n: int | None = None
    checks: tuple[str, ...] | None = None


Models = str | os.PathLike[str] | Sequence[str | Mapping[str, Any]]


def read_models(models: Models) -> list[ModelEntry]:
    """The models of a list: the path of a YAML file; or names, and mappings with a name and options, as the file has them.

    Raises BadInput, UnknownName, SourceError or CatalogueError (YAML) for the first fault: an option that there is not, a name
    that leads to no model as far as no network is asked, a detector, dtype or check that there is not.
    """
    if isinstance(models, str | os.PathLike):
        path = Path(models)
        source = Source(path, "Write models: and a list of names below it.", BadInput, 1 << 20)
        content: Any = strict_yaml.read(read_bytes(source), str(path)).value
    else:
        source = Source(Path("The list of models"), "Give names, or mappings with a name.", BadInput)
        content = {"models": list(models)}
    if isinstance(content, dict) and isinstance(content.get("models"), list):
        entries = [{"name": one} if isinstance(one, str) else one for one in content["models"]]
        content = {**content, "models": entries}
    known = checked(content, _List, source)
    entries, everyone = known.pop("models"), _given(known)
    seen: Counter[str] = Counter()
    found = []
    for number, entry in enumerate(entries, 1):
        options = {**everyone, **_given(entry)}
        label = re.sub(r"[^\w.-]+", "-", Path(entry["name"]).name or entry["name"]).strip("-.") or "model"
        seen[label] += 1
        one = ModelEntry(label=label if seen[label] == 1 else f"{label}-{seen[label]}", **options)
        try:
            _demand(one)
        except HeadAtlasError as error:
            raise type(error)(f"Model {number} of the list ({one.name}): {error.message}", error.hint) from error
        found.append(one)
    return found


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was written; lists as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if value is not None
    }


def _demand(one: ModelEntry) -> None:
    look(one.name, one.revision)
    DTYPE.demand(one.dtype)
    if one.device_map is not None:
        DEVICE_MAP.demand(one.device_map)
    if one.weight_memory is not None:
        parse_size(one.weight_memory)
    names = [name for group in detector_names().values() for name in group]
    for asked in one.detectors:
        if not asked.endswith(".py") and current_detector(asked) not in names:
            raise BadInput(f"There is no detector called '{asked}'.", did_you_mean(asked, names))
    for check in one.checks or ():
        if check not in (*CHECKS, "all", "none"):
            raise BadInput(f"There is no check '{check}'.", f"There are {', '.join(CHECKS)}.")
