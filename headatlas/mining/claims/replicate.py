"""Replicating what papers say of a model's heads, in one call: the claims, the run that tests them, the comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from headatlas import model as models
from headatlas.atlas import Atlas
from headatlas.catalogue.model_names import demand_model, find_weights, identity_key, repository
from headatlas.catalogue.schema import Claim
from headatlas.errors import BadInput, SourceError, UnknownName
from headatlas.mining.claims.outcomes import Outcome, claims_on, compare, needed, untested
from headatlas.mining.run import mine
from headatlas.model import Model
from headatlas.model.recognise import recognise
from headatlas.progress import Progress, Silent
from headatlas.renamed import warn
from headatlas.store import read_json


@dataclass(frozen=True)
class ReplicationOptions:
    """How the detectors of claims are mined, where no finished run is given.

    n: examples per task, drawn with `seed`. verdict: remove the heads observed, so that a claim counts as replicated only where
    they act. out: the run folder. device, dtype: see `headatlas.load`.
    """

    n: int = 32
    seed: int = 0
    verdict: bool = True
    out: str | Path | None = None
    device: str | None = None
    dtype: str = "auto"


def replicate(
    model: Model | str,
    *,
    claim: str | None = None,
    atlas: str | Path | None = None,
    known_as: str | None = None,
    options: ReplicationOptions | None = None,
    progress: Progress | None = None,
    **former: Any,
) -> list[Outcome]:
    """Compare what papers say of a model's heads with the heads that detectors observe; an outcome per claim and detector.

    model: the model that the papers studied, as they or the Hub call it; or a copy of it, in a folder or in memory: one that
    its weights tell, or that known_as says it is a copy of ("gpt2"). claim: only this one of the catalogue. atlas: a finished
    run on this model; otherwise the detectors needed are mined as `options` say. Where the checkpoint cannot be had, claims are
    not testable. Raises BadInput, UnknownName, StoreError.
    """
    options, progress = _with_former(options or ReplicationOptions(), former), progress or Silent()
    name = model if isinstance(model, str) else model.name
    told = {"model": name, "known_as": known_as, "n": options.n, "seed": options.seed}
    if atlas is not None:
        run = Atlas(atlas)
        claims = claims_on(known_as or name, claim)
        _demand_run_on(run.data, atlas, name, known_as)
        return _told(compare(claims, run.data), {**told, **facts_of(run)}, f"--atlas {shlex.quote(str(atlas))}")
    if isinstance(model, str):
        if known_as is not None or not _is_place(model):
            claims = claims_on(known_as or model, claim)  # refused before anything is loaded
            if not needed(claims):
                return _told(compare(claims, None), told)
        where = model if _is_place(model) else _checkpoint(model)
        try:
            progress.say(f"Loading {where} ...")
            model = models.load(where, device=options.device, dtype=options.dtype)
        except (SourceError, UnknownName) as error:
            if _is_place(name):
                raise
            return _told(_without_checkpoint(claims, f"the checkpoint of {name} cannot be had: {error.message}"), told)
    # A Hub id, or a name that the catalogue has a checkpoint for, says which model it is; a folder does not.
    found = recognise(model, known_as)
    if found is None:
        raise BadInput(
            f"Nothing says which model {name} is a copy of, so no claim is known to be about it.",
            "Say which with --as, such as --as gpt2.",
        )
    claims = claims_on(known_as or found.name, claim)
    wanted = needed(claims)
    if not wanted:
        return _told(compare(claims, None), told)
    mined = mine(
        model, wanted, n=options.n, seed=options.seed, verdict=options.verdict, out=options.out, progress=progress
    )
    known = {"recognised_by": found.how, "recognised_as": found.name}
    return _told(compare(claims, mined.data), {**told, **facts_of(mined), **known})


def _with_former(options: ReplicationOptions, former: Mapping[str, Any]) -> ReplicationOptions:
    """The options with what version 0.1 took as keyword arguments. Raises TypeError for others."""
    strange = sorted(former.keys() - {field.name for field in fields(options)})
    if strange:
        raise TypeError(f"replicate() got an unexpected keyword argument '{strange[0]}'")
    for name in former:
        warn(f"The argument '{name}' of replicate", f"options=ReplicationOptions({name}=...)")
    return replace(options, **former)


def _is_place(name: str) -> bool:
    return Path(name).expanduser().exists()


def _checkpoint(model: str) -> str:
    """What to load for a model named as papers or the catalogue do: its repository org/name where one is known."""
    return model if "/" in model else repository(model) or model


def _demand_run_on(run: Mapping[str, Any], folder: str | Path, name: str, known_as: str | None) -> None:
    """Raise BadInput unless a finished run is on the model that is asked about."""
    ran = run["model"]
    if known_as is not None:
        shape = demand_model(known_as)
        if (ran["n_layers"], ran["n_heads"]) != (shape.layers, shape.heads):
            raise BadInput(
                f"{folder} is a run on a model of {ran['n_layers']} layers of {ran['n_heads']} heads; {shape.names[0]} has "
                f"{shape.layers} of {shape.heads}.",
                "Say of which model it is a copy.",
            )
        return
    weights = find_weights(str(ran.get("sha256")))
    if identity_key(weights.id if weights is not None else ran["name"]) != identity_key(name):
        raise BadInput(
            f"{folder} is a run on {ran['name']}, not on {name}.",
            "Name the run's own model, or say --as of which it is a copy.",
        )


def facts_of(found: Atlas) -> dict[str, Any]:
    """What of a run is needed to make it again: hashes of weights and texts, examples, detectors with their versions."""
    run, decided = found.data, read_json(found.run / "run.json")
    return {
        "id": run["run"]["id"],
        "sha256": run["model"].get("sha256"),
        "revision": run["model"].get("revision"),
        "dtype": run["model"].get("dtype"),
        "n": run["run"]["n"],
        "seed": run["run"]["seed"],
        "created": run["run"]["created"],
        "versions": dict(run["run"]["versions"]),
        **{name: decided[name] for name in ("verdict", "detectors", "texts") if name in decided},
    }


def _told(outcomes: Sequence[Outcome], facts: Mapping[str, Any], more: str = "") -> list[Outcome]:
    """The outcomes with the facts of the run, each with the command that gives it."""
    known = f" --as {shlex.quote(facts['known_as'])}" if facts["known_as"] else ""
    drawn = more or f"--n {facts['n']} --seed {facts['seed']}"
    call = f"headatlas replicate {shlex.quote(facts['model'])}{known}"
    return [replace(one, run=dict(facts), command=f"{call} --claim {one.claim} {drawn}") for one in outcomes]


def _without_checkpoint(claims: Sequence[Claim], reason: str) -> list[Outcome]:
    """The outcomes where no detector could run: claims that need none keep the reason of their own."""
    return [
        found if not found.reason.startswith("no run") else untested(one, reason, found.detector)
        for one in claims
        for found in compare([one], None)
    ]
