"""Timelines: births and deaths where they were planted, the numbers of a plain load, and nothing computed or opened twice."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.errors import BadInput, SourceError, StoreError, UnknownName
from headatlas.mining.comparison.runs import FinishedRun
from headatlas.mining.planning import plan
from headatlas.mining.scan import scan
from headatlas.mining.timeline import measure
from headatlas.mining.timeline import timeline as module
from headatlas.model.checkpoints import Checkpoints
from tests.mining.timeline.conftest import INDUCTION, PREVIOUS, STRENGTHS
from tests.pages import run

ASKED = ["induction", "previous-token"]


@pytest.fixture(scope="module")
def found(checkpoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("timelines") / "planted"
    return ha.timeline(checkpoints, ASKED, n=8, out=out), out


def copied(checkpoints, folder, steps):
    for step in steps:
        shutil.copytree(checkpoints / f"checkpoint-{step}", folder / f"checkpoint-{step}")
    return folder


def test_heads_are_born_and_die_where_they_were_planted(found):
    timeline, _ = found
    assert timeline.steps == tuple(STRENGTHS)
    lives = {(life.head, life.detector): life for life in timeline.lives}
    induction, previous = lives[INDUCTION, "induction"], lives[PREVIOUS, "previous-token"]
    assert (induction.after, induction.born, induction.died) == (20, 30, 60)
    assert (induction.low, induction.high) == (20, 30)
    assert (previous.after, previous.born, previous.died) == (None, 10, None)
    assert {head for head, _ in lives} == {INDUCTION, PREVIOUS}
    drop = timeline.drops["repeated"]
    assert (drop.begins, drop.ends) == (20, 30)
    assert (induction.against_drop, previous.against_drop) == ("during", "before")
    assert timeline.role_changes == ()


def test_numbers_are_those_of_a_model_that_was_loaded_alone(found, checkpoints):
    timeline, _ = found
    for place, step in ((0, 10), (3, 40), (5, 60)):
        with ha.load(checkpoints / f"checkpoint-{step}") as model:
            chosen = plan(model, ASKED, None, 8, 0)
            for task, group in chosen.by_task.items():
                alone = scan(model, group, chosen.batches[task])
                for series in timeline.series:
                    if series.detector in alone.scores:
                        one = alone.scores[series.detector]
                        np.testing.assert_allclose(series.values[place], one.values, atol=1e-6)
                        np.testing.assert_allclose(series.control[place], one.control, atol=1e-6)


def test_files_say_what_the_timeline_says(found):
    _, out = found
    table = pq.read_table(out / "timeline.parquet").to_pylist()
    assert len(table) == 6 * 2 * 4
    born = [row["step"] for row in table if row["detector"] == "induction" and row["layer"] == 1 and row["passes"]]
    assert born == [30, 40, 50]
    data = json.loads((out / "timeline.json").read_text())
    assert [life["born"] for life in data["lives"] if life["head"] == "1.1"] == [30]
    page = (out / "timeline.html").read_text()
    assert "<script" not in page
    assert "steps 20 to 30" in page
    assert "heads from when they pass" in (out / "timeline.svg").read_text()


@pytest.fixture
def scans(monkeypatch):
    """Which detectors were asked, a list for each pass over a task."""
    calls = []

    def counted(model, group, batch, **options):
        calls.append([one.name for one in group])
        return scan(model, group, batch, **options)

    monkeypatch.setattr(measure, "scan", counted)
    return calls


def test_only_what_is_new_is_computed(checkpoints, tmp_path, scans):
    folder, out = copied(checkpoints, tmp_path / "run", (10, 20, 30)), tmp_path / "out"
    first = ha.timeline(folder, ["induction"], n=4, out=out)
    assert len(scans) == 3
    scans.clear()
    assert ha.timeline(folder, ["induction"], n=4, out=out).data == first.data
    assert scans == []
    copied(checkpoints, folder, (40,))
    assert ha.timeline(folder, ["induction"], n=4, out=out).steps == (10, 20, 30, 40)
    assert scans == [["induction"]]
    scans.clear()
    more = ha.timeline(folder, ["induction", "duplicate-token"], n=4, out=out)
    assert scans == [["duplicate-token"]] * 4
    np.testing.assert_array_equal(more.series[0].values[:3], first.series[0].values)
    with pytest.raises(StoreError, match=r"differs in n \(4, now 5\)"):
        ha.timeline(folder, ["induction"], n=5, out=out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds no timeline"):
        ha.timeline(folder, ["induction"], n=4, out=tmp_path / "other")


def test_an_interrupted_timeline_goes_on(checkpoints, tmp_path, scans, monkeypatch):
    folder, out = copied(checkpoints, tmp_path / "run", (10, 20, 30)), tmp_path / "out"
    real = module.measured

    def stopped(model, *rest):
        if len(scans) == 2:
            raise KeyboardInterrupt
        return real(model, *rest)

    monkeypatch.setattr(module, "measured", stopped)
    with pytest.raises(KeyboardInterrupt):
        ha.timeline(folder, ["induction"], n=4, out=out)
    monkeypatch.setattr(module, "measured", real)
    scans.clear()
    ha.timeline(folder, ["induction"], n=4, out=out)
    assert len(scans) == 1


def test_one_model_is_opened_and_its_weights_are_those_of_the_files(checkpoints):
    tokens = torch.randint(1, 128, (2, 30), generator=torch.Generator().manual_seed(0))
    with Checkpoints() as opener:
        for step in (30, 10, 40):
            model = opener.open(str(checkpoints / f"checkpoint-{step}"))
            with ha.load(checkpoints / f"checkpoint-{step}") as alone:
                assert torch.equal(model.forward(tokens), alone.forward(tokens))
                assert model.sha256() == alone.sha256()
        assert opener.opened == 1
    with pytest.raises(BadInput, match="was closed"):
        model.forward(tokens)


def changed(checkpoints, target, step, change):
    shutil.copytree(checkpoints / f"checkpoint-{step}", target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", {"format": "pt"})


def test_checkpoints_that_do_not_belong_together_are_refused(checkpoints, tmp_path):
    def poison(weights):
        weights["transformer.wpe.weight"][0, 0] = float("nan")

    def shorten(weights):
        del weights["transformer.wpe.weight"]

    first = str(checkpoints / "checkpoint-10")
    changed(checkpoints, tmp_path / "step-11", 20, poison)
    with pytest.raises(BadInput, match=r"step-11 has weights that are no numbers \(transformer.wpe.weight\)"):
        ha.timeline([first, tmp_path / "step-11"], ["induction"], n=4)
    changed(checkpoints, tmp_path / "step-12", 20, shorten)
    with pytest.raises(SourceError, match="lacks 1 weights"):
        ha.timeline([first, tmp_path / "step-12"], ["induction"], n=4)
    changed(checkpoints, tmp_path / "step-13", 20, lambda weights: None)
    text = (tmp_path / "step-13" / "tokenizer.json").read_text().replace('"Mary"', '"Maria"')
    (tmp_path / "step-13" / "tokenizer.json").write_text(text)
    with pytest.raises(BadInput, match="another tokenizer"):
        ha.timeline([first, tmp_path / "step-13"], ["induction"], n=4)
    with pytest.raises(BadInput, match="names 1 checkpoint;"):
        ha.timeline(first)
    with pytest.raises(UnknownName, match="nowhere"):
        ha.timeline(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds no checkpoints"):
        ha.timeline(_empty(tmp_path))


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_revisions_are_read_from_the_hubs_cache(checkpoints, tmp_path, monkeypatch, capsys):
    """Laid out as huggingface_hub keeps what it fetched: a folder for each commit, and what revisions are called."""
    home = tmp_path / "models--org--planted"
    (home / "refs").mkdir(parents=True)
    for step in (10, 40, 60):
        commit = f"{step:040d}"
        shutil.copytree(checkpoints / f"checkpoint-{step}", home / "snapshots" / commit)
        (home / "refs" / f"step{step}").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = ha.timeline("org/planted@step60,step10,step40", ["induction"], n=8)
    assert (found.labels, found.steps) == (("step10", "step40", "step60"), (10, 40, 60))
    (life,) = (life for life in found.lives if life.head == INDUCTION)
    assert (life.born, life.died) == (40, 60)
    assert capsys.readouterr().err.count("Using the copy of org/planted") <= 2  # the opening of the first looks again
    with pytest.raises(SourceError, match="'org/planted' at revision 'step70'"):
        ha.timeline("org/planted@step10,step70", ["induction"], n=8)


def test_another_structure_is_opened_anew(checkpoints, tmp_path):
    shutil.copytree(checkpoints / "checkpoint-20", tmp_path / "step-20")
    config = json.loads((tmp_path / "step-20" / "config.json").read_text())
    (tmp_path / "step-20" / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.5}))
    with Checkpoints() as opener:
        for name in (checkpoints / "checkpoint-10", tmp_path / "step-20"):
            model = opener.open(str(name))
        assert opener.opened == 2
        tokens = torch.arange(1, 30)[None]
        with ha.load(tmp_path / "step-20") as alone:
            assert torch.equal(model.forward(tokens), alone.forward(tokens))


def swap_heads(weights):
    """Exchange heads 1.0 and 1.1 of a GPT-2 of width 64 with two heads: the model computes the same."""
    order = torch.cat([torch.arange(32, 64), torch.arange(32)])
    block = "transformer.h.1.attn"
    columns = torch.cat([order + 64 * part for part in range(3)])
    weights[f"{block}.c_attn.weight"] = weights[f"{block}.c_attn.weight"][:, columns].contiguous()
    weights[f"{block}.c_attn.bias"] = weights[f"{block}.c_attn.bias"][columns].contiguous()
    weights[f"{block}.c_proj.weight"] = weights[f"{block}.c_proj.weight"][order].contiguous()


def test_heads_that_changed_places_are_matched_by_their_weights(found, checkpoints, tmp_path):
    folder = copied(checkpoints, tmp_path / "run", (20, 50, 60))
    for step in (30, 40):
        changed(checkpoints, folder / f"checkpoint-{step}", step, swap_heads)
    copied(checkpoints, folder, (10,))
    timeline = ha.timeline(folder, ASKED, n=8)
    other = ha.HeadId(1, 0)
    assert [(label, str(a), str(b)) for label, a, b in timeline.moved if b == INDUCTION] == [
        ("checkpoint-30", "1.0", "1.1"), ("checkpoint-40", "1.0", "1.1")]  # fmt: skip
    assert {b for _, _, b in timeline.moved} == {INDUCTION, other}
    assert [life.head for life in timeline.lives] == [life.head for life in found[0].lives]
    np.testing.assert_allclose(timeline.series[0].values, found[0].series[0].values, atol=1e-5)


def test_finished_runs_make_the_same_timeline(checkpoints, tmp_path):
    for step in (20, 30):
        with ha.load(checkpoints / f"checkpoint-{step}") as model:
            ha.mine(model, ["induction"], n=8, verdict=False, out=tmp_path / f"step-{step}")
    runs = ha.timeline([tmp_path / "step-20", tmp_path / "step-30"])
    models = ha.timeline([checkpoints / "checkpoint-20", checkpoints / "checkpoint-30"], ["induction"], n=8)
    np.testing.assert_allclose(runs.series[0].values, models.series[0].values, atol=1e-6)
    assert [(life.head, life.born) for life in runs.lives] == [(INDUCTION, 30)]
    assert runs.metrics == {}
    assert (
        FinishedRun.of(ha.Atlas(tmp_path / "step-20")).measured["induction"].minimum_effect
        == find_detector("induction").minimum_effect
    )
    with pytest.raises(BadInput, match="runs or of models, not of both"):
        ha.timeline([tmp_path / "step-20", checkpoints / "checkpoint-30"])


def test_the_command_tells_the_steps(checkpoints, tmp_path, capsys):
    base = tmp_path / "model"
    copied(checkpoints, base, (20, 30))
    code, out, err = run(
        capsys, "timeline", f"{base}@checkpoint-20,checkpoint-30", "--detector", "induction", "--n", "8"
    )
    assert code == 0, err
    assert "2 checkpoints, steps 20 to 30" in out
    assert "1.1" in out
    assert "steps 20 to 30" in out
    code, out, _ = run(capsys, "timeline", str(base), "--detector", "induction", "--n", "8", "--json")
    assert [life["born"] for life in json.loads(out)["lives"]] == [30]
    code, _, err = run(capsys, "timeline", "nowhere", "--detector", "induction")
    assert code == 1
    assert err.startswith("headatlas: There is no model called 'nowhere'")
