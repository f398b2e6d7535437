"""Guesses against finite differences, what is measured against patching and ablation, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

import headatlas as ha
from headatlas.edits import OnHeads, Resample, Zero, collect
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.attribution.attribute import Attribution, AttributionOptions, attribute, data_of, select
from headatlas.methods.prompts import MeasuredPrompts
from headatlas.methods.sweeps.activation_patching import patch, plan
from headatlas.methods.sweeps.gradient_estimate import estimates
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import logit_difference
from tests import pages
from tests.methods.sweeps.test_replay import prompts

KINDS = ["gpt2", "llama", "gemma2", "gemma3", "falcon", "gpt-neox"]


def opened(name: str) -> ha.Model:
    return attach(FAMILIES[name].build())


class Moved:
    """z of some heads moved by a difference."""

    component = "z"

    def __init__(self, heads, difference, size):
        self.heads, self.difference, self.size = heads, difference, size
        self.layers = frozenset((head.stack, head.layer) for head in heads)

    def __call__(self, layer, x):
        result = x.clone()
        for head in self.heads:
            result[:, :, head.head] += self.size * self.difference[:, :, head.head]
        return result


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("positions", ["all", "end", "middle"])
@pytest.mark.parametrize("component", ["q", "k"])
def test_queries_and_keys_are_followed_exactly_through_the_softmax(name: str, positions: str, component: str):
    """The slope of the metric along the change of z that patching the queries or keys really makes."""
    model, batch = opened(name), prompts(3)
    sweep = plan(model, MeasuredPrompts("", batch, logit_difference), None, "denoising", component, positions)
    found = estimates(model, sweep, 1 << 30, exact_softmax=True)[:, :, 0]
    ran, source = batch.counterfactual, batch
    values = collect(model, source, OnHeads(model.heads, component=component))
    places = None if positions == "all" else batch.positions[positions][:, None]
    for number in range(0, len(sweep.head_sets), 4):
        head_set = sweep.head_sets[number]
        seen = []

        def watch(layer, seen=seen, head_set=head_set):
            if layer.index == head_set[0].layer:
                seen.append(layer.z.clone())

        model.forward(ran, watch=watch)
        model.forward(ran, watch=watch, edits=[Resample(head_set, values, component=component, positions=places)])
        step = 1e-2
        where = logit_difference.positions(batch)
        moved = [Moved(head_set, seen[1] - seen[0], size) for size in (step, -step)]
        up, down = (logit_difference.score(model.forward(ran, edits=[m], logit_positions=where), batch) for m in moved)
        np.testing.assert_allclose(found[:, number], (up - down) / (2 * step), atol=5e-4, rtol=2e-2)


@pytest.mark.parametrize("name", ["qwen3-next", "afmoe"])
def test_a_gate_behind_the_attention_is_refused(name: str):
    with pytest.raises(UnsupportedModel, match="between the attention"):
        attribute(opened(name), prompts(3), method="atp", component="q")


def test_a_saturated_softmax_does_not_hide_queries():
    """Queries so large that the softmax is nearly hard, in the last block of a parallel model, behind which is one norm."""
    hf = FAMILIES["gptj"].build()
    with torch.no_grad():
        for layer in hf.transformer.h:
            layer.attn.q_proj.weight *= 6
    model, batch = attach(hf), prompts(3)
    last = [head for head in model.heads if head.layer == 2]
    sweep = plan(model, MeasuredPrompts("", batch, logit_difference), last, "denoising", "q", "end")
    real = patch(model, batch, last, component="q", positions="end").effects[:, :, 0]
    behind, at_queries = (
        np.abs(estimates(model, sweep, 1 << 30, exact_softmax=exact)[:, :, 0] - real).mean() for exact in (True, False)
    )
    assert behind < 0.5 * np.abs(real).mean() < 0.5 * at_queries


@pytest.mark.parametrize("component", ["z", "q", "k", "v"])
def test_all_parts_measured_equal_patching(component: str):
    model, batch = opened("llama"), prompts(3)
    found = attribute(
        model,
        batch,
        method="atp",
        component=component,
        positions="end",
        verify=3,
        options=AttributionOptions(spread=100),
    )
    real = patch(model, batch, component=component, positions="end")
    np.testing.assert_allclose(found.exact, real.effects[:, :, 0], atol=2e-5)
    assert found.parts == tuple(" ".join(map(str, head_set)) for head_set in real.head_sets)
    expected = scipy_stats.spearmanr(found.values.mean(0), real.effects[:, :, 0].mean(0)).statistic
    assert found.agreement() == pytest.approx(expected)


def test_direct_is_measured_by_silencing_at_the_end():
    model, batch = opened("gemma3"), prompts(3)
    found = attribute(model, batch, method="direct", verify=2, options=AttributionOptions(spread=4))
    base, end = metric_of(model, batch, logit_difference), batch.positions["end"][:, None]
    for i in np.flatnonzero(found.measured):
        edits = [Zero(found.parts[i], positions=end)]
        logits = model.forward(batch, edits=edits, logit_positions=logit_difference.positions(batch))
        np.testing.assert_allclose(found.exact[:, i], base - logit_difference.score(logits, batch).numpy(), atol=1e-5)
    assert int(found.measured.sum()) == 6
    assert found.facts["total"] == pytest.approx(
        found.values.sum(1).mean() + sum(found.facts["others"].values()), abs=1e-4
    )


def test_the_last_layer_alone_is_its_direct_effect_where_the_final_norm_is_held():
    """In the last block of a parallel model nothing follows a head but the final norm."""
    model, batch = opened("gptj"), prompts(3)
    last = [i for i, head in enumerate(model.heads) if head.layer == 2]
    found = attribute(model, batch, method="direct", verify=12, options=AttributionOptions(spread=0))
    rank = scipy_stats.spearmanr(found.values[:, last].ravel(), found.exact[:, last].ravel()).statistic
    assert rank > 0.9


def test_edges_measured_are_those_of_path_effects():
    model, batch = opened("llama"), prompts(2, length=10)
    for method in ("eap", "eap-ig"):
        found = attribute(model, batch, method=method, verify=3, options=AttributionOptions(spread=5))
        assert int(found.measured.sum()) == 8
        assert np.isfinite(found.agreement())
        assert found.measured[found.order[:3]].all()
    assert found.facts["steps"] == 5


def test_what_is_measured_is_spread_over_all_ranks():
    values = np.arange(100.0)[None]
    assert select(values, 2, 5).tolist() == [99, 98, 97, 73, 49, 24, 0]
    assert select(values, 0, 0).tolist() == []
    assert sorted(select(values, 3, 1000).tolist()) == list(range(100))


def test_lines_show_the_guess_and_what_was_measured():
    exact = np.full((4, 2), np.nan)
    exact[:, 1] = 1.0
    found = Attribution("atp", ("0.0", "0.1"), np.array([[1.0, -3.0]] * 4), exact)
    line, other = found.top(2)
    assert (line.part, line.estimate, line.exact, line.p) == ("0.1", -3.0, 1.0, 0.125)
    assert np.isnan(other.exact)
    assert np.isnan(found.agreement())
    data = data_of(found, 1)
    assert [part["part"] for part in data["parts"]] == ["0.1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "Unknown method"),
        ({"method": "eap", "component": "q"}, "not chosen for eap"),
        ({"method": "atp", "component": "pattern"}, "attributed at"),
        ({"method": "atp", "positions": "each"}, "one position"),
        ({"method": "atp", "positions": "nowhere"}, "no position"),
        ({"method": "eap", "direction": "up"}, "Unknown direction"),
        ({"method": "eap-ig", "options": AttributionOptions(steps=0)}, "steps"),
        ({"verify": -1}, "verify"),
    ],
)
def test_wrong_input_is_named(options: dict, message: str):
    with pytest.raises(BadInput, match=message):
        attribute(opened("llama"), prompts(2), **options)


def test_prompts_without_counterfactuals_have_direct_effects_only():
    batch = replace(prompts(2), counterfactual=None)
    assert attribute(opened("llama"), batch, options=AttributionOptions(spread=0)).values.shape == (2, 12)
    with pytest.raises(BadInput, match="counterfactual"):
        attribute(opened("llama"), batch, method="eap")


@pytest.mark.parametrize("method", ["direct", "atp"])
def test_the_command_prints_a_table_and_writes_every_part(load_gives_narrow_smollm2, method, tmp_path, capsys):
    out = tmp_path / "found.json"
    command = ["attribute", "smollm2-135m", "--task", "ioi", "--n", "2", "--method", method, "--force"]
    code, text, _ = pages.run(capsys, *command, "--verify", "2", "--out", out)
    assert code == 0
    assert "rank agreement" in text
    data = json.loads(out.read_text())
    assert data["schema"] == "headatlas/attribution/1"
    assert len(data["parts"]) == 270
    assert data["measured"] == 18
    _, text, _ = pages.run(capsys, *command, "--json", "--top", "3")
    assert len(json.loads(text)["parts"]) >= 3
    assert pages.run(capsys, "attribute", "smollm2-135m", "--task", "ioi", "--method", "magic", "--force")[0] == 1
