"""Mining end to end on toys: what is written, that it resumes, that equal settings give equal numbers."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas.atlas import Atlas
from headatlas.detector import detectors
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.heads import HeadId, parse_heads
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.methods.sweeps.matched_controls import judge, matched
from headatlas.mining import atlas_json
from headatlas.mining import verdicts as verdicts_of_tasks
from headatlas.mining.run import plan
from headatlas.model import attach
from headatlas.task import next_token_loss
from tests import toys

PLAIN = ["repeated", "prose", "registers"]  # where a test is not about all tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model folder with a tokenizer of ordinary words."""
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=400, max_position_embeddings=160), place)
    return place


@pytest.fixture(scope="module")
def atlas(folder, tmp_path_factory) -> Atlas:
    return ha.mine(ha.load(str(folder)), n=6, out=tmp_path_factory.mktemp("runs") / "one")


def test_a_run_folder_holds_what_the_contract_says(atlas: Atlas):
    names = {path.name for path in atlas.run.iterdir()}
    assert names == {"run.json", "scores.parquet", "examples.parquet", "atlas.json", "attention.json", "report.html"}
    data = json.loads((atlas.run / "atlas.json").read_text())
    assert data["schema"] == "headatlas/atlas/1"
    assert {
        "name",
        "source",
        "revision",
        "sha256",
        "architecture",
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "d_model",
        "d_head",
        "dtype",
        "attention_path",
    } <= set(data["model"])
    assert {"id", "created", "seed", "n", "device", "versions", "seconds"} <= set(data["run"])
    assert set(data["run"]["seconds"]) == {"load", "forward", "detect", "verdict"}
    for found in data["detectors"]:
        assert {
            "name",
            "head_type",
            "stage",
            "task",
            "version",
            "n_examples",
            "minimum_effect",
            "baseline",
            "scores",
            "chance",
            "heads",
            "group",
        } <= set(found)
        assert len(found["scores"]) == 2
        assert len(found["scores"][0]) == 4
    table = pq.read_table(atlas.run / "scores.parquet").to_pylist()
    assert len(table) == 8 * len(data["detectors"])
    assert list(table[0]) == [
        "detector",
        "stack",
        "layer",
        "head",
        "score",
        "low",
        "high",
        "chance",
        "p",
        "q",
        "verdict",
        "effect",
        "effect_low",
        "effect_high",
        "random_effect",
    ]
    examples = pq.read_table(atlas.run / "examples.parquet")
    assert examples.num_rows == 8 * 6 * len(data["detectors"])


def test_an_untrained_model_has_no_heads_to_show(atlas: Atlas):
    assert sum(len(found["heads"]) for found in atlas.data["detectors"]) == 0


def test_same_seed_same_numbers_other_seed_other_numbers(folder, atlas, tmp_path: Path):
    model = ha.load(str(folder))
    again = ha.mine(model, ["induction", "delimiter"], n=6, out=tmp_path / "again")
    other = ha.mine(model, ["induction", "delimiter"], n=6, seed=1, out=tmp_path / "other")
    for name in ("induction", "delimiter"):
        first, second, third = (run.detectors(name)[0]["scores"] for run in (atlas, again, other))
        assert first == second
        assert first != third


def test_a_complete_run_is_returned_at_once(folder, atlas):
    before = (atlas.run / "atlas.json").stat().st_mtime_ns
    ha.mine(ha.load(str(folder)), n=6, out=atlas.run)
    assert (atlas.run / "atlas.json").stat().st_mtime_ns == before


def test_sql_over_runs(atlas: Atlas):
    rows = atlas.query("SELECT detector, count(*) AS heads FROM scores GROUP BY 1 ORDER BY 1")
    assert rows[0] == {"detector": "active-dormant", "heads": 8}
    mean = atlas.query(
        "SELECT avg(score) AS m FROM examples WHERE detector = ? AND layer = 1 AND head = 2", "induction"
    )[0]["m"]
    assert mean == pytest.approx(atlas.detectors("induction")[0]["scores"][1][2], abs=1e-5)
    with pytest.raises(BadInput, match="query failed"):
        atlas.query("SELECT nothing FROM nowhere")


def test_an_interrupted_run_goes_on_from_the_last_finished_task(folder, tmp_path: Path, monkeypatch):
    from headatlas.mining import run as mining

    model, out = ha.load(str(folder)), tmp_path / "run"
    done = []
    real = mining._scan

    def dies_at_the_third(model, task, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.name)
        return real(model, task, *rest)

    monkeypatch.setattr(mining, "_scan", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ha.mine(model, tasks=PLAIN, n=4, out=out)
    assert not out.exists()
    again = []
    monkeypatch.setattr(mining, "_scan", lambda model, task, *rest: again.append(task.name) or real(model, task, *rest))
    atlas = ha.mine(model, tasks=PLAIN, n=4, out=out)
    assert set(again).isdisjoint(done)
    assert {found["task"] for found in atlas.data["detectors"]} == {*done, *again}
    assert not (tmp_path / "run.partial").exists()


def test_a_killed_run_leaves_no_half_run_and_resumes(folder, tmp_path: Path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "headatlas", "mine", str(folder), "--n", "12", "--out", str(out)]
    command += [word for task in PLAIN for word in ("--task", task)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while not list(tmp_path.glob("run.partial/scans/*.json")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() or (out / "atlas.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kept from before" in done.stderr or "already" in done.stderr
    assert (out / "report.html").exists()


def test_mistakes_are_named(folder, atlas, tmp_path: Path):
    model = ha.load(str(folder))
    with pytest.raises(UnknownName, match=r"no detector called 'inductoin'. Did you mean 'induction'"):
        ha.mine(model, ["inductoin"], out=tmp_path / "x")
    with pytest.raises(BadInput, match="too few"):
        ha.mine(model, n=2, out=tmp_path / "x")
    with pytest.raises(StoreError, match="holds another run"):
        ha.mine(model, n=7, out=atlas.run)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not a run folder"):
        ha.mine(model, n=6, out=other)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        ha.mine(model, n=6, out=broken)
    with pytest.raises(StoreError, match="There is no run"):
        Atlas(tmp_path / "nothing")
    with pytest.raises(StoreError, match="cannot be written"):
        ha.mine(model, n=6, out=folder / "config.json" / "run")
    with pytest.raises(UnknownName, match="Did you mean 'induction-head'"):
        atlas.top("induktion-head")


def test_a_vocabulary_too_small_skips_the_detector_with_the_reason(tmp_path: Path):
    model = ha.load(toys.llama(vocab_size=24, max_position_embeddings=160))
    atlas = ha.mine(model, n=4, out=tmp_path / "run")
    reasons = {row["detector"]: row["reason"] for row in atlas.data["skipped"]}
    assert "ordinary tokens" in reasons["induction"]
    assert "no tokenizer" in reasons["delimiter"]


def test_encoders_get_the_detectors_that_make_sense(tmp_path: Path):
    place = tmp_path / "bert"
    toys.with_tokenizer(toys.bert(vocab_size=400), place, encoder=True)
    atlas = ha.mine(ha.load(str(place)), n=4, out=tmp_path / "run")
    names = {found["name"] for found in atlas.data["detectors"]}
    assert {"previous-token", "positional", "delimiter", "subword-merge"} <= names
    assert "induction" not in names
    skipped = {row["detector"] for row in atlas.data["skipped"]}
    assert {"induction", "induction-copy"} <= skipped
    assert skipped == {name for name, detector in detectors().items() if not detector.encoder}
    assert all(found["untested"] for found in atlas.data["detectors"])


OTHER_KIND = frozenset(parse_heads("1.4 1.5 1.6 1.7"))


class Known:
    """A removal whose effects are written down: 1.1 alone, 2.2 and 2.3 together, and heads of another kind, 1.4 to 1.7."""

    metric = next_token_loss
    model = SimpleNamespace(heads=tuple(HeadId(layer, head) for layer in range(6) for head in range(8)))

    def __init__(self, n: int) -> None:
        self.n = n

    def metric_drop(self, heads) -> np.ndarray:
        heads = set(heads)
        noise = np.random.default_rng(len(heads)).normal(0, 0.01, self.n)
        strong = 1.0 if HeadId(1, 1) in heads else 0.0
        backed_up = 0.8 if {HeadId(2, 2), HeadId(2, 3)} <= heads else 0.0
        return noise + strong + backed_up + 2.0 * bool(heads & OTHER_KIND)


def verdicts(*names: str, assigned=()) -> dict[str, str]:
    heads = parse_heads(" ".join(names))
    excluded = {*heads, *(() if assigned else OTHER_KIND)}
    return {
        str(head): word for head, word in judge(Known(8), Known(4), heads, excluded, assigned=assigned).verdicts.items()
    }


def test_planted_effects_decide_the_verdict():
    assert verdicts("1.1", "3.3") == {"1.1": "causal", "3.3": "group"}
    assert verdicts("2.2", "2.3") == {"2.2": "group", "2.3": "group"}
    assert verdicts("3.3", "5.4") == {"3.3": "refuted", "5.4": "refuted"}


def test_heads_of_other_kinds_are_no_controls_where_there_are_others():
    heads = [HeadId(1, 1)]
    assert judge(Known(8), Known(4), heads, heads).verdicts[heads[0]] == "refuted", "they raise the bar"
    assert verdicts("1.1", assigned=OTHER_KIND) == {"1.1": "causal"}
    # With nothing but heads of other kinds these must do.
    found = judge(Known(8), Known(4), heads, heads, assigned=Known.model.heads)
    assert found.effects[heads[0]].random_effect > 1.0
    assert atlas_json.verdict(found)["group"]["metric"] == "next-token loss"


def test_random_sets_come_from_the_nearest_heads_of_no_kind_and_differ():
    free = [head for head in Known.model.heads if head != HeadId(2, 0)]
    others = frozenset(head for head in free if head.layer == 2 and head.head < 7)
    draw = functools.partial(matched, [HeadId(2, 0)], free, np.random.default_rng(0))
    assert {head for _ in range(40) for head in draw(others)} == {HeadId(2, 7)}
    wide = {head for _ in range(200) for head in draw(others, 4)}
    assert wide == {HeadId(2, 7)} | {head for head in free if head.layer in (1, 3)}
    # Where fewer than four are free of every kind, those of other kinds help out, the nearest first.
    rest = frozenset(head for head in free if head != HeadId(2, 7))
    assert {head for _ in range(200) for head in draw(rest, 4)} == {head for head in free if head.layer == 2}


def test_verdicts_are_kept_when_a_run_is_interrupted_after_them(tmp_path: Path, monkeypatch):
    model = model_of(plant(PlantSpec((Head(0, 0, "previous"), Head(1, 1, "induction")), noise=0.02)))
    asked = []
    real = verdicts_of_tasks.verdicts
    monkeypatch.setattr(verdicts_of_tasks, "verdicts", lambda *given: asked.append(1) or real(*given))
    with monkeypatch.context() as once:
        once.setattr(atlas_json, "summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ha.mine(model, ["previous-token", "induction"], n=8, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    atlas = ha.mine(model, ["previous-token", "induction"], n=8, out=tmp_path / "run")
    assert asked == [1]
    assert atlas.detectors("induction")[0]["heads"][0]["verdict"] == "causal"
    assert atlas.detectors("induction")[0]["group"]["metric"] == "next-token loss"
    assert sorted(path.name for path in atlas.run.iterdir() if path.is_dir()) == []


def interrupted(*_) -> None:
    raise KeyboardInterrupt


def test_sweeps_lie_beside_runs_and_are_asked_together(tmp_path: Path):
    from headatlas.methods.sweeps.ablation import ablate
    from headatlas.task import find_task

    model = toys.model("gqa")
    task = find_task("repeated")
    found = ablate(
        model,
        ha.Prompts(batch=task(model.tokenizer, 4, seed=0), metric=task.metric),
        options=ha.RunOptions(out=tmp_path / "atlas" / "sweep"),
    )
    only_sweeps = Atlas(tmp_path / "atlas")
    rows = only_sweeps.query("SELECT heads, effect, run FROM effects ORDER BY abs(effect) DESC")
    best = max(found.summary(), key=lambda line: abs(line.effect))
    assert (rows[0]["heads"], rows[0]["run"]) == (str(best.head), "sweep")
    assert rows[0]["effect"] == pytest.approx(best.effect)
    with pytest.raises(StoreError, match="sweeps only"):
        only_sweeps.top("induction-head")
    ha.mine(model, ["previous-token"], n=4, verdict=False, out=tmp_path / "atlas" / "run")
    both = Atlas(tmp_path / "atlas").query(
        "SELECT count(*) AS n FROM effects JOIN scores ON effects.layer = scores.layer AND effects.head = scores.head"
    )
    assert both == [{"n": len(model.heads)}]


def test_a_run_may_be_held_to_a_task(tmp_path: Path):
    model = toys.model("gqa")
    atlas = ha.mine(model, tasks=["repeated"], n=4, verdict=False, out=tmp_path / "run")
    assert {found["task"] for found in atlas.data["detectors"]} == {"repeated"}
    assert len(atlas.data["detectors"]) >= 5
    with pytest.raises(UnknownName, match="reapeted"):
        ha.mine(model, tasks=["reapeted"], n=4, out=tmp_path / "other")
    with pytest.raises(BadInput, match="uses the task ioi"):
        ha.mine(model, ["induction"], tasks=["ioi"], n=4, out=tmp_path / "other")


def test_a_detector_may_be_asked_on_a_longer_task_of_the_same_form():
    hf = toys.llama(vocab_size=49152, num_hidden_layers=1, max_position_embeddings=2048)
    model = attach(hf, tokenizer=toys.smollm2_vocabulary())
    chosen = plan(model, ["retrieval", "induction"], ["needle-1024"], 4, 0)
    (task,), (group,) = zip(*chosen.by_task.items(), strict=True)
    assert (task.name, [d.name for d in group], chosen.skipped) == ("needle-1024", ["retrieval"], [])
    assert 900 < chosen.batches[task].mask.sum(1).max() <= 1024
    with pytest.raises(BadInput, match=r"retrieval can be asked on one task at a time, not on needle, needle-1024"):
        plan(model, ["retrieval"], ["needle", "needle-1024"], 4, 0)
