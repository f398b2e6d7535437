"""Metrics for prompts of one's own: answers of several tokens, sets of right answers, and the clean run where there is none.

Labels that they read beside `answer` (ids of the first token of each right answer): `targets` [example, n] the ids of an
answer of several tokens, which the tokens hold behind the prompt, with positions["predict"] before each of them; `alternative`
[example] of prompts with several such answers, which stand once for each of them, one after the other: the number of the answer,
0 for a prompt's first (`over_alternatives`); `clean` [example, vocab] the log-probabilities of the run without changes, at the end of the prompt. Of questions whose answers are
prompts of their own: `group` [example] the question, `right` whether this answer is true, `best` whether it is the best.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.choices import NUMBERED
from headatlas.errors import BadInput
from headatlas.registry import lookup
from headatlas.task import (
    Batch,
    Metric,
    accuracy,
    exact_match,
    logit_difference,
    logit_lead,
    logit_margin,
    next_token_loss,
    probability_difference,
)


def _end(batch: Batch) -> Tensor:
    return batch.positions["end"].reshape(-1, 1)


def _read(batch: Batch) -> Tensor:
    """Before each token of an answer that is written out, else at the end of the prompt."""
    return batch.positions["predict"] if "targets" in batch.labels else _end(batch)


def _answers(batch: Batch) -> Tensor:
    """[example, k] ids of the right answers, -1 for none."""
    if "answer" not in batch.labels:
        raise BadInput("These prompts have no answer.", "Give each one, or measure kl, which needs none.")
    return batch.answer.reshape(len(batch), -1)


def _of_tokens(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """[example, n] log-probability of each token of the answer, and which tokens there are."""
    targets = batch.labels["targets"]
    found = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return found.where(targets >= 0, torch.zeros_like(found)), targets >= 0


def _of_set(logits: Tensor, batch: Batch) -> Tensor:
    """[example] log of the probability that all right answers have together."""
    ids = _answers(batch)
    found = logits[:, 0].float().log_softmax(-1).gather(-1, ids.clamp(min=0))
    return found.masked_fill(ids < 0, -torch.inf).logsumexp(-1)


def _log_probability(logits: Tensor, batch: Batch) -> Tensor:
    return _of_tokens(logits, batch)[0].sum(1) if "targets" in batch.labels else _of_set(logits, batch)


def _mean_log_probability(logits: Tensor, batch: Batch) -> Tensor:
    if "targets" not in batch.labels:
        return _of_set(logits, batch)
    found, present = _of_tokens(logits, batch)
    return found.sum(1) / present.sum(1)


def _probability(logits: Tensor, batch: Batch) -> Tensor:
    return _log_probability(logits, batch).exp()


def _rank(logits: Tensor, batch: Batch) -> Tensor:
    ids = _answers(batch)
    last = logits[:, 0].float()
    best = last.gather(-1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf).amax(-1, keepdim=True)
    return (last > best).sum(-1).float() + 1


def _kl(logits: Tensor, batch: Batch) -> Tensor:
    if "clean" not in batch.labels:
        raise BadInput("These prompts do not hold the clean run that a KL divergence is taken to.")
    # In double precision, where a device has it: a normaliser off by the rounding of float32 would be a divergence of 1e-6.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    clean = batch.labels["clean"].to(precise).to(logits.device)
    changed = logits[:, 0].to(precise).log_softmax(-1)
    # Rounding leaves a divergence of equal distributions a hair below zero, which none can be. A token of probability zero adds nothing.
    return (clean.exp() * (clean - changed)).masked_fill(clean == -torch.inf, 0.0).sum(-1).clamp(min=0)


def _truth_margin(logits: Tensor, batch: Batch) -> Tensor:
    return _mean_log_probability(logits, batch) * (2 * batch.labels["right"].to(logits.device) - 1)


def _by_question(of: Callable[[Any, Any, Any], Any], scores: Any, batch: Batch) -> Any:
    """What `of` makes of a question's scores [answer, ...], with which are right and best, for each question in order."""
    group, right, best = (batch.labels[name].cpu().numpy() for name in ("group", "right", "best"))
    parts = [group == one for one in dict.fromkeys(group.tolist())]
    return np.stack([of(scores[part], right[part] == 1, best[part] == 1) for part in parts])


def _mc1(scores: Any, right: Any, best: Any) -> Any:
    # Where one is not measured, so is the question: NaN goes through max and through the sum.
    ahead = scores[best].max(0) - scores[~right].max(0)
    return np.where(np.isnan(ahead), np.nan, ahead > 0)


def _mc2(scores: Any, right: Any, best: Any) -> Any:
    shares = np.exp(scores - scores.max(0))  # no difference to the ratio, and no underflow of long answers
    return shares[right].sum(0) / shares.sum(0)


def _hit(k: int, logits: Tensor, batch: Batch) -> Tensor:
    return (_rank(logits, batch) <= k).float()


def hit_at(k: int) -> Metric:
    """1 where a right answer's first token is among the k likeliest of the whole vocabulary at the end of the prompt."""
    if k < 1:
        raise BadInput(f"hit@{k} asks for no token.", "Write hit@1, hit@10 ...")
    return Metric(f"hit@{k}", _end, functools.partial(_hit, k), True, "share")


def _two_places(early: int, late: int, batch: Batch) -> Tensor:
    starts = batch.mask.int().argmax(1, keepdim=True)  # padding on the left shifts them
    lengths = batch.mask.sum(1)
    short = (lengths < late).nonzero().flatten().tolist()
    if short:
        raise BadInput(
            f"Example {short[0] + 1} has {int(lengths[short[0]])} tokens; the in-context-learning score reads token {late}.",
            f"Give longer texts, or ask for an earlier one, such as icl-score@10-{max(int(lengths.min()), 11)}.",
        )
    return starts + torch.tensor([[early - 2, late - 2]])  # each token is predicted from the one before it


def _two_losses(logits: Tensor, batch: Batch, *, early: int, late: int) -> Tensor:
    at = _two_places(early, late, batch) + 1
    target = batch.tokens.gather(1, at).to(logits.device)[..., None]
    loss = -logits.float().log_softmax(-1).gather(-1, target)[..., 0]
    return loss[:, 1] - loss[:, 0]


def _legal(logits: Tensor, batch: Batch) -> Tensor:
    ids = torch.cat([part.reshape(len(batch), -1) for part in (_answers(batch), batch.wrong)], 1).to(logits.device)
    return (logits[:, 0].argmax(-1, keepdim=True) == ids).any(1).float()


def icl_score(early: int = 50, late: int = 500) -> Metric:
    """Loss at one token minus loss at an earlier one (tokens count from 1): below 0 where context helps. Olsson et al. 2022."""
    if not 2 <= early < late:
        raise BadInput(
            f"An in-context-learning score cannot compare tokens {early} and {late}.", "Such as icl-score@50-500."
        )
    score = functools.partial(_two_losses, early=early, late=late)
    name = f"in-context-learning score ({early}, {late})"
    return Metric(name, functools.partial(_two_places, early, late), score, False, "nats")


# Log of the probability of the answer: of all its tokens, or of all right answers of one token together.
log_probability = Metric("log-probability", _read, _log_probability, True, "nats")
# The same divided by the answer's number of tokens, so that long answers do not count as worse for being long.
mean_log_probability = Metric("mean log-probability", _read, _mean_log_probability, True, "nats")
# Probability of the answer, or of all right answers together.
answer_probability = Metric("probability of the answer", _read, _probability, True, "")
# 1 + how many tokens have a higher logit than the best right answer (its first token) at the end of the prompt.
rank = Metric("rank", _end, _rank, False, "")
# 1 where the likeliest token of the whole vocabulary is one of the answers, right or wrong (format compliance: Ren et al. 2024).
format_compliance = Metric("format", _end, _legal, True, "share")
# KL(clean run || changed run) of the next token at the end of the prompt; 0 where a change does nothing.
kl = Metric("kl", _end, _kl, False, "nats", level=True)
# Mean log-probability of an answer's tokens, with its sign turned for false answers: higher where truth is preferred.
truth_margin = Metric("truth margin", _read, _truth_margin, True, "nats")
# Per question, 1 where the best answer has a higher probability than every false one. Lin et al. 2022.
mc1 = Metric("MC1", _read, _log_probability, True, "share", settle=functools.partial(_by_question, _mc1))
# Per question, the share of the probability of all answers that the true ones have. Lin et al. 2022.
mc2 = Metric("MC2", _read, _log_probability, True, "share", settle=functools.partial(_by_question, _mc2))

METRICS = {
    "kl": kl,
    "logit-difference": logit_difference,
    "logit-margin": logit_margin,
    "logit-lead": logit_lead,
    "next-token-loss": next_token_loss,
    "log-probability": log_probability,
    "mean-log-probability": mean_log_probability,
    "probability": answer_probability,
    "probability-difference": probability_difference,
    "rank": rank,
    "accuracy": accuracy,
    "exact-match": exact_match,
    "format": format_compliance,
    "hit@10": hit_at(10),
    "icl-score": icl_score(),
    "truth-margin": truth_margin,
    "mc1": mc1,
    "mc2": mc2,
}
NEEDS = {  # labels without which a metric has nothing to read
    "logit-difference": ("answer", "wrong"),
    "logit-margin": ("answer", "wrong"),
    "logit-lead": ("answer",),
    "probability-difference": ("answer", "wrong"),
    "exact-match": ("targets",),
    "format": ("answer", "wrong"),
    "hit@10": ("answer",),
    "truth-margin": ("right",),
    "mc1": ("right", "best", "group"),
    "mc2": ("right", "best", "group"),
}
_LACKING = {
    "answer": "no answer",
    "wrong": "no wrong answer",
    "targets": "no answer that is written out",
    "right": "no answers marked as right or wrong",
}


# Of metrics that read an answer to its end: what their scores [answer, ...] of a prompt's right answers come to together.
_TOGETHER: tuple[tuple[Metric, Callable[..., Any]], ...] = (
    (log_probability, np.logaddexp.reduce),
    (mean_log_probability, np.logaddexp.reduce),
    (answer_probability, np.add.reduce),
    (exact_match, np.maximum.reduce),
)


def _of_each(of: Callable[..., Any], scores: Any, batch: Batch) -> Any:
    """What `of` makes of each prompt's scores [answer, ...], in order."""
    starts = np.flatnonzero(batch.labels["alternative"].cpu().numpy() == 0)
    return np.stack([of(part, axis=0) for part in np.split(scores, starts[1:])])


def over_alternatives(metric: Metric, batch: Batch) -> tuple[Metric, Batch]:
    """How a metric is taken on prompts with sets of right answers of several tokens, each of which is read behind its prompt.

    Those that read answers to their end are settled: the probabilities of a prompt's answers are added (and their logarithm taken),
    mean log-probabilities likewise, and a match with any counts. All others read a prompt once (`first_alternatives`). Other
    prompts stay as they are. Raises BadInput for the loss, which is that of one text.
    """
    if "alternative" not in batch.labels:
        return metric, batch
    of = next((found for known, found in _TOGETHER if known is metric), None)
    if of is not None:
        return replace(metric, settle=functools.partial(_of_each, of)), batch
    if metric is next_token_loss:
        raise BadInput(
            "The next-token loss is that of one continuation, and these prompts have sets of answers.",
            "Measure log-probability, or give one answer each.",
        )
    return metric, first_alternatives(batch)


def first_alternatives(batch: Batch) -> Batch:
    """Each prompt once, read as behind its first answer, and without what reads that answer's later tokens."""
    if "alternative" not in batch.labels:
        return batch

    def plain(one: Batch | None) -> Batch | None:
        if one is None:
            return None
        labels = {name: value for name, value in one.labels.items() if name not in ("alternative", "targets")}
        positions = {name: value for name, value in one.positions.items() if name != "predict"}
        control, counterfactual = plain(one.control), plain(one.counterfactual)
        return replace(one, labels=labels, positions=positions, control=control, counterfactual=counterfactual)

    found = plain(batch.rows(batch.labels["alternative"] == 0))
    assert found is not None
    return found


def find_metric(metric: str | Metric) -> Metric:
    """A metric by its name ("kl", "logit-difference", "hit@5", "icl-score@50-500" ...), or itself. Raises UnknownName, BadInput."""
    if isinstance(metric, Metric):
        return metric
    name = str(metric).replace("_", "-").replace(" ", "-").lower()
    numbered = NUMBERED.fullmatch(name)
    if numbered is not None:
        return hit_at(int(numbered[2])) if numbered[1] else icl_score(int(numbered[3]), int(numbered[4]))
    return lookup(METRICS, name, "metric", f"Known: {', '.join(METRICS)}.")


def demand_measurable(metric: Metric, batch: Batch) -> None:
    """Raise BadInput where the prompts lack what the metric reads."""
    name = next((known for known, one in METRICS.items() if one is metric), "")
    lacking = [label for label in NEEDS.get(name, ()) if label not in batch.labels]
    if lacking:
        raise BadInput(
            f"These prompts have {_LACKING.get(lacking[0], lacking[0])}, which the metric {name} reads.",
            "Choose another, such as kl or rank.",
        )
    if metric is next_token_loss and "predict" not in batch.positions:
        raise BadInput("These prompts name no tokens to predict (positions['predict']).", "Choose another, such as kl.")


def answers_only(batch: Batch, metric: Metric) -> tuple[Tensor | None, Batch]:
    """Ids whose logits the metric reads, and the batch with its answers renumbered accordingly; None for all logits."""
    if metric is not logit_difference and metric is not logit_margin:
        return None, batch
    answers = [batch.answer, batch.wrong]
    ids = torch.cat([value.flatten() for value in answers]).unique()
    ids = ids[ids >= 0]
    labels = dict(batch.labels)
    for name in ("answer", "wrong"):
        value = labels[name]
        labels[name] = torch.where(value >= 0, torch.searchsorted(ids, value.clamp(min=0)), value)
    return ids, replace(batch, labels=labels)
