"""What a model is measured on: prompts of a built-in task, of a user's file, or a batch of one's own, with their metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.measured_by.choice import as_measured, metric_on
from headatlas.methods.measured_by.clean_run import end_logits, with_clean_run
from headatlas.methods.sweeps.task_gate import Gate, gate_of_prompts, gate_on_held_out
from headatlas.methods.texts import Texts, at_first_written
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.reading import as_batch
from headatlas.model.text.start_end import said_of
from headatlas.own_prompts.make import prompts as make_prompts
from headatlas.own_prompts.make import prompts_of_file
from headatlas.own_prompts.sources import demand_as_many, demand_counterfactuals, listed
from headatlas.progress import Progress, Silent
from headatlas.reading.chats import read_chats
from headatlas.renamed import old_names
from headatlas.task import Batch, Metric, Task, find_task, logit_difference, next_token_loss
from headatlas.task.answers import (
    demand_measurable,
    find_metric,
    first_alternatives,
    kl,
    log_probability,
    over_alternatives,
)
from headatlas.task.encoders import pooled_change

OWN_CHOICE = "none given: the model's own first choice, and its second as the wrong one"


@dataclass(frozen=True)
class Prompts:
    """Which prompts a model is measured on; one of task, prompts, batch, text and chat says where they come from.

    task: a built-in task, of which `n` prompts are drawn with `seed`. prompts: a file of your own, as `headatlas.prompts`
    reads it. batch: prompts already made, or whatever `model.forward` takes: a text, several, a chat, ids. text: one, or
    several, taken exactly as written. chat: a JSON file of messages {"role", "content"}. counterfactual: for each text the
    same with the deciding words changed, or such a file of chats. metric: how
    answers are scored, as a Metric or by name (kl, logit-difference, log-probability, rank ...: headatlas.task.answers);
    default the task's own, else the logit difference, else what the method takes where there is no answer. force: measure
    although the model cannot do the task. Raises BadInput unless exactly one source is given, UnknownName for a metric.

    >>> Prompts("ioi", n=16).n
    16
    """

    task: str | None = None
    prompts: str | Path | None = None
    n: int = 32
    seed: int = 0
    force: bool = False
    batch: Inputs | None = None
    metric: Metric | str | None = None
    text: str | Sequence[str] = ()
    chat: str | Path | None = None
    counterfactual: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        own = (self.text or None, self.chat)
        if sum(source is not None for source in (self.task, self.prompts, self.batch, *own)) != 1:
            raise BadInput(
                "Say what the prompts are.",
                "Give one of --task NAME (headatlas list tasks), --prompts FILE.jsonl, --text TEXT or --chat FILE.json.",
            )
        demand_counterfactuals(self.text, self.chat, self.counterfactual)
        if isinstance(self.metric, str):  # a name that there is not is told at once
            object.__setattr__(self, "metric", find_metric(self.metric))


@dataclass(frozen=True)
class MeasuredPrompts:
    """Prompts as one model reads them, and how it is scored on them.

    name: of the task or file. facts: what results say of them. task: None where they are not of a built-in task; then
    there are no further prompts to draw. seed: of the draw.
    """

    name: str
    batch: Batch
    metric: Metric
    facts: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None
    seed: int = 0


def own_prompts(model: Model, given: Prompts) -> Batch | None:
    """The prompts of a file, of texts or of chats as a Batch; None where they are of a task, or a Batch already. Raises BadInput."""
    if given.prompts is not None:
        return prompts_of_file(model, given.prompts)
    if not given.text and given.chat is None:
        return None
    if not given.counterfactual:
        return Texts(given.text, given.chat).read(model)
    mine: Sequence[Any] = listed(given.text)
    others: Sequence[Any] = listed(given.counterfactual)
    if given.chat is not None:
        mine, others = read_chats(given.chat), read_chats(others[0])
        demand_as_many(len(mine), len(others))
    rows = [{"prompt": one, "counterfactual": other} for one, other in zip(mine, others, strict=True)]
    return make_prompts(model, rows)


def measured_by(given: Inputs | Prompts, metric: Metric | str | None) -> Inputs | Prompts:
    """The same prompts with a metric, where one is named."""
    if metric is None:
        return given
    return replace(given, metric=metric) if isinstance(given, Prompts) else Prompts(batch=given, metric=metric)


def prompts_for(
    model: Model,
    given: Inputs | Prompts,
    progress: Progress | None = None,
    *,
    demand: bool = True,
    unanswered: Metric = logit_difference,
    settles: bool = False,
    chosen: bool = True,
) -> MeasuredPrompts:
    """The prompts that a model is measured on, after a look at whether it can do them.

    A batch is taken as it is, and so is all else that `model.forward` takes. Of a task or a file, the model's metric is told
    to `progress`, and a model that cannot do it is refused unless forced. demand=False: no such look. Where prompts have no
    answer, the model's own first choice stands for it and its second for the wrong one, and `unanswered` is the metric.
    settles: whether the method can measure what is settled from several prompts of a question (MC1, MC2), or from several right
    answers of a prompt (`over_alternatives`). chosen: whether the metric is this one, or the caller takes others, for which
    prompts with several answers then stay as they are.
    Raises BadInput, UnknownName, UnfitTask, UnsupportedModel.
    """
    given = given if isinstance(given, Prompts) else Prompts(batch=given)
    if given.task is not None:
        found = _of_task(model, given)
    else:
        found = _of_own(model, given, unanswered)
    demand_logits(model, found.metric)
    if found.metric is kl:
        found = replace(found, batch=with_clean_run(model, found.batch), facts={**found.facts, "metric": kl.name})
    demand_measurable(found.metric, found.batch)
    if chosen:
        metric, read = over_alternatives(found.metric, found.batch)
        found = replace(found, metric=metric, batch=read)
    if found.metric.settle is not None and not settles:
        raise BadInput(
            f"{found.metric.name} is settled from all answers of a question; this method measures prompts one by one.",
            "Ablate or patch heads with it, or choose another metric, such as kl, or truth-margin of questions.",
        )
    # Of prompts of one's own only a comparison of answers has a floor, which is 0.
    comparable = found.task is not None or (given.prompts is not None and found.metric.compares)
    if demand and comparable and "own_choice" not in found.batch.facts:
        _demand_able(model, found, given, progress or Silent())
    return found


def _of_own(model: Model, given: Prompts, unanswered: Metric) -> MeasuredPrompts:
    """Prompts of a file, of the command line or in memory."""
    found = own_prompts(model, given)
    name, facts = "prompts of one's own", {}
    batch: Batch = as_batch(given.batch, model.tokenizer) if found is None else found
    if given.prompts is not None:
        name, facts = (
            str(given.prompts),
            {"prompts_file": Path(given.prompts).name, "n": len(first_alternatives(batch))},
        )
        if "label" in batch.labels and "answer" not in batch.labels:
            raise BadInput(
                f"{name} has labelled texts, and no answers to measure.", 'Lines need "prompt", and "answer" if wanted.'
            )
    metric = given.metric
    if not isinstance(given.batch, Batch) and "answer" not in batch.labels:
        batch = at_first_written(model, batch)
    demand_pair(model, batch, metric)
    if "answer" not in batch.labels and metric is not next_token_loss:
        batch, metric = with_own_choice(model, batch), metric or unanswered
    if metric is None:
        metric = logit_difference if "wrong" in batch.labels else log_probability
    assert isinstance(metric, Metric)
    told = {"start_end": said_of(batch.facts), **{k: batch.facts[k] for k in ("answers",) if k in batch.facts}}
    return MeasuredPrompts(name, batch, metric, {**facts, **told}, seed=given.seed)


def demand_logits(model: Model, metric: Metric) -> None:
    """Raise UnsupportedModel where a metric reads token logits and the model gives none."""
    if not model.has_logits and metric is not pooled_change:
        raise UnsupportedModel(
            f"{model.name} gives no token logits, and {metric.name} reads them.",
            "Load it with its language-model head; without one `headatlas mine` judges it by its pooled vector.",
        )


def demand_pair(model: Model, batch: Batch, metric: Metric | str | None) -> None:
    """Raise BadInput for the loss of an encoder-decoder without what its encoder reads: its decoder would read all of it shifted."""
    if metric is next_token_loss and model.kind == "encoder-decoder" and batch.encoder is None:
        raise BadInput(
            f"{model.name} has an encoder, and these prompts do not say what it reads while the decoder writes them.",
            "Give a Batch its encoder (another Batch), or prompts with answers.",
        )


def with_own_choice(model: Model, batch: Batch) -> Batch:
    """The batch with the model's first choice at its end as the answer and its second as the wrong one."""
    best = end_logits(model, batch).topk(2, -1).indices
    labels = {**batch.labels, "answer": best[:, :1], "wrong": best[:, 1:]}
    return replace(batch, labels=labels, facts={**batch.facts, "answers": OWN_CHOICE, "own_choice": True})


def _of_task(model: Model, given: Prompts) -> MeasuredPrompts:
    task = find_task(str(given.task))
    if given.metric is None and model.kind != "decoder" and model.has_logits and task.metric is not None:
        if metric_on(model, task) is None:
            raise BadInput(
                f"{model.name} predicts no next token, and its tokenizer has no mask token, so {task.name} cannot be measured.",
                "Name a metric, such as kl, or give prompts of your own.",
            )
        task = as_measured(model, task)
    batch, metric = task(model.tokenizer, given.n, given.seed), given.metric or task.metric
    if metric is None:
        raise BadInput(f"Task {task.name} has no metric, so no effects can be measured on it.", "Choose another task.")
    assert isinstance(metric, Metric)
    facts = {
        "task": task.name,
        "task_version": task.version,
        "n": given.n,
        "seed": given.seed,
        "start_end": said_of(batch.facts),
    }
    return MeasuredPrompts(str(given.task), batch, metric, facts, task, given.seed)


def _demand_able(model: Model, found: MeasuredPrompts, given: Prompts, progress: Progress) -> None:
    """Say how well the model does on prompts like these; raise BadInput where it does not, unless forced."""
    gate: Gate
    if found.task is not None:
        gate = gate_on_held_out(model, found.task, seed=found.seed)
    else:
        gate = gate_of_prompts(model, found.batch, found.metric)
    progress.say(f"{found.name}: {gate.metric.name} {gate.value:.2f} {gate.metric.unit}, floor {gate.floor:.2f}")
    if not given.force:
        gate.demand(model, found.name)


__getattr__ = old_names(__name__)
