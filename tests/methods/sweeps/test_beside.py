"""Runs that are begun where they stop being like another changed run, against one whole edited run each."""

import numpy as np
import pytest

import headatlas as ha
from headatlas.edits import Zero
from headatlas.errors import BadInput
from headatlas.methods.sweeps.cached_runs import Beside, CachedRuns
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from tests.methods.sweeps.test_replay import brute, metric_for, prompts


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom", "bert", "t5"])
@pytest.mark.parametrize("where", ["all", "end", "within"])
def test_sets_beside_another_are_measured_as_whole_runs_are(name: str, where: str):
    model, batch = attach(FAMILIES[name].build()), prompts()
    metric = metric_for(model)
    end = None if where == "all" else batch.positions["end"][:, None]

    def change(heads):
        return Zero(heads, positions=end)

    removal = SetAblation(model, batch, metric, change, end if where == "within" else None)
    removed = frozenset(model.heads[1::2])
    sets = [removed - {head} for head in sorted(removed)] + [removed | {head} for head in model.heads[::2]]
    forwards = removal._replay.forwards
    removal.prepare(sets, beside=removed)
    cost = removal._replay.forwards - forwards
    runs = [[change(sorted(one))] for one in sets]
    expected = metric.worse(brute(model, batch, metric, runs) - removal.clean)
    found = np.stack([removal.metric_drop(one) for one in sets])
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-5)
    assert np.ptp(expected, axis=0).min() > 0, "the sets changed nothing"
    if len(model.stacks) == 1 and where == "all":
        assert cost < 0.8 * len(sets), (
            "each of these changes the first layer, and whole runs would be that many forwards"
        )


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


def test_runs_with_no_start_in_common_are_refused(toy):
    batch = prompts()
    replay, end = CachedRuns(toy, batch, logit_difference), batch.positions["end"][:, None]
    with pytest.raises(BadInput, match="no start in common"):
        replay.measure([[Zero(["0.1"], positions=end)]], beside=Beside([Zero(["0.0"])], [[Zero(["0.1"])]]))
