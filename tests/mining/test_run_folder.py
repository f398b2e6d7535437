"""A run folder of toys: what is in it, equal settings give equal numbers, mistakes are named."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas.atlas import Atlas
from headatlas.detector import detectors
from headatlas.errors import BadInput, StoreError, UnknownName
from tests import toys


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
        "marginal",
        "works",
        "carries",
        "effect",
        "effect_low",
        "effect_high",
        "random_effect",
        "effect_q",
        "line",
    ]
    examples = pq.read_table(atlas.run / "examples.parquet")
    rows = Counter(examples["detector"].to_pylist())
    assert rows.keys() == {one["name"] for one in data["detectors"]}
    # Six examples of eight heads; a row for each group of prompts where a detector probes prompts of its own.
    probing = {one.name for one in detectors().values() if not getattr(one, "paired", True)}
    assert {name for name, n in rows.items() if n != 8 * 6} <= probing


def test_an_untrained_model_has_no_heads_to_show(atlas: Atlas):
    assert sum(len(found["heads"]) for found in atlas.data["detectors"]) == 0


def test_same_seed_same_numbers_other_seed_other_numbers(folder, atlas, tmp_path: Path):
    model = ha.load(str(folder))
    again = ha.mine(model, ["induction", "punctuation"], n=6, out=tmp_path / "again")
    other = ha.mine(model, ["induction", "punctuation"], n=6, seed=1, out=tmp_path / "other")
    for name in ("induction", "punctuation"):
        first, second, third = (run.detectors(name)[0]["scores"] for run in (atlas, again, other))
        assert first == second
        assert first != third


def test_a_complete_run_is_returned_at_once(folder, atlas):
    before = (atlas.run / "atlas.json").stat().st_mtime_ns
    ha.mine(ha.load(str(folder)), n=6, out=atlas.run)
    assert (atlas.run / "atlas.json").stat().st_mtime_ns == before


def test_sql_over_runs(atlas: Atlas):
    rows = atlas.query("SELECT detector, count(*) AS heads FROM scores GROUP BY 1 ORDER BY 1")
    assert rows[0] == {"detector": "accuracy", "heads": 8}
    mean = atlas.query(
        "SELECT avg(score) AS m FROM examples WHERE detector = ? AND layer = 1 AND head = 2", "induction"
    )[0]["m"]
    assert mean == pytest.approx(atlas.detectors("induction")[0]["scores"][1][2], abs=1e-5)
    with pytest.raises(BadInput, match="query failed"):
        atlas.query("SELECT nothing FROM nowhere")


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


def test_sweeps_lie_beside_runs_and_are_asked_together(tmp_path: Path):
    from headatlas.methods.sweeps.ablation import ablate
    from headatlas.task import find_task

    model = toys.model("gqa")
    task = find_task("repeated")
    found = ablate(model, task(model.tokenizer, 4, seed=0), metric=task.metric, out=tmp_path / "atlas" / "sweep")
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
