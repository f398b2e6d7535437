"""Do a model's heads do what papers say of them? Claims of the catalogue next to what detectors observe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy.stats import hypergeom

from headatlas import catalogue
from headatlas.catalogue.files.boards import RESULTS as RESULTS
from headatlas.catalogue.model_names import identity_key, model_of, repository
from headatlas.catalogue.schema import Claim
from headatlas.detector import Detector, detectors
from headatlas.errors import BadInput, UnknownName
from headatlas.heads import HeadId
from headatlas.ops.stats import share_interval
from headatlas.registry import did_you_mean

RECALL = 0.5  # share of the claimed heads that must be observed
LEVEL = 0.05  # chance of so many of them among as many heads drawn at random


@dataclass(frozen=True)
class Outcome:
    """One claim beside one detector of its head type.

    result: one of RESULTS; reason says why. claimed, observed, found: heads as "9.6" (found: those in both); acting, refuted:
    those found whose removal the run's verdict says does, or does not, change what the task measures (causal or group), both
    empty where none was judged. recall, precision: shares of the claimed and of the observed, None where nothing could be
    compared; low, high: 95% interval of the recall (Wilson); p: of at least so many in both if the observed heads were drawn
    at random. run: model, weights, prompts and versions; command: what gives this outcome again.
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
    low: float | None = None
    high: float | None = None
    acting: tuple[str, ...] = ()
    refuted: tuple[str, ...] = ()
    command: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)


def claims_on(model: str, claim: str | None = None) -> list[Claim]:
    """The catalogue's claims on a model, however it is written (`catalogue.model_names`); or the one called `claim`.

    Raises UnknownName for a claim that does not exist, BadInput for one on another model or where there is none.
    """
    known, key = catalogue.load(), identity_key(model)
    if claim is not None:
        if claim not in known.claims:
            raise UnknownName(
                f"There is no claim '{claim}'.",
                did_you_mean(claim, known.claims) or "See: headatlas papers list claims",
            )
        one = known.claims[claim]
        if model_of(one) != key:
            raise BadInput(
                f"Claim '{claim}' is on {one.model}{f' ({one.hub_id})' if one.hub_id else ''}, not on {model}; "
                "other models have other heads.",
                "Name that model; a copy of it in a folder is named with --as."
                if repository(one.hub_id or one.model)
                else "Its checkpoint is not known to the catalogue.",
            )
        return [one]
    found = [one for one in known.claims.values() if model_of(one) == key]
    if not found:
        raise BadInput(
            f"The catalogue has no claim on heads of {model}.",
            "A copy of one of these is named with --as: " + ", ".join(sorted(_models())) + ".",
        )
    return found


def _models() -> set[str]:
    """Hub names of the models whose heads some claim names."""
    named = (repository(claim.hub_id or claim.model) for claim in catalogue.load().claims.values() if claim.heads)
    return {name for name in named if name is not None}


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
    half of the claimed heads are observed, more of them than chance would give, and where they were judged, removing at least
    half of them does something. Weakened: more than chance would give, but fewer than half are observed, or act. Whatever
    cannot be compared is not testable, with the reason.
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


def stack_of(ran: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The stack that a detector's grids of scores are about: its own where it says one, else the model's first."""
    found: str = ran.get("stack") or (model.get("stacks") or ["decoder"])[0]
    return found


def _beside(claim: Claim, ran: Mapping[str, Any], model: Mapping[str, Any]) -> Outcome:
    """A claim with heads beside one detector's observed heads."""
    claimed = list(dict.fromkeys(HeadId.parse(head.head) for head in claim.heads))
    stack = stack_of(ran, model)
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
    verdicts = {HeadId(row["layer"], row["head"], row["stack"]): row.get("verdict", "untested") for row in ran["heads"]}
    acting = [head for head in both if verdicts[head] in ("causal", "group")]
    refuted = [head for head in both if verdicts[head] == "refuted"]
    result = _result(recall, p, len(acting), len(refuted))
    reason = f"{len(both)} of {len(claimed)} claimed heads observed"
    if result == "not replicated" and recall >= RECALL:
        reason += f", but so are {len(observed)} of all {len(everything)}"
    elif recall < RECALL:
        reason = f"only {reason}"
    if acting or refuted:
        reason += f"; {len(acting)} of {len(acting) + len(refuted)} judged act when removed"
    if claim.value is not None:
        reason += f"; the claim's number ({claim.value:g} {claim.unit or ''}".rstrip() + ") is not measured"
    low, high = share_interval(len(both), len(claimed))
    return Outcome(
        claim.id, claim.head_type, claim.statement, ran["name"], result, reason,
        tuple(map(str, claimed)), tuple(map(str, observed)), tuple(map(str, both)), recall,
        len(both) / len(observed) if observed else None, p, low, high,
        tuple(map(str, acting)), tuple(map(str, refuted)),
    )  # fmt: skip


def _result(recall: float, p: float, acting: int, refuted: int) -> str:
    """The word for a share of claimed heads observed, its chance, and how many of them removal showed to act or not to."""
    if p >= LEVEL:
        return "not replicated"
    return "replicated" if recall >= RECALL and acting >= refuted else "weakened"


def data_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The outcomes as plain values, without the facts of the run that they share."""
    return [{name: value for name, value in asdict(one).items() if name != "run"} for one in outcomes]
