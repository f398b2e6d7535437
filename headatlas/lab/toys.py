"""Small transformers trained here while their heads are watched: truth by training, not by construction."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.lab.measure import without
from headatlas.lab.toy.figure import draw
from headatlas.lab.toy.study import Outcome, Study, Variant
from headatlas.lab.training.loop import STATE, Training
from headatlas.progress import Progress
from headatlas.registry import discover, lookup
from headatlas.store import claimed, finished, give_name, new_folder, partial_of, read_json, write_json, write_text
from headatlas.version import __version__

_SCHEMA = "headatlas/toy/2"
_CURVE = "curve.json"


def studies() -> Mapping[str, Study]:
    """Every toy, by name."""
    return discover("headatlas.lab.toy.studies", Study)


def find_study(name: str) -> Study:
    """The toy called `name`. Raises UnknownName."""
    found = studies()
    return lookup(found, name, "toy", f"Known: {', '.join(found)}.")


@dataclass(frozen=True)
class Toy:
    """A trained toy. runs: the trainings of its study by name; outcomes: what became of the paper's claims.

    effects: what switching a head off adds to the study's own number (`Study.ablated`), for each head and for all of a
    layer together.
    """

    study: Study
    seed: int
    runs: Mapping[str, Training]
    outcomes: tuple[Outcome, ...]
    effects: Mapping[str, float]

    @property
    def model(self) -> Any:
        """The trained model: an ordinary transformers model, where the paper's is one."""
        return self.runs[self.study.variants[0].name].model

    @property
    def data(self) -> dict[str, Any]:
        """The numbers as plain data."""
        points = {name: [asdict(point) for point in run.points] for name, run in self.runs.items()}
        return {
            "schema": _SCHEMA,
            "kind": self.study.name,
            "paper": self.study.paper,
            "seed": self.seed,
            "effects": dict(self.effects),
            "claims": [asdict(outcome) for outcome in self.outcomes],
            "trainings": points,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model, its tokenizer where it has words, curve.json and curve.svg, whole or not at all."""
        target = Path(folder)
        with new_folder(target) as partial:
            _write(self, partial)
        return target


def train_toy(
    kind: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Toy:
    """Train the toy called `kind` from `seed`, with all variants that its paper compares; minutes on two cores.

    steps: of each training, in place of the recipe's own; claims are then judged on less than they are made for. out: a
    folder that gets the model, its checkpoints, the other variants and the numbers; a training that was interrupted, by
    whatever, goes on from there and ends in the same bits. Raises UnknownName, BadInput, StoreError.
    """
    study = find_study(kind)
    if out is None:
        runs = {one.name: one.train(seed, steps=steps, progress=progress) for one in study.variants}
        return _toy(study, seed, runs)
    final = Path(out)
    facts = {"toy": study.name, "version": study.version, "seed": seed, "steps": steps, "headatlas": __version__,
             "torch": torch.__version__}  # fmt: skip
    identity = {"id": hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12], **facts}
    if finished(final, identity, _CURVE):
        raise StoreError(f"{final} exists already.", "Name a folder that does not exist yet.")
    with claimed(final, identity) as dropped:
        partial = partial_of(final)
        if dropped and progress is not None:
            progress.say(f"An unfinished training in {partial} was dropped; it differs in {'; '.join(dropped)}.")
        folders = {one.name: partial / "variants" / one.name for one in study.variants[1:]}
        folders[study.variants[0].name] = partial
        runs = {
            one.name: one.train(seed, steps=steps, folder=folders[one.name], progress=progress)
            for one in study.variants
        }
        toy = _toy(study, seed, runs)
        _write(toy, partial)
        for folder in folders.values():  # what stays is for use; moments of the optimiser are not
            (folder / STATE).unlink(missing_ok=True)
        give_name(partial, final)
    return toy


def read_toy(folder: str | os.PathLike[str]) -> tuple[Study, int]:
    """(study, seed) of the toy that was trained into a folder. Raises BadInput where none was, StoreError, UnknownName."""
    path = Path(folder) / _CURVE
    if not path.is_file():
        raise BadInput(f"{folder} holds no trained toy (no {_CURVE}).", "Train one: headatlas toy KIND --out FOLDER")
    known = read_json(path)
    if known.get("schema") != _SCHEMA:
        raise BadInput(f"{path} is not of this version ({known.get('schema')}, now {_SCHEMA}).", "Train the toy again.")
    return find_study(str(known["kind"])), int(known["seed"])


def _toy(study: Study, seed: int, runs: Mapping[str, Training]) -> Toy:
    outcomes = tuple(claim.judged(runs) for claim in study.claims)
    main = study.variants[0]
    effects = ablations(runs[main.name].model, main, study.ablated, seed) if study.ablated else {}
    return Toy(study, seed, runs, outcomes, effects)


def ablations(model: Any, variant: Variant, number: str, seed: int) -> dict[str, float]:
    """What switching a head off adds to a measured number, for each head of a model and for all of a layer together."""
    config = model.config
    heads = [[HeadId(layer, head) for head in range(config.num_attention_heads)]
             for layer in range(config.num_hidden_layers)]  # fmt: skip
    sets: dict[str, tuple[HeadId, ...]] = {str(head): (head,) for layer in heads for head in layer}
    sets |= {f"layer {layer}": tuple(members) for layer, members in enumerate(heads)}
    measure, effects = variant.measure(seed), {}
    with torch.no_grad():
        whole = measure(model)[number]
        for name, members in sets.items():
            with without(model, *members):
                effects[name] = measure(model)[number] - whole
    return effects


def _write(toy: Toy, folder: Path) -> None:
    main, *others = toy.study.variants
    main.save(toy.model, folder)
    for one in others:
        (folder / "variants" / one.name).mkdir(parents=True, exist_ok=True)
        one.save(toy.runs[one.name].model, folder / "variants" / one.name)
    write_json(folder / _CURVE, toy.data)
    write_text(folder / "curve.svg", draw(f"{toy.study.name}, seed {toy.seed}", toy.study.panels, toy.runs))
