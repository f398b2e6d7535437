"""The names, places, objects and wordings of indirect object identification, which weights are read with as well."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from headatlas.errors import UnfitTask
from headatlas.task import Vocabulary

NAMES = 5  # names a prompt and its counterfactual use: two, and three others


@functools.cache
def words() -> Mapping[str, Any]:
    """The wordings and words of the task."""
    file = resources.files("headatlas.tasks") / "data" / "ioi.yaml"
    found: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def one_token_names(tokenizer: Vocabulary, names: Sequence[str]) -> dict[str, int]:
    """Names that are one token after a space, with their ids. Raises UnfitTask where they are too few."""
    singles = {name: tokenizer.single(f" {name}") for name in names}
    found = {name: one for name, one in singles.items() if one is not None}
    if len(found) < NAMES:
        raise UnfitTask(f"ioi needs {NAMES} names of one token; this tokenizer has {len(found)} of {len(names)}.")
    return found
