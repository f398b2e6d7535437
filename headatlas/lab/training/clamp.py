"""A toy trained twice from one seed: as it is, and with some heads changed for some steps. What became of it?"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headatlas.errors import BadInput, StoreError
from headatlas.lab.toy.figure import draw
from headatlas.lab.toy.study import Panel, Study
from headatlas.lab.toys import find_study
from headatlas.lab.training.interventions import Intervention, demand_heads
from headatlas.lab.training.loop import STATE, Training
from headatlas.progress import Progress
from headatlas.store import claimed, finished, give_name, partial_of, write_json, write_text
from headatlas.version import __version__

_SCHEMA = "headatlas/clamp/1"
CONTROL, CHANGED = "control", "changed"


@dataclass(frozen=True)
class Clamped:
    """Two trainings of a toy side by side: runs["control"] and runs["changed"], on the same examples in the same order."""

    study: Study
    seed: int
    interventions: tuple[Intervention, ...]
    runs: Mapping[str, Training]

    @property
    def numbers(self) -> list[str]:
        """The measured numbers that the toy's own figure shows of the variant that was trained."""
        main = self.study.variants[0].name
        shown = [number for panel in self.study.panels for variant, number in panel.lines.values() if variant == main]
        return list(dict.fromkeys(["loss", *shown]))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """For each number its last values, and the steps at which it is halfway from the first to the control's last value."""
        found = []
        for name in self.numbers:
            values = self.runs[CONTROL].series(name)
            middle, rising = (values[0] + values[-1]) / 2, values[-1] >= values[0]
            half = {key: run.reaches(name, middle) if rising else run.falls_to(name, middle)
                    for key, run in self.runs.items()}  # fmt: skip
            found.append({"number": name, "last": {key: run.last(name) for key, run in self.runs.items()},
                          "halfway": {key: step if math.isfinite(step) else None for key, step in half.items()}})  # fmt: skip
        return found

    @property
    def data(self) -> dict[str, Any]:
        """All numbers as plain data."""
        points = {name: [asdict(point) for point in run.points] for name, run in self.runs.items()}
        told = list(map(str, self.interventions))
        return {"schema": _SCHEMA, "toy": self.study.name, "seed": self.seed, "interventions": told, "rows": self.rows,
                "trainings": points}  # fmt: skip

    def draw(self) -> str:
        """Both trainings as one SVG, a panel for each number."""
        panels = [Panel(name, {key: (key, name) for key in self.runs}) for name in self.numbers]
        return draw(f"{self.study.name}: {'; '.join(map(str, self.interventions))}", panels, self.runs)


def clamp(
    kind: str,
    interventions: Intervention | Sequence[Intervention],
    *,
    seed: int = 0,
    steps: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Clamped:
    """Train the toy called `kind` with heads clamped, ablated, frozen or regularised for some steps, and once without.

    Both trainings have the same first weights, examples and steps, so that they are the same bit by bit until the first
    intervention begins; at each checkpoint the model is measured with what is in force at that step. Only the first
    variant of the toy is trained. steps: of each. out: a folder that gets both models with their checkpoints, clamp.json
    and clamp.svg; an interrupted call goes on. To do the same to a model of one's own: `headatlas.lab.training.loop.train`.
    Raises UnknownName, BadInput, StoreError.
    """
    study = find_study(kind)
    asked = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    plain = study.variants[0]
    model = plain.make(seed)
    if not hasattr(model, "config"):
        raise BadInput(f"The toy {kind} has no attention heads that could be changed.", "Choose another toy.")
    demand_heads(model, asked)  # before the control is trained
    length = plain.options.steps if steps is None else steps
    for one in asked:
        if one.start >= length:
            raise BadInput(f"'{one}' begins after the last step, {length}.", "Choose an earlier start.")
    variants = {CONTROL: plain, CHANGED: replace(plain, interventions=plain.interventions + asked)}
    named = {key: replace(variant, name=key) for key, variant in variants.items()}
    if out is None:
        runs = {key: variant.train(seed, steps=steps, progress=progress) for key, variant in named.items()}
        return Clamped(study, seed, asked, runs)
    final = Path(out)
    facts = {"toy": study.name, "version": study.version, "seed": seed, "steps": steps, "headatlas": __version__,
             "torch": torch.__version__, "interventions": list(map(str, asked))}  # fmt: skip
    identity = {"id": hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12], **facts}
    if finished(final, identity, "clamp.json"):
        raise StoreError(f"{final} exists already.", "Name a folder that does not exist yet.")
    with claimed(final, identity):
        partial = partial_of(final)
        runs = {
            key: variant.train(seed, steps=steps, folder=partial / key, progress=progress)
            for key, variant in named.items()
        }
        found = Clamped(study, seed, asked, runs)
        for key, variant in named.items():
            variant.save(runs[key].model, partial / key)
            (partial / key / STATE).unlink(missing_ok=True)
        write_json(partial / "clamp.json", found.data)
        write_text(partial / "clamp.svg", found.draw())
        give_name(partial, final)
    return found
