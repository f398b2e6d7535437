"""Verdicts on models whose weights were written: backups, look-alikes, heads that work against, and heads that nothing reads."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.heads import HeadId
from headatlas.lab.grid import model_of
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.spec import PlantSpec
from headatlas.lab.unread import silence
from headatlas.mining.checks.records import HeadVerdict
from headatlas.mining.scan import scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import Model
from headatlas.progress import Silent

LAYERS, HEADS, WIDTH = 4, 8, 256


@cache
def planted(*heads: Head, seed: int = 0) -> PlantedModel:
    spec = PlantSpec((Head(0, 1, "previous"), *heads), noise=0.03, rest="noise")
    return plant(spec, n_layers=LAYERS, n_heads=HEADS, width=WIDTH, context=160, seed=seed)


def written(source: PlantedModel, change) -> Model:
    """The model with `change(rows)` in place of what W_O has for some heads: {head: change}."""
    source = copy.copy(source)
    object.__setattr__(source, "model", copy.deepcopy(source.model))
    with torch.no_grad():
        for head, new in change.items():
            rows = w_o(source.model, head)
            rows.copy_(new(rows))
    return model_of(source)


def w_o(model, head: HeadId) -> torch.Tensor:
    """What a head of the planted GPT-2 writes, [d_head, d_model], a view of its weights."""
    size = WIDTH // HEADS
    return model.transformer.h[head.layer].attn.c_proj.weight[head.head * size : (head.head + 1) * size]


def judged(model: Model, name: str = "induction", seed: int = 0) -> dict[HeadId, HeadVerdict]:
    detector = find_detector(name)
    scan = scan_task(model, detector.task, [detector], detector.task(model.tokenizer, 16, seed))
    assert scan.smallest is not None, "the model does the task"
    found = judge_task(model, detector.task, [detector], scan, n=16, seed=seed, progress=Silent())
    return dict(found.detectors[name].heads)


def words(found: dict[HeadId, HeadVerdict]) -> dict[str, str]:
    return {str(head): " ".join(filter(None, (one.verdict, one.works))) for head, one in sorted(found.items())}


def test_a_planted_pair_of_backups_is_a_group_and_its_silent_neighbour_is_refuted():
    pair = [Head(2, 0, "induction", write=3.0), Head(2, 4, "induction", write=3.0), Head(2, 6, "induction")]
    model = written(planted(*pair), {HeadId(2, 6): torch.zeros_like})
    assert words(judged(model)) == {"2.0": "group for", "2.4": "group for", "2.6": "refuted"}


def test_look_alikes_and_silent_heads_beside_a_strong_one_are_refuted():
    fakes = [Head(2, 3, "fake-induction"), Head(2, 5, "fake-induction"), Head(3, 2, "fake-induction")]
    silent = [Head(3, 0, "induction"), Head(3, 6, "induction"), Head(2, 7, "induction")]
    source = planted(Head(2, 0, "induction"), *fakes, *silent)
    model = written(source, {head.id: torch.zeros_like for head in silent})
    found = judged(model)
    assert words(found) == {"2.0": "causal for"} | {str(head.id): "refuted" for head in (*fakes, *silent)}
    assert {found[head.id].alone.effect for head in silent} == {0.0}


def test_a_head_that_lowers_the_repeated_token_is_said_to_work_against():
    source = planted(Head(2, 0, "induction", write=1.5), Head(3, 3, "induction", write=0.8))
    found = judged(written(source, {HeadId(3, 3): torch.neg}))
    assert words(found) == {"2.0": "causal for", "3.3": "causal against"}
    assert found[HeadId(3, 3)].alone.effect < 0


def with_idle_layer(source: PlantedModel, before: int) -> Model:
    """The same model with a layer in front of layer `before` whose attention and MLP write nothing."""
    source = copy.copy(source)
    deeper = copy.deepcopy(source.model)
    blocks = list(deeper.transformer.h)
    idle = copy.deepcopy(blocks[before])
    with torch.no_grad():
        for part in (idle.attn.c_proj, idle.mlp.c_proj):
            part.weight.zero_()
            part.bias.zero_()
    deeper.transformer.h = nn.ModuleList([*blocks[:before], idle, *blocks[before:]])
    for i, block in enumerate(deeper.transformer.h):
        block.attn.layer_idx = i
    deeper.config.n_layer = len(deeper.transformer.h)
    object.__setattr__(source, "model", deeper)
    return model_of(source)


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_layer_that_does_nothing_changes_no_verdict(before: int):
    heads = [
        Head(2, 0, "induction"),
        Head(2, 5, "fake-induction"),
        Head(3, 2, "fake-induction"),
        Head(1, 1, "induction"),
    ]
    source = planted(*heads)
    found, deeper = judged(model_of(source)), judged(with_idle_layer(source, before))

    def moved(head: HeadId) -> HeadId:
        return head._replace(layer=head.layer + (head.layer >= before))

    for head, one in found.items():
        other = deeper[moved(head)]
        assert (one.verdict, one.works) == (other.verdict, other.works), head
        assert other.alone.random_effect == pytest.approx(one.alone.random_effect, rel=1e-3, nan_ok=True)
    idle = [one for head, one in deeper.items() if head.layer == before]
    assert {one.verdict for one in idle} <= {"refuted"}


def sizes_of(model: Model, head: HeadId) -> torch.Tensor:
    """The singular values of what a head of the planted GPT-2 writes."""
    return torch.linalg.svdvals(w_o(model.hf, head).detach())


def test_heads_whose_output_nobody_reads_are_rarely_causal():
    """Of nine induction heads in each of three models all but one have W_O turned to where little is read, norms kept."""
    nulls: list[str] = []
    for seed in range(3):
        heads = [Head(layer, head, "induction") for layer in (2, 3) for head in (1, 3, 5, 7)]
        model = written(planted(Head(2, 0, "induction"), *heads, seed=seed), {})
        before = [sizes_of(model, head.id) for head in heads]
        silence(model.hf, [head.id for head in heads], seed)
        for head, sizes in zip(heads, before, strict=True):
            torch.testing.assert_close(sizes_of(model, head.id), sizes)
        found = judged(model, seed=seed)
        assert found[HeadId(2, 0)].verdict == "causal"
        nulls += [one.verdict for head, one in found.items() if head != HeadId(2, 0)]
    assert len(nulls) >= 20
    assert np.mean([word == "causal" for word in nulls]) <= 0.03


def test_verdicts_do_not_hang_on_which_other_detectors_were_asked_for(tmp_path):
    """The previous-token heads are no controls of induction heads, whether or not anybody asked for previous-token heads."""
    previous = [Head(0, 4, "previous"), Head(0, 6, "previous"), Head(1, 2, "previous")]
    model = model_of(planted(Head(2, 0, "induction"), *previous, Head(3, 3, "fake-induction")))
    runs = {
        name: ha.mine(model, chosen, tasks=["repeated"], n=8, checks="none", out=tmp_path / name).data["detectors"]
        for name, chosen in (("alone", ["induction"]), ("all", None))
    }
    (alone,), (beside,) = ([one for one in found if one["name"] == "induction"] for found in runs.values())
    assert len(runs["alone"]) == 1 < len(runs["all"])
    assert {row["verdict"] for row in alone["heads"]} == {"causal", "refuted"}
    for row, other in zip(alone["heads"], beside["heads"], strict=True):
        for name in ("verdict", "marginal", "effect", "random_effect", "random_p", "effect_p"):
            assert row[name] == other[name], name
    known = {(row["layer"], row["head"]) for one in runs["all"] for row in one["heads"]}
    assert alone["group"]["free_heads"] == LAYERS * HEADS - len(known)
