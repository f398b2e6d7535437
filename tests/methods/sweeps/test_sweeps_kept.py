"""Results of sweeps as files: kept, read back, gone on with after an interruption, and named where they are damaged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import headatlas as ha
from headatlas.errors import StoreError
from headatlas.methods.options import RunOptions
from headatlas.methods.sweeps import effects_io
from headatlas.methods.sweeps.ablation import ablate
from headatlas.methods.sweeps.activation_patching import patch
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


def same(first: HeadEffects, second: HeadEffects) -> None:
    assert (first.kind, first.head_sets, first.positions) == (second.kind, second.head_sets, second.positions)
    for name in ("values", "base", "other", "estimate"):
        mine, theirs = getattr(first, name), getattr(second, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs)


def test_results_are_kept_and_read_back(toy, tmp_path):
    batch = prompts(3)
    found = patch(toy, batch, positions="middle", triage=4, options=RunOptions(out=tmp_path / "run"))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "run.json",
        "effects.json",
        "effects.parquet",
        "examples.parquet",
    }
    same(effects_io.load(tmp_path / "run"), found)
    data = json.loads((tmp_path / "run" / "effects.json").read_text())
    assert data["schema"] == "headatlas/effects/1"
    assert (data["measured"], data["unmeasured"], len(data["effects"])) == (4, 8, 12)
    assert {"model", "sha256", "dtype", "metric", "prompts", "id", "forwards", "seconds"} <= set(data["run"])
    rows = pq.read_table(tmp_path / "run" / "effects.parquet").to_pylist()
    assert rows[0]["effect"] == pytest.approx(found.top(1)[0].effect)
    assert pq.read_table(tmp_path / "run" / "examples.parquet").num_rows == 36
    before = (tmp_path / "run" / "effects.json").stat().st_mtime_ns
    same(patch(toy, batch, positions="middle", triage=4, options=RunOptions(out=tmp_path / "run")), found)
    assert (tmp_path / "run" / "effects.json").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match="holds another run"):
        patch(toy, batch, positions="end", options=RunOptions(out=tmp_path / "run"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds no effects"):
        patch(toy, batch, options=RunOptions(out=tmp_path / "other"))


def test_an_interrupted_sweep_goes_on(toy, tmp_path):
    batch, seen = prompts(3), []

    def stop(done: int) -> None:
        seen.append(done)
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(
            toy,
            batch,
            edit="zero",
            options=RunOptions(out=tmp_path / "run"),
            progress=Recorder(stop),
        )
    assert not (tmp_path / "run").exists()
    pieces = {path.name for path in (tmp_path / "run.partial").iterdir()}
    assert {"run.json", "0-3.base.npy", "0-3.decoder-0.npy"} <= pieces
    whole, again = (
        ablate(toy, batch, edit="zero"),
        ablate(toy, batch, edit="zero", options=RunOptions(out=tmp_path / "run")),
    )
    np.testing.assert_allclose(again.values, whole.values, atol=1e-6)
    assert again.facts["forwards"] < whole.facts["forwards"]
    assert not (tmp_path / "run.partial").exists()


def test_a_killed_process_leaves_what_it_had_done(tmp_path):
    script = f"""
import time
from headatlas.methods.options import RunOptions
from headatlas.methods.sweeps.ablation import ablate, reference_of
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder
ablate(attach(FAMILIES["llama"].build()), prompts(3), edit="zero", options=RunOptions(out={str(tmp_path / "run")!r}),
       progress=Recorder(lambda done: time.sleep(0.4)))
"""
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", script], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (tmp_path / "run.partial" / "0-3.decoder-0.npy").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    toy = attach(FAMILIES["llama"].build())
    found = ablate(toy, prompts(3), edit="zero", options=RunOptions(out=tmp_path / "run"))
    np.testing.assert_allclose(found.values, ablate(toy, prompts(3), edit="zero").values, atol=1e-6)


def test_damage_is_named(toy, tmp_path):
    batch = prompts(3)
    ablate(toy, batch, edit="zero", options=RunOptions(out=tmp_path / "run"))
    (tmp_path / "run" / "examples.parquet").write_bytes(b"no")
    with pytest.raises(StoreError, match=r"examples\.parquet is damaged"):
        effects_io.load(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        ablate(toy, batch, edit="zero", options=RunOptions(out=tmp_path / "run"))
