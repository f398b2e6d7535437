"""Do a model's heads do what papers say of them? Claims of the catalogue next to what detectors observe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import hypergeom

from headatlas import catalogue
from headatlas.catalogue.schema import Claim
from headatlas.detector import Detector, detectors
from headatlas.errors import BadInput, UnknownName
from headatlas.heads import HeadId
from headatlas.registry import did_you_mean

RECALL = 0.5  # share of the claimed heads that must be observed
LEVEL = 0.05  # chance of so many of them among as many heads drawn at random


@dataclass(frozen=True)
class Outcome:
    """One claim beside one detector of its head type.

    result: "replicated", "not replicated" or "not testable"; reason says why. claimed, observed, found: heads as "9.6"
    (found: those in both). recall, precision: their shares, None where nothing could be compared; p: of at least so many in
    both if the observed heads were drawn at random.
    """

    claim: str
    head_type: str
    statement: str
    detector: str | None
    result: str
    reason: str
    claimed: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    recall: float | None = None
    precision: float | None = None
    p: float | None = None


def claims_on(model: str, claim: str | None = None) -> list[Claim]:
    """The catalogue's claims on a model, named as on the Hub or as papers name it; or the one called `claim`.

    Raises UnknownName for a claim that does not exist, BadInput for one on another model or where there is none.
    """
    known = catalogue.load()
    names = _names(model)
    if claim is not None:
        if claim not in known.claims:
            raise UnknownName(
                f"There is no claim '{claim}'.",
                did_you_mean(claim, known.claims) or "See: headatlas papers list claims",
            )
        one = known.claims[claim]
        if not _about(one, names):
            raise BadInput(
                f"Claim '{claim}' is on {one.model}{f' ({one.hub_id})' if one.hub_id else ''}, not on {model}; "
                "other models have other heads.",
                "Name that model." if one.hub_id else "Its checkpoint is not known to the catalogue.",
            )
        return [one]
    found = [one for one in known.claims.values() if _about(one, names)]
    if not found:
        raise BadInput(
            f"The catalogue has no claim on heads of {model}.",
            "Models with claims: " + ", ".join(sorted(_models())) + ".",
        )
    return found


def _names(model: str) -> set[str]:
    """All names of a model that the catalogue knows, its own among them."""
    plain = model.split("@")[0]
    shapes = catalogue.load().shapes.values()
    return {plain, *(name for shape in shapes if plain in (shape.id, *shape.names, *shape.hub_ids)
                     for name in (*shape.names, *shape.hub_ids))}  # fmt: skip


def same_model(first: str, second: str) -> bool:
    """Whether two names are known to mean one model, such as gpt2 and openai-community/gpt2."""
    return bool(_names(first) & _names(second))


def checkpoint(model: str) -> str:
    """What to load for a model named as papers or the catalogue do: its repository org/name where one is known."""
    return model if "/" in model else min((name for name in _names(model) if "/" in name), default=model)


def _about(claim: Claim, names: set[str]) -> bool:
    return claim.model in names or claim.hub_id in names


def _models() -> set[str]:
    """Hub names of the models whose heads some claim names."""
    known = catalogue.load()
    return {claim.hub_id for claim in known.claims.values() if claim.hub_id and claim.heads}


def detectors_for(claim: Claim) -> list[Detector]:
    """The detectors of a claim's head type."""
    return [detector for detector in detectors().values() if detector.head_type == claim.head_type]


def needed(claims: Sequence[Claim]) -> list[str]:
    """Names of the detectors that have to run so that these claims can be compared."""
    return list(dict.fromkeys(detector.name for claim in claims if claim.heads for detector in detectors_for(claim)))


def untested(claim: Claim, reason: str, detector: str | None = None) -> Outcome:
    """A claim that cannot be compared, and why."""
    heads = tuple(head.head for head in claim.heads)
    return Outcome(claim.id, claim.head_type, claim.statement, detector, "not testable", reason, heads)


def compare(claims: Sequence[Claim], atlas: Mapping[str, Any] | None) -> list[Outcome]:
    """Every claim beside every detector of its head type, in the order given.

    atlas: the content of atlas.json of a run on the claims' model; None where no detector had to run. Replicated: at least
    half of the claimed heads are observed, and more of them than chance would give. Whatever cannot be compared is not
    testable, with the reason.
    """
    return [outcome for claim in claims for outcome in _of_claim(claim, atlas)]


def _of_claim(claim: Claim, atlas: Mapping[str, Any] | None) -> list[Outcome]:
    if not claim.heads:
        return [untested(claim, "it names no heads: it is about a number or a share")]
    mine = detectors_for(claim)
    if not mine:
        return [untested(claim, f"headatlas has no detector of {claim.head_type}")]
    if atlas is None:
        return [untested(claim, "no run on this model", detector.name) for detector in mine]
    ran = {found["name"]: found for found in atlas["detectors"]}
    skipped = {one["detector"]: one["reason"] for one in atlas["skipped"]}
    outcomes = []
    for detector in mine:
        if detector.name in ran:
            outcomes.append(_beside(claim, ran[detector.name], atlas["model"]))
        else:
            reason = f"{detector.name} was skipped: {skipped[detector.name]}" if detector.name in skipped else (
                f"the run has no {detector.name}; mine it with --detector {detector.name}"
            )  # fmt: skip
            outcomes.append(untested(claim, reason, detector.name))
    return outcomes


def _beside(claim: Claim, ran: Mapping[str, Any], model: Mapping[str, Any]) -> Outcome:
    """A claim with heads beside one detector's observed heads."""
    claimed = list(dict.fromkeys(HeadId.parse(head.head) for head in claim.heads))
    stack = (model.get("stacks") or ["decoder"])[0]
    everything = {
        HeadId(layer, head, stack)
        for layer, row in enumerate(ran["scores"])
        for head, value in enumerate(row)
        if value is not None
    }
    if not everything:
        why = "the score is undefined for every head: the model does not do what it is read from"
        return untested(claim, why, ran["name"])
    # Papers on encoders number heads without naming the stack.
    claimed = [head if head in everything else head._replace(stack=stack) for head in claimed]
    missing = [str(head) for head in claimed if head not in everything]
    if missing:
        return untested(claim, f"this model has no head {', '.join(missing)}, or none with a score", ran["name"])
    observed = [HeadId(row["layer"], row["head"], row["stack"]) for row in ran["heads"]]
    if not observed and ran["untested"] == "the model does not do the task":
        return untested(claim, f"{ran['untested']} ({ran['task']})", ran["name"])
    both = [head for head in claimed if head in observed]
    recall = len(both) / len(claimed)
    p = float(hypergeom.sf(len(both) - 1, len(everything), len(claimed), len(observed))) if both else 1.0
    good = recall >= RECALL and p < LEVEL
    if good:
        reason = f"{len(both)} of {len(claimed)} claimed heads observed"
    elif recall >= RECALL:
        reason = (
            f"{len(both)} of {len(claimed)} claimed heads observed, but so are {len(observed)} of all {len(everything)}"
        )
    else:
        reason = f"only {len(both)} of {len(claimed)} claimed heads observed"
    return Outcome(
        claim.id, claim.head_type, claim.statement, ran["name"], "replicated" if good else "not replicated", reason,
        tuple(map(str, claimed)), tuple(map(str, observed)), tuple(map(str, both)), recall,
        len(both) / len(observed) if observed else None, p,
    )  # fmt: skip


def data_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The outcomes as plain values."""
    return [asdict(outcome) for outcome in outcomes]
