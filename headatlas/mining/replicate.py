"""Replicating what papers say of a model's heads, in one call: the claims, the run that tests them, the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headatlas import model as models
from headatlas.atlas import Atlas
from headatlas.catalogue.schema import Claim
from headatlas.errors import BadInput, SourceError, UnknownName
from headatlas.mining.replication import Outcome, checkpoint, claims_on, compare, needed, same_model, untested
from headatlas.mining.run import mine
from headatlas.progress import Progress, Silent


def replicate(
    model: str,
    *,
    claim: str | None = None,
    atlas: str | Path | None = None,
    n: int = 32,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    dtype: str = "auto",
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare what papers say of a model's heads with the heads that detectors observe; an outcome per claim and detector.

    model: the model that the papers studied, as on the Hub. claim: only this one of the catalogue. atlas: a finished run on
    this model; otherwise the detectors needed are mined, `n` examples per task with `seed`, into the run folder `out`.
    Where the checkpoint cannot be had, claims are not testable. Raises BadInput, UnknownName, StoreError.
    """
    progress = progress or Silent()
    claims = claims_on(model, claim)
    wanted = needed(claims)
    if atlas is not None:
        return compare(claims, _run_on(model, atlas))
    if not wanted:
        return compare(claims, None)
    try:
        progress.say(f"Loading {checkpoint(model)} ...")
        loaded = models.load(checkpoint(model), device=device, dtype=dtype)
    except (SourceError, UnknownName) as error:
        return _without_checkpoint(claims, f"the checkpoint of {model} cannot be had: {error.message}")
    return compare(claims, mine(loaded, wanted, n=n, seed=seed, verdict=False, out=out, progress=progress).data)


def _run_on(model: str, folder: str | Path) -> Mapping[str, Any]:
    """The atlas of a finished run, which must be on this model. Raises BadInput, StoreError."""
    run = Atlas(folder).data
    if not same_model(run["model"]["name"], model):
        raise BadInput(f"{folder} is a run on {run['model']['name']}, not on {model}.", "Name the run's own model.")
    return run


def _without_checkpoint(claims: Sequence[Claim], reason: str) -> list[Outcome]:
    """The outcomes where no detector could run: claims that need none keep the reason of their own."""
    return [
        found if not found.reason.startswith("no run") else untested(one, reason, found.detector)
        for one in claims
        for found in compare([one], None)
    ]
