"""Which metric a model is measured by on a task, and the task's batches as that metric reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headatlas.errors import BadInput
from headatlas.methods.measured_by.clean_run import with_clean_run, with_clean_vector
from headatlas.methods.measured_by.own_output import with_own_output, writes
from headatlas.methods.measured_by.spans import corrupted
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.model.text.start_end import rule_of
from headatlas.task import Batch, Metric, Task, Vocabulary, held_out
from headatlas.task.answers import kl
from headatlas.task.batch import complete
from headatlas.task.encoders import (
    denoising_loss,
    masked,
    masked_token_loss,
    noised,
    own_output_loss,
    pooled_change,
    span_corruption_loss,
)

MARGINS = {
    masked_token_loss.name: 0.1,
    denoising_loss.name: 0.1,
    span_corruption_loss.name: 0.1,
    own_output_loss.name: 0.1,
    pooled_change.name: 0.01,
}  # how much worse the control must be
REWRITING = (span_corruption_loss, own_output_loss)  # the decoder reads another text than the task's
MASKING = (masked_token_loss, denoising_loss, *REWRITING)  # texts are changed for them, and read whole by detectors


def metric_on(model: Model, task: Task) -> Metric | None:
    """What measures how well the model does the task; None where either gives nothing to measure.

    Models that read both ways do not predict a next token, whatever the task asks: there it is the loss of masked tokens, or,
    of a model without a language-model head, how far its pooled vector moves. An encoder-decoder whose tokenizer has sentinels
    (T5) writes the spans that they stand for, one with a mask token (BART) what its encoder reads masked. Any other
    (Marian) is asked for its own greedy output. Pairs of one's own are measured by their own metric.
    """
    if model.kind == "decoder":
        return task.metric if model.has_logits else None
    if task.metric is None or (model.kind == "encoder-decoder" and not model.has_logits):
        return None
    if model.kind == "encoder-decoder":
        return task.metric if task.paired else loss_of_texts(model)
    if model.has_logits:
        return masked_token_loss if model.tokenizer.mask is not None else None
    return pooled_change


def loss_of_texts(model: Model) -> Metric | None:
    """What an encoder-decoder with token logits is measured by on texts that ask it for nothing; None where it writes none by itself."""
    if len(model.tokenizer.sentinels) > 1:  # one for a span, one behind it
        return span_corruption_loss
    if model.tokenizer.mask is not None:
        return denoising_loss
    return own_output_loss if writes(model) else None


def texts_measured(model: Model, texts: Batch) -> tuple[Batch, Metric]:
    """Texts of one's own as an encoder-decoder's loss reads them, and that loss.

    texts: as its decoder reads them, or ids as its encoder does; what stands around a text is put once. Raises BadInput where the model
    has no such loss, UnfitTask for a text that is too short for it.
    """
    metric = loss_of_texts(model) if model.has_logits else None
    if metric is None:
        raise BadInput(
            f"{model.name} has no loss on texts: it has neither a mask token nor sentinels, or writes none by itself.",
            "Give pairs (a Batch with its encoder's), or prompts with answers.",
        )
    rule = rule_of(model.tokenizer)
    rows = []
    for tokens, real in zip(texts.tokens, texts.mask, strict=True):
        ids = tokens[real].tolist()
        ids = ids[1:] if rule.decoder_start is not None and ids[:1] == [rule.decoder_start] else ids
        back = len(rule.back)
        rows.append(rule.read(ids[:-back] if back and tuple(ids[-back:]) == rule.back else ids))
    read = replace(padded(rows), labels=texts.labels, facts=texts.facts)
    return prepared(model, metric, complete(read, model.tokenizer)), metric


def measured_on(model: Model, task: Task) -> Task:
    """The task with the metric that the model is measured by, and with the least margin that its unit allows."""
    metric = metric_on(model, task)
    if metric is None or metric is task.metric:
        return task
    return replace(task, metric=metric, floor="control", margin=MARGINS[metric.name])


def prepared(model: Model, metric: Metric | None, batch: Batch) -> Batch:
    """The batch as the metric reads it: with its tokens masked, or with what it reads of the run without changes.

    Its control is held against the same run, and masked as well.
    """
    if metric is span_corruption_loss:
        return corrupted(batch, model.tokenizer)
    if metric is own_output_loss:
        return with_own_output(model, batch)
    if metric in MASKING:
        assert model.tokenizer.mask is not None
        mask = masked if metric is masked_token_loss else noised
        return mask(batch, model.tokenizer, model.tokenizer.mask)
    label = {"kl": "clean", pooled_change.name: "vector"}.get(metric.name) if metric is not None else None
    if label is None:
        return batch
    found = with_clean_run(model, batch) if metric is kl else with_clean_vector(model, batch)
    if found.control is None:
        return found
    labels = {**found.control.labels, label: found.labels[label]}
    return replace(found, control=replace(found.control, labels=labels))


def as_measured(model: Model, task: Task) -> Task:
    """The task by the metric that the model is measured by, with batches as that metric reads them.

    For methods that are given a task by name; of a decoder the task itself.
    """
    metric = metric_on(model, task)
    if metric is None or metric is task.metric:
        return task

    def of(one: Task) -> Task:
        def build(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
            return prepared(model, metric, complete(one.build(tokenizer, n, rng), tokenizer))

        return replace(measured_on(model, one), build=build, twin=None, second=None)

    other = held_out(task)
    return replace(of(task), twin=None if other is None else of(other))
