"""Detectors, tasks and head types of a user's own: from a file or as objects, checked before they run, kept with the run."""

import json
import sys
import textwrap
import types
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import headatlas as ha
from headatlas.detector import detector
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import prepared
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.own import task_of
from headatlas.model import attach
from headatlas.task import find_task, held_out
from tests import toys

WORDS = toys.smollm2_vocabulary()
FILE = '''
"""Looks two tokens back."""
import torch

from headatlas.detector import Planted, detector
from headatlas.task import find_task


@detector(head_type="{kind}", task=find_task("repeated"), version=1, minimum_effect=0.3)
def two_back(layer, batch):
    """Looks two back: mean attention to the token two before."""
    return layer.offset(2).nanmean(-1)


def control(layer, batch):
    """Three back instead."""
    return layer.offset(3).nanmean(-1)


def planted(batch):
    return Planted(_shifted(batch, {shift}))


def look_alike(batch):
    return Planted(_shifted(batch, 1))


def _shifted(batch, k):
    n, length = batch.tokens.shape
    return torch.eye(length).roll(-k, 1).tril(-1).expand(n, length, length)
'''


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152), tokenizer=WORDS)


def written(folder, kind="previous-head", shift=2, more=""):
    path = folder / "mine.py"
    path.write_text(FILE.format(kind=kind, shift=shift) + textwrap.dedent(more))
    return path


def scores_of(atlas: ha.Atlas, name: str) -> list[float]:
    """The score of every head in order, from the run's table."""
    rows = [row for row in pq.read_table(atlas.run / "scores.parquet").to_pylist() if row["detector"] == name]
    return [row["score"] for row in sorted(rows, key=lambda row: (row["layer"], row["head"]))]


def test_a_loose_file_is_mined_and_its_source_kept(model, tmp_path):
    path = written(tmp_path)
    atlas = ha.mine(model, [path, "previous-token"], n=4, verdict=False, out=tmp_path / "run")
    assert {found["name"] for found in atlas.data["detectors"]} == {"two-back", "previous-token"}
    assert (tmp_path / "run" / "own" / "two-back.py").read_text() == path.read_text()
    assert not (tmp_path / "run" / "own" / "previous-token.py").exists()
    batch = find_task("repeated")(WORDS, 4, 0)
    seen = {}
    model.forward(batch, watch=lambda layer: seen.setdefault(layer.index, layer.pattern.clone()))
    expected = torch.stack([torch.diagonal(seen[i], -2, 2, 3).mean((0, 2)) for i in (0, 1)]).flatten()
    again = ha.mine(model, [str(path)], n=4, verdict=False, out=tmp_path / "again")
    assert np.allclose(scores_of(again, "two-back"), expected.numpy(), atol=1e-4)


def test_another_source_is_another_run(model, tmp_path):
    first = ha.mine(model, [written(tmp_path)], n=4, verdict=False, out=tmp_path / "a")
    second = ha.mine(model, [written(tmp_path, more="LATER = 1")], n=4, verdict=False, out=tmp_path / "b")
    ids = [json.loads((one.run / "run.json").read_text())["id"] for one in (first, second)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shift": 4}, r"two-back scores its own planted head .* less than its minimum effect"),
        ({"kind": "no-such-kind"}, "no-such-kind"),
        ({"more": "def contrl(layer, batch): ..."}, r"mine\.py defines 'contrl'.*Did you mean 'control'"),
        ({"more": "1 / 0"}, r"mine\.py cannot be loaded: ZeroDivisionError"),
        ({"more": "def look_alike(batch, more): ..."}, "the hook 'look_alike' takes"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(model, tmp_path, change, said):
    with pytest.raises(HeadAtlasError, match=said):
        ha.mine(model, [written(tmp_path, **change)], n=4, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_look_alike_that_counts_is_refused(model, tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("_shifted(batch, 1)", "_shifted(batch, 2)"))
    with pytest.raises(HeadAtlasError, match="takes its look-alike for its head type"):
        ha.mine(model, [path], n=4, out=tmp_path / "run")


def cell(monkeypatch, *names):
    """Detectors as a notebook defines them: in `__main__`."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    source = FILE.format(kind="previous-head", shift=2)
    for name in names:
        exec(source.replace("def two_back", f"def {name}"), vars(main))
    return main


def test_a_detector_of_a_notebook_is_mined(model, tmp_path, monkeypatch):
    main = cell(monkeypatch, "two_back")
    atlas = ha.mine(model, [main.two_back], n=4, verdict=False, out=tmp_path / "run")
    assert [found["name"] for found in atlas.data["detectors"]] == ["two-back"]
    assert (tmp_path / "run" / "own" / "two-back.py").exists()


def test_hooks_of_several_detectors_in_a_notebook_are_not_mixed_up(model, tmp_path, monkeypatch):
    main = cell(monkeypatch, "two_back", "other_one")
    with pytest.raises(HeadAtlasError, match=r"could be a hook of any of 2 plugins.*two_back_"):
        ha.mine(model, [main.two_back], n=4, out=tmp_path / "run")


def test_a_head_type_of_ones_own_is_named_in_the_run_wherever_it_is_read(model, tmp_path):
    kind = ha.define_head_type("two-back-head", stage="ici", role="Looks two tokens back.")
    atlas = ha.mine(model, [written(tmp_path, kind=kind)], n=4, verdict=False, out=tmp_path / "run")
    assert atlas.extras["head_types"][kind]["name"] == "Two back head"
    told = json.loads((tmp_path / "run" / "own" / "head_types.json").read_text())
    assert told[kind]["role"] == "Looks two tokens back."
    for wrong in ({"id": "induction-head"}, {"id": "Two Back"}, {"id": "x", "stage": "nowhere"}):
        with pytest.raises(BadInput):
            ha.define_head_type(**{"id": "x", "stage": "ici", "role": "x", **wrong})


def prompts(n=12):
    rows = [
        {
            "prompt": f"Number {i}: the capital of France is",
            "answer": " Paris",
            "wrong": " Rome",
            "spans": {"s": "France"},
        }
        for i in range(n)
    ]
    return ha.prompts(WORDS, rows)


def test_prompts_are_a_task_whose_halves_share_nothing():
    batch = prompts()
    task = task_of(batch)
    find, test = task(WORDS, 6), held_out(task)(WORDS, 6)
    rows = [set(half.labels["row"].tolist()) for half in (find, test)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == set(range(1, 13))
    for row, mixed in zip(find.tokens, find.control.tokens, strict=True):
        assert row[0] == mixed[0] == WORDS.bos
        assert sorted(row.tolist()) == sorted(mixed.tolist())
    assert not find.tokens.equal(find.control.tokens)
    with pytest.raises(BadInput, match="7 prompts are too few"):
        task_of(prompts(7))


def test_mining_ones_own_prompts_scores_them_as_a_plain_run_does(model, tmp_path):
    batch = prompts()
    atlas = ha.mine(model, ["previous-token"], tasks=[batch], n=4, verdict=False, out=tmp_path / "run")
    some = task_of(batch, "own-prompts-1")(WORDS, 4)
    seen = {}
    model.forward(some, watch=lambda layer: seen.setdefault(layer.index, layer.pattern.clone()))
    lengths = some.mask.sum(1).tolist()
    expected = [
        np.mean([seen[layer][e, head, range(2, n), range(1, n - 1)].mean().item() for e, n in enumerate(lengths)])
        for layer in (0, 1)
        for head in range(4)
    ]
    assert np.allclose(scores_of(atlas, "previous-token"), expected, atol=1e-4)
    assert {found["task"] for found in atlas.data["detectors"]} == {"own-prompts-1"}


def test_detectors_that_miss_something_in_the_prompts_are_skipped_with_the_reason(model, tmp_path):
    atlas = ha.mine(model, tasks=[prompts()], n=4, verdict=False, out=tmp_path / "run")
    skipped = {one["detector"]: one["reason"] for one in atlas.data["skipped"]}
    assert "needs" in skipped["induction"]
    with pytest.raises(BadInput, match=r"No detector can be asked on these prompts: .*needs"):
        ha.mine(model, ["induction"], tasks=[prompts()], n=4, out=tmp_path / "other")


def test_prompts_without_answers_are_judged_by_kl_to_the_clean_run(model, tmp_path):
    texts = [f"Number {i}: the capital of France is" for i in range(24)]
    given = ha.Prompts(text=texts)
    atlas = ha.mine(model, ["previous-token"], tasks=given, n=12, checks="none", out=tmp_path / "run")
    task = atlas.data["detectors"][0]["baseline"]
    metric = {key: task[key] for key in ("metric", "value", "unit")}
    assert metric == {"metric": "kl", "value": pytest.approx(0, abs=1e-6), "unit": "nats"}
    find = task_of(ha.prompts(WORDS, texts), "own-prompts-1")(WORDS, 12)

    def last(batch):
        logits = model.forward(batch)[torch.arange(len(batch)), batch.positions["end"]]
        return logits.double().log_softmax(-1)

    clean, mixed = last(find), last(find.control)
    assert task["floor"] == pytest.approx(float((clean.exp() * (clean - mixed)).sum(-1).mean()), rel=1e-3)
    again = ha.mine(model, ["previous-token"], tasks=ha.Prompts(text=texts), n=12, checks="none", out=tmp_path / "run")
    assert again.run == atlas.run
    with pytest.raises(BadInput, match="no answer, which the metric"):
        ha.mine(model, tasks=ha.Prompts(text=texts, metric="logit-difference"), n=4, out=tmp_path / "other")


def test_removals_on_prompts_without_answers_are_measured_to_the_run_of_the_same_prompts(model):
    task = task_of(ha.prompts(WORDS, [f"Number {i}: the capital of France is" for i in range(24)]))
    batch = prepared(model, task.metric, task(WORDS, 6))
    head = HeadId(1, 0)
    found = ablated(model, batch, task.metric, {(k.stack, k.layer): torch.zeros(4, 8) for k in model.heads})
    clean = model.forward(batch)[torch.arange(6), batch.positions["end"]].double().log_softmax(-1)
    changed = model.forward(batch, edits=[ha.Zero(head)])[torch.arange(6), batch.positions["end"]].double()
    expected = (clean.exp() * (clean - changed.log_softmax(-1))).sum(-1)
    assert np.allclose(found.metric_drop([head]), expected, rtol=1e-3, atol=1e-7)
    assert (expected > 0).all()


def test_a_task_of_one_s_own_is_another_where_its_spans_or_its_metric_are():
    plain = prompts()
    moved = replace(plain, positions={**plain.positions, "s": plain.positions["s"] - 1})
    assert len({task_of(plain).version, task_of(moved).version, task_of(plain, metric="rank").version}) == 3


def test_a_function_that_is_no_detector_is_refused(model):
    with pytest.raises(BadInput, match="function is no detector"):
        ha.mine(model, [detector], n=4)
