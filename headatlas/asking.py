"""Which heads matter for a prompt of one's own: every head removed in turn, exactly, and what is known of those that matter.

How much the prediction changes is the Kullback-Leibler divergence of the next token's distribution from that of the clean
run, in nats: it needs no answer and no wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.atlas import Atlas
from headatlas.choices import demand_some
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.ablation import ablate, replacements
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.plan import Sweep, head_sets_for
from headatlas.methods.sweeps.run import run
from headatlas.methods.texts import Texts, at_first_written, texts_as_batch
from headatlas.model import Model
from headatlas.model.text.start_end import said_of
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.report.atlas_schema import read_atlas
from headatlas.store import of_run
from headatlas.task import Batch, Metric
from headatlas.task.answers import find_metric, kl

PREDICTED = 5  # next tokens that are told
MOST = 64  # prompts at once: the distribution of each is kept
_CLEAN = "clean log-probabilities"
_RANK = ("causal", "group", "untested", "refuted")


@dataclass(frozen=True)
class Kind:
    """What an atlas says of a head: the best of its detectors of one head type, with score, chance and verdict."""

    head_type: str
    title: str
    detector: str
    score: float | None
    chance: float | None
    verdict: str


@dataclass(frozen=True)
class AskedHead:
    """What becomes of the prediction without a head; means over the prompts where there are several.

    kl: from the clean run, nats. before, after: probability of the answer with and without the head. becomes: the most
    likely next token of each prompt without it. effect: on the metric, where another than the KL divergence was asked for.
    """

    head: HeadId
    kl: float
    before: float
    after: float
    becomes: tuple[str, ...]
    kinds: tuple[Kind, ...] = ()
    effect: float | None = None


@dataclass(frozen=True)
class Asked:
    """The answer to `ask`: what the model predicts, and the heads whose removal changes that most, first the greatest.

    texts: the prompts. predicted: of each, the next tokens with their probabilities. answers: the tokens whose probability
    `heads` tell of: those given, else the model's own first. n_heads: how many were removed in turn. metric, unit: what heads
    are ordered by. total: the sum of all their divergences, or of the sizes of their effects on another metric. atlas: the folder that kinds are from, None without one of this model. start_end: how the
    texts' tokens were made.
    """

    model: str
    texts: tuple[str, ...]
    predicted: tuple[tuple[tuple[str, float], ...], ...]
    answers: tuple[str, ...]
    heads: tuple[AskedHead, ...]
    n_heads: int
    total: float
    edit: str
    atlas: str | None
    start_end: str = ""
    metric: str = "kl"
    unit: str = "nats"

    def __repr__(self) -> str:
        first = " ".join(f"{row.head} {row.kl if row.effect is None else row.effect:.3g}" for row in self.heads[:3])
        what = "KL" if self.metric == "kl" else f"effects on {self.metric}"
        return f"Asked({len(self.texts)} prompts of {self.model}: {self.n_heads} heads removed in turn; largest {what} {first})"

    def data(self) -> dict[str, Any]:
        """As plain data; heads as text."""
        found = asdict(self)
        return {
            "schema": "headatlas/ask/1",
            **found,
            "heads": [{**row, "head": str(head.head)} for row, head in zip(found["heads"], self.heads, strict=True)],
        }


def ask(
    model: Model,
    prompts: str | Sequence[str] | Batch | Texts,
    *,
    top: int = 10,
    edit: str = "mean",
    atlas: str | Path | None = None,
    metric: Metric | str = kl,
    progress: Progress | None = None,
) -> Asked:
    """Which heads matter for what this model predicts after a prompt; each head is removed exactly, none is estimated.

    prompts: a text, several, a chat, a Batch or `Texts`. edit: mean (the head's mean output over the prompts' tokens) or
    zero. atlas: a folder of runs to look the heads up in; default ./atlas where it is there. metric: what heads are ordered by,
    as in `ablate`; KL is told beside it. Raises BadInput, UnknownName, UnsupportedModel, StoreError.
    """
    demand_some(top, "heads")
    metric = find_metric(metric)
    if not model.has_logits or model.kind == "encoder":
        raise UnsupportedModel(f"{model.name} predicts no next token.", "Ask a decoder.")
    batch = texts_as_batch(model, prompts)
    if not isinstance(prompts, Batch):
        batch = at_first_written(model, batch)
    if len(batch) > MOST:
        raise BadInput(f"{len(batch)} prompts are too many to ask about at once.", f"Give at most {MOST}.")
    logits = model.forward(batch, logit_positions=batch.positions["end"].reshape(-1, 1))[:, 0].float().cpu()
    clean = logits.log_softmax(-1)
    answer = batch.labels.get("answer")
    answer = clean.argmax(-1) if answer is None else answer.reshape(len(batch), -1)[:, 0]
    asked = replace(batch, labels={**batch.labels, "answer": answer, _CLEAN: clean})
    everything = head_sets_for(model, None, "z")
    measured = _measured(model, prompts, metric, everything, edit, progress)
    if measured is None:
        effects, divergence = None, _without(model, asked, everything, _DIVERGENCE, edit, progress)
        sizes = divergence.mean(0)
        order = (-sizes).argsort(kind="stable")[:top]
        kls, first = divergence[:, order], tuple(everything[i] for i in order)
    else:
        effects = measured.effects[:, :, 0].mean(0)
        sizes = np.abs(effects)
        order = (-sizes).argsort(kind="stable")[:top]
        first = tuple(everything[i] for i in order)
        kls = _without(model, asked, first, _DIVERGENCE, edit, None)
    after = _without(model, asked, first, _PROBABILITY, edit, None).mean(0)
    becomes = _without(model, asked, first, _MOST_LIKELY, edit, None)
    before = float(clean.exp().gather(1, answer[:, None]).mean())
    told, folder = known_kinds(model, atlas)
    text = model.tokenizer.decode
    heads = tuple(
        AskedHead(
            head, float(kls[:, j].mean()), before, float(after[j]), tuple(text(int(one)) for one in becomes[:, j]),
            told.get(str(head), ()), None if effects is None else float(effects[i]),
        )
        for j, (i, (head,)) in enumerate(zip(order, first, strict=True))
    )  # fmt: skip
    best = clean.exp().topk(min(PREDICTED, clean.shape[1]), -1)
    predicted = tuple(
        tuple((text(int(one)), float(p)) for one, p in zip(ids, values, strict=True))
        for ids, values in zip(best.indices, best.values, strict=True)
    )
    texts = tuple(
        "".join(text(int(one)) for one in row[mask]) for row, mask in zip(batch.tokens, batch.mask, strict=True)
    )
    answers = tuple(text(int(one)) for one in answer)
    return Asked(
        model.name,
        texts,
        predicted,
        answers,
        heads,
        len(everything),
        float(sizes.sum()),
        edit,
        folder,
        said_of(batch.facts),
        metric.name,
        metric.unit,
    )


def _measured(
    model: Model,
    prompts: str | Sequence[str] | Batch | Texts,
    metric: Metric,
    head_sets: Sequence[tuple[HeadId, ...]],
    edit: str,
    progress: Progress | None,
) -> HeadEffects | None:
    """The metric without each head; None for the KL divergence, which `ask` takes of every prompt."""
    if metric is kl:
        return None
    whole = prompts.with_answers(model) if isinstance(prompts, Texts) else prompts
    return ablate(model, whole, [list(one) for one in head_sets], edit=edit, metric=metric, progress=progress)


def _without(
    model: Model,
    batch: Batch,
    head_sets: Sequence[tuple[HeadId, ...]],
    metric: Metric,
    edit: str,
    progress: Progress | None,
) -> Array:
    """[example, head set] the metric of the runs in which each is removed."""
    prepare = replacements(model, batch, head_sets, edit, "overall", "all", None)
    sweep = Sweep("ask", batch, metric, tuple(head_sets), {"all": None}, "z", prepare)
    found: Array = run(model, sweep, step="heads", progress=progress or Silent()).values[:, :, 0]
    return found


def _end(batch: Batch) -> Tensor:
    return batch.positions["end"].reshape(-1, 1)


def _divergence(logits: Tensor, batch: Batch) -> Tensor:
    clean, changed = batch.labels[_CLEAN].double(), logits[:, 0].double().log_softmax(-1)
    # A token that is masked out in both runs (probability 0) adds nothing.
    return torch.where(clean > -torch.inf, clean.exp() * (clean - changed), 0.0).sum(-1).clamp(min=0)


def _probability(logits: Tensor, batch: Batch) -> Tensor:
    return logits[:, 0].float().softmax(-1).gather(1, batch.labels["answer"].reshape(-1, 1))[:, 0]


_DIVERGENCE = Metric("KL divergence from the clean run", _end, _divergence, False, "nats")
_PROBABILITY = Metric("probability of the answer", _end, _probability, True, "")
_MOST_LIKELY = Metric("most likely token", _end, lambda logits, _: logits[:, 0].argmax(-1).double(), True, "id")


def known_kinds(model: Model, atlas: str | Path | None = None) -> tuple[Mapping[str, tuple[Kind, ...]], str | None]:
    """What the runs of a folder say of this model's heads, by address, and the folder; None where it has no such run.

    A head has one entry per head type: that of the strongest verdict, then of the highest score. Newer runs go before older
    ones. Only runs on the same weights count. Raises StoreError for a folder named that holds no run.
    """
    folder = Path("atlas") if atlas is None else Path(atlas)
    if atlas is None and not any(folder.rglob("atlas.json")):  # not there, or with runs that are not finished
        return {}, None
    runs = [read_atlas(of_run(place / "atlas.json", "mine")) for place in Atlas(folder).runs]
    mine = sorted(
        (one for one in runs if one["model"]["name"] == model.name and one["model"]["sha256"] == model.sha256()),
        key=lambda one: str(one["run"]["created"]),
        reverse=True,
    )
    found: dict[str, dict[str, Kind]] = {}
    seen: set[str] = set()
    for one in mine:
        new = [entry for entry in one["detectors"] if entry["name"] not in seen]
        seen |= {entry["name"] for entry in new}
        for entry in new:
            for row in entry["heads"]:
                _add(found.setdefault(str(HeadId(row["layer"], row["head"], row["stack"])), {}), entry, row)
    told = {head: tuple(sorted(kinds.values(), key=_strength)) for head, kinds in found.items()}
    return told, str(folder) if mine else None


def _add(kinds: dict[str, Kind], entry: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    from headatlas import catalogue

    known = catalogue.load().heads.get(entry["head_type"])
    title = known.name if known is not None else entry["head_type"]
    new = Kind(entry["head_type"], title, entry["name"], row["score"], row["chance"], row.get("verdict") or "untested")
    old = kinds.get(new.head_type)
    if old is None or _strength(new) < _strength(old):
        kinds[new.head_type] = new


def _strength(kind: Kind) -> tuple[int, float]:
    return (_RANK.index(kind.verdict) if kind.verdict in _RANK else len(_RANK), -(kind.score or 0.0))
