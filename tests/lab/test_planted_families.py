"""Does a role hold in another family of prompts? A head that matches faintly finds what it looks for in short texts alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from headatlas.detector import find_detector
from headatlas.errors import UnfitTask
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.mining.scan import scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import Model
from headatlas.progress import Silent
from headatlas.task import Batch, Vocabulary, next_token_loss, task
from headatlas.tasks._random_tokens import usable_ids
from headatlas.tasks.repeated import _built
from tests.lab.test_planted_verdicts import HEADS, WIDTH, planted, written

SHORT, LONG = 16, 75  # tokens that are repeated
SHARP, FAINT = HeadId(2, 0), HeadId(2, 5)


def _long(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The same with many more tokens among which to find one."""
    if tokenizer.context < 2 * LONG + 1:
        raise UnfitTask("too long")
    return _built(tokenizer, n, rng, usable_ids(tokenizer), LONG)


@task(metric=next_token_loss, version=1, margin=0.5, second=_long)
def short_texts(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Few tokens, repeated."""
    return _built(tokenizer, n, rng, usable_ids(tokenizer), SHORT)


@torch.no_grad()
def fainter(model: Model, head: HeadId, factor: float) -> None:
    """The head's queries, and with them the logits of its attention, times `factor`."""
    attention, size = model.hf.transformer.h[head.layer].attn.c_attn, WIDTH // HEADS
    for weight in (attention.weight, attention.bias):
        weight[..., head.head * size : (head.head + 1) * size] *= factor


def test_a_head_that_holds_in_one_family_alone_does_not_transfer():
    heads = [
        Head(SHARP.layer, SHARP.head, "induction", write=0.4),
        Head(FAINT.layer, FAINT.head, "induction", write=0.8),
    ]
    model = written(planted(*heads), {})
    fainter(model, FAINT, 0.22)
    detector = replace(find_detector("induction"), task=short_texts)
    scan = scan_task(model, short_texts, [detector], short_texts(model.tokenizer, 16, 0))
    judged = judge_task(model, short_texts, [detector], scan, n=16, seed=0, progress=Silent(), checks=("transfer",))
    found = judged.detectors["induction"].heads
    assert {found[head].verdict for head in (SHARP, FAINT)} == {"causal"}
    holds, lost = (next(one for one in found[head].checks if one.name == "transfer") for head in (SHARP, FAINT))
    assert (holds.outcome, lost.outcome) == ("passed", "failed")
    assert "score above chance" in lost.note
    assert holds.parts["score above chance"][1] > 0.5 > detector.minimum_effect > lost.parts["score above chance"][2]
