"""Comparing a model with what was made of it, in one call: two finished runs, or two models that are mined alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headatlas import model as models
from headatlas.atlas import Atlas
from headatlas.errors import BadInput
from headatlas.mining.atlas_json import ModelFacts
from headatlas.mining.comparison.changes import Comparison, compare_runs
from headatlas.mining.comparison.runs import FinishedRun, demand_same_shape
from headatlas.mining.own import OwnTasks
from headatlas.mining.run import mine
from headatlas.model import Model
from headatlas.progress import Progress, Silent

Compared = Model | Atlas | str | Path


def compare(
    a: Compared,
    b: Compared,
    detectors: Sequence[str] | None = None,
    *,
    tasks: OwnTasks | None = None,
    n: int | None = None,
    seed: int | None = None,
    verdict: bool | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Which heads of a model changed in what was made of it: lost, weakened, gained, strengthened.

    a, b: two finished runs (folders, `Atlas`), or two models (names, or opened), which are then mined alike into the default
    folders of `mine`: a base model first, then the one that was fine-tuned, quantised, pruned or given an adapter. Heads are
    compared by address, on paired examples, counted over all heads and detectors (`compare_runs`). detectors: only these.
    tasks, n (default 32), seed (0), verdict (True): as in `mine`; device, dtype: as in `load`; runs have theirs. Raises
    BadInput where the two cannot be compared, UnknownName, StoreError.
    """
    asked = {"tasks": tasks, "n": n, "seed": seed, "verdict": verdict, "device": device, "dtype": dtype}
    runs = [_is_run(one) for one in (a, b)]
    if all(runs):
        given = [name for name, value in asked.items() if value is not None]
        if given:
            raise BadInput(f"Finished runs have their {given[0]} already.", "Leave it out, or give two models to mine.")
        return compare_runs(_finished(a), _finished(b), detectors)
    if any(runs):
        run, other = (a, b) if runs[0] else (b, a)
        raise BadInput(
            f"{_named(run)} is a run, and {_named(other)} is none.", "Give two finished runs, or two models."
        )
    progress = progress or Silent()
    pair = [_opened(one, device, dtype, progress) for one in (a, b)]
    demand_same_shape(*(vars(ModelFacts.of(one)) for one in pair))  # before hours of work
    first, second = (
        mine(
            one,
            detectors,
            tasks=tasks,
            n=32 if n is None else n,
            seed=seed or 0,
            verdict=verdict is not False,
            progress=progress,
        )
        for one in pair
    )
    return compare_runs(FinishedRun.of(first), FinishedRun.of(second))


def _is_run(one: Compared) -> bool:
    """Whether a run is meant: an atlas, or a folder that is no model's."""
    if isinstance(one, Model):
        return False
    if isinstance(one, Atlas):
        return True
    place = Path(one).expanduser()
    return place.is_dir() and not (place / "config.json").exists()


def _finished(one: Compared) -> FinishedRun:
    return FinishedRun.of(one if isinstance(one, Atlas) else Atlas(Path(str(one)).expanduser()))


def _named(one: Compared) -> str:
    return one.name if isinstance(one, Model) else str(one.folder if isinstance(one, Atlas) else one)


def _opened(one: Compared, device: str | None, dtype: str | None, progress: Progress) -> Model:
    if isinstance(one, Model):
        if device is not None or dtype is not None:
            raise BadInput(f"{one.name} is opened already.", "Choose device and dtype where it is loaded.")
        return one
    progress.say(f"Loading {one} ...")
    return models.load(str(one), device=device, dtype=dtype or "auto")
