"""Metrics for prompts of one's own: answers of several tokens, sets of right answers, and the clean run where there is none.

Labels that they read beside `answer` (ids of the first token of each right answer): `targets` [example, n] the ids of an
answer of several tokens, which the tokens hold behind the prompt, with positions["predict"] before each of them; `clean`
[example, vocab] the log-probabilities of the run without changes, at the end of the prompt.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.registry import lookup
from headatlas.task import Batch, Metric, accuracy, exact_match, logit_difference, logit_margin, probability_difference


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
    clean = batch.labels["clean"].to(logits.device)
    changed = logits[:, 0].float().log_softmax(-1)
    # Rounding leaves a divergence of equal distributions a hair below zero, which none can be. A token of probability zero adds nothing.
    return (clean.exp() * (clean - changed)).masked_fill(clean == -torch.inf, 0.0).sum(-1).clamp(min=0)


# Log of the probability of the answer: of all its tokens, or of all right answers of one token together.
log_probability = Metric("log-probability", _read, _log_probability, True, "nats")
# The same divided by the answer's number of tokens, so that long answers do not count as worse for being long.
mean_log_probability = Metric("mean log-probability", _read, _mean_log_probability, True, "nats")
# Probability of the answer, or of all right answers together.
answer_probability = Metric("probability of the answer", _read, _probability, True, "")
# 1 + how many tokens have a higher logit than the best right answer (its first token) at the end of the prompt.
rank = Metric("rank", _end, _rank, False, "")
# KL(clean run || changed run) of the next token at the end of the prompt; 0 where a change does nothing.
kl = Metric("kl", _end, _kl, False, "nats")

METRICS = {
    "kl": kl,
    "logit-difference": logit_difference,
    "logit-margin": logit_margin,
    "log-probability": log_probability,
    "mean-log-probability": mean_log_probability,
    "probability": answer_probability,
    "probability-difference": probability_difference,
    "rank": rank,
    "accuracy": accuracy,
    "exact-match": exact_match,
}
NEEDS = {  # labels without which a metric has nothing to read
    "logit-difference": ("answer", "wrong"),
    "logit-margin": ("answer", "wrong"),
    "probability-difference": ("answer", "wrong"),
    "exact-match": ("targets",),
}


def find_metric(metric: str | Metric) -> Metric:
    """A metric by its name ("kl", "logit-difference" ...), or itself. Raises UnknownName."""
    if isinstance(metric, Metric):
        return metric
    name = str(metric).replace("_", "-").replace(" ", "-").lower()
    return lookup(METRICS, name, "metric", f"Known: {', '.join(METRICS)}.")


def demand_measurable(metric: Metric, batch: Batch) -> None:
    """Raise BadInput where the prompts lack what the metric reads."""
    name = next((known for known, one in METRICS.items() if one is metric), "")
    lacking = [label for label in NEEDS.get(name, ()) if label not in batch.labels]
    if lacking:
        what = {"answer": "no answer", "wrong": "no wrong answer", "targets": "no answer that is written out"}[
            lacking[0]
        ]
        raise BadInput(
            f"These prompts have {what}, which the metric {name} reads.", "Choose another, such as kl or rank."
        )


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
