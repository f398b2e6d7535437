"""What the built-in models are known to show. The quick test runs by default; the whole mining runs are slow."""

from pathlib import Path

import pytest
import torch

import headatlas as ha
from headatlas.detector import LayerDetector, detectors, find_detector
from headatlas.edits import Mean
from headatlas.heads import parse_heads
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import find_task

# Those that look at layers: with their verdicts minutes, not the whole program.
LAYERED = [found.name for found in detectors().values() if isinstance(found, LayerDetector)]
FIRST = [name for name in LAYERED if find_detector(name).task.name in ("repeated", "prose", "registers")]


@pytest.fixture(scope="module")
def smollm2() -> ha.Model:
    return ha.load("smollm2-135m")


def test_smollm2_shows_its_known_heads(smollm2):
    names = ("induction", "previous-token", "duplicate-token")
    batch = find_task("repeated")(smollm2.tokenizer, 4, seed=0)
    found = scan(smollm2, [find_detector(name) for name in names], batch).scores
    best = {name: [(str(line.head), line.score) for line in found[name].top(5)] for name in names}
    assert {head for head, _ in best["induction"][:4]} <= {"18.6", "17.3", "17.4", "17.5", "18.7"}
    assert best["induction"][0][0] == "18.6"
    assert best["induction"][0][1] == pytest.approx(0.9, abs=0.1)
    assert {head for head, _ in best["previous-token"][:2]} == {"16.0", "11.1"}
    assert {head for head, _ in best["duplicate-token"][:2]} == {"14.3", "8.0"}
    by_rows = {}
    smollm2.fast = False  # the twin without the fast kernel
    try:
        smollm2.forward(
            batch.rows(slice(0, 1)),
            watch=lambda layer: by_rows.update(
                {layer.index: find_detector("induction").score(layer, batch.rows(slice(0, 1)))}
            ),
        )
    finally:
        smollm2.fast = True
    fast = found["induction"].values[0].reshape(30, 9)
    slow = torch.cat([by_rows[layer] for layer in range(30)])
    torch.testing.assert_close(slow, torch.tensor(fast, dtype=slow.dtype), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_ablating_smollm2s_induction_heads_costs_ten_times_more_than_random_ones(smollm2):
    import numpy as np

    task = find_task("repeated")
    batch = task(smollm2.tokenizer, 4, seed=11)
    found = scan(smollm2, [find_detector("induction")], task(smollm2.tokenizer, 8, seed=0))
    ablation = ablated(smollm2, batch, task.metric, found.mean_z)
    heads = parse_heads("18.6 17.3 17.4 17.5 18.7")
    free = sorted(set(smollm2.heads) - {line.head for line in found.scores["induction"].top(20)})
    rng = np.random.default_rng(0)
    random = [abs(ablation.metric_drop(matched(heads, free, rng)).mean()) for _ in range(10)]
    assert ablation.metric_drop(heads).mean() > 10 * np.median(random)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mining_smollm2(smollm2, tmp_path: Path):
    atlas = ha.mine(smollm2, FIRST, n=16, out=tmp_path / "run")
    best = atlas.top("induction-head", 4)
    assert {row["id"] for row in best[:3]} <= {"18.6", "17.3", "17.4", "17.5", "18.7"}
    induction = atlas.detectors("induction")[0]
    assert induction["group"]["effect"] > 10 * induction["group"]["random_median"]
    assert all(row["verdict"] in ("causal", "group") for row in induction["heads"][:5])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("control", ["untrained", "shuffled"])
def test_a_model_without_knowledge_has_hardly_any_heads_by_any_detector(smollm2, control: str, tmp_path: Path):
    hf = untrained(smollm2.hf.config) if control == "untrained" else weight_shuffled(smollm2.hf)
    atlas = ha.mine(attach(hf, tokenizer=smollm2.tokenizer), n=16, verdict=False, out=tmp_path / "run")
    found = {entry["name"]: len(entry["heads"]) for entry in atlas.data["detectors"]}
    assert len(found) == sum(not one.cross for one in detectors().values())
    assert sum(found.values()) < 0.01 * len(found) * len(smollm2.heads), found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["gemma3-270m", "minilm-l6"])
def test_other_built_in_models_mine_without_special_flags(name, tmp_path: Path):
    atlas = ha.mine(ha.load(name), FIRST, n=8, out=tmp_path / "run")
    found = {row["name"]: row["heads"] for row in atlas.data["detectors"]}
    assert found["previous-token"]
    if name == "minilm-l6":
        assert all(row["untested"] for row in atlas.data["detectors"])
    else:
        assert found["induction"]


def test_mean_ablation_by_the_edit_is_the_mean(smollm2):
    values = {("decoder", 18): torch.arange(9 * 64, dtype=torch.float32).reshape(9, 64)}
    seen = {}
    smollm2.forward(
        torch.tensor([[1, 500, 600]]),
        edits=[Mean("18.6", values)],
        watch=lambda layer: seen.update({layer.index: layer.z}),
    )
    assert torch.equal(seen[18][0, :, 6], values["decoder", 18][6].expand(3, -1))
