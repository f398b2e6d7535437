"""`headatlas.campaign`: mines the models of a list; one that fails is told, and the others go on."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from headatlas import engines
from headatlas.atlas import Atlas
from headatlas.campaigns.model_list import ModelEntry, Models, read_models
from headatlas.errors import HeadAtlasError
from headatlas.mining.campaign.page import write_campaign
from headatlas.mining.campaign.result import Campaign, Mined
from headatlas.mining.checks.critics import chosen
from headatlas.mining.known_runs import Asked
from headatlas.mining.own import chosen_detectors
from headatlas.mining.run import mine
from headatlas.model import load
from headatlas.progress import Progress, Silent
from headatlas.reading import reason
from headatlas.store import writing
from headatlas.task import find_task

RUNS = "runs"  # of a campaign's folder: a run folder for each model


def campaign(
    models: Models,
    out: str | os.PathLike[str] = "campaign",
    *,
    at_once: int | None = None,
    progress: Progress | None = None,
) -> Campaign:
    """Mine many models into the folder `out`, and write a page that shows them side by side (index.html, campaign.json).

    models: the path of a YAML file, or a list (`headatlas.campaigns.model_list`): names, each with options of `load` and `mine` if wanted. All of it is
    checked before the first model is opened. A model that fails is told and the others go on. The same call goes on after an
    interruption: finished runs are taken as they are, begun ones go on, failed ones are tried again. Several programs may work
    on one folder: a model that another one is at is left to it. at_once: models under way together, where the engine has workers;
    default two, or one for each four workers, so that they have work while a model ends; the program holds as many. Raises BadInput, UnknownName, SourceError, StoreError.
    """
    entries, progress = read_models(models), progress or Silent()
    for one in entries:
        if one.detectors:
            chosen_detectors(one.detectors)
        for name in one.tasks:
            if not name.endswith(".py"):
                find_task(name)
    folder = Path(out)
    with writing(folder):
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    done: dict[str, Mined] = {}

    def work(entry: ModelEntry, number: int) -> None:
        progress.say(f"{entry.label}: model {number} of {len(entries)}.")
        done[entry.label] = _mined(entry, folder, _Named(progress, entry.label))
        if error := done[entry.label].error:
            progress.say(f"{entry.label}: failed: {error}")
        write_campaign(_campaign(entries, done, folder))

    engines.current().together([functools.partial(work, one, i) for i, one in enumerate(entries, 1)], at_once)
    return _campaign(entries, done, folder)


def _campaign(entries: Sequence[ModelEntry], done: dict[str, Mined], folder: Path) -> Campaign:
    return Campaign(folder, tuple(done[one.label] for one in entries if one.label in done), len(entries))


def _mined(entry: ModelEntry, folder: Path, progress: Progress) -> Mined:
    """One model, mined or not."""
    out = folder / RUNS / entry.label
    try:
        asked = Asked(
            entry.name, entry.revision, entry.dtype, entry.device, entry.bos, entry.detectors, entry.tasks, entry.n,
            entry.seed, entry.verdict, entry.verdict_n, chosen(entry.checks), str(out),
        )  # fmt: skip
        known = asked.finished()
        if known is None:
            with load(
                entry.name, revision=entry.revision, dtype=entry.dtype, device=entry.device, bos=entry.bos,
                device_map=entry.device_map, weight_memory=entry.weight_memory,
            ) as model:  # fmt: skip
                atlas = mine(
                    model, entry.detectors or None, tasks=entry.tasks or None, n=entry.n, seed=entry.seed,
                    verdict=entry.verdict, verdict_n=entry.verdict_n, checks=entry.checks, out=out, progress=progress,
                )  # fmt: skip
            asked.keep(atlas.run)
        else:
            atlas = Atlas(known)
            progress.say("is mined already.")
        return Mined.of(entry.label, atlas, folder)
    except HeadAtlasError as error:
        return Mined(entry.label, entry.name, error=str(error))
    except Exception as error:  # whatever one model does, the others go on
        return Mined(entry.label, entry.name, error=reason(error))


class _Named:
    """Tells a campaign's Progress of one model: steps and lines bear its name."""

    def __init__(self, whole: Progress, label: str) -> None:
        self._whole, self._label = whole, label

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Announce steps."""
        self._whole.plan([(f"{self._label}: {step}", size) for step, size in steps])

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Move a step on."""
        self._whole.advance(f"{self._label}: {step}", amount, of)

    def say(self, line: str) -> None:
        """Pass a line on."""
        self._whole.say(f"{self._label}: {line}")
