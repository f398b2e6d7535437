"""Subject, relation, mixed, memory and context heads: against plain sums, on made-up numbers, and where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from headatlas.detector import find_detector
from headatlas.detectors._measures.fact_recall import Recall, among_relations, recall, unrelated_prompt
from headatlas.detectors._measures.knowledge_conflict import about_others, conflict_effects
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.ops.memo import asked_together
from headatlas.task import find_task, logit_difference
from tests import toys

NAMES = ("subject", "relation", "mixed", "memory", "context")


@pytest.fixture(scope="module")
def hf():
    return toys.llama(vocab_size=49152, num_hidden_layers=2)


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152, num_hidden_layers=2))  # the same weights, in a model of its own


def batch_of(name, n=8):
    return find_task(name)(toys.smollm2_vocabulary(), n, 0)


def literal(hf, batch, ids, weights):
    """[example, head, key] each head's write at the end along ids, by source token: plain eager attention and hooks."""
    kept, handles = {}, []
    for i, block in enumerate(hf.model.layers):
        handles.append(block.self_attn.v_proj.register_forward_hook(lambda _, __, out, i=i: kept.update({i: out})))
    handles.append(hf.model.norm.register_forward_hook(lambda _, args, __: kept.update({"end": args[0]})))
    config = hf.config
    d, size = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    found = torch.zeros(len(batch), config.num_hidden_layers * config.num_attention_heads, batch.tokens.shape[1])
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        out = hf(batch.tokens, attention_mask=batch.mask.long(), output_attentions=True)
        for e in range(len(batch)):
            end = int(batch.positions["end"][e])
            scale = kept["end"][e, end].pow(2).mean().add(config.rms_norm_eps).rsqrt()
            direction = (hf.lm_head.weight[ids[e]] * weights[:, None]).sum(0) * hf.model.norm.weight * scale
            for i, block in enumerate(hf.model.layers):
                for h in range(config.num_attention_heads):
                    v = kept[i][e, :, (h // size) * d : (h // size + 1) * d]
                    out_weight = block.self_attn.o_proj.weight[:, h * d : (h + 1) * d]
                    row = out.attentions[i][e, h, end]
                    found[e, i * config.num_attention_heads + h] = row * (v @ out_weight.T @ direction)
        logits = out.logits[torch.arange(len(batch)), batch.positions["end"]]
    for handle in handles:
        handle.remove()
    total = torch.stack([(logits[e, ids[e]] * weights).sum() for e in range(len(batch))])
    return found.numpy(), total.numpy()


def test_recall_is_the_sum_over_source_tokens_of_plain_attention(hf, model):
    batch = batch_of("facts")
    everything = torch.cat([batch.answer, batch.wrong]).unique()
    weights = torch.cat([torch.ones(1), torch.full((len(everything),), -1 / len(everything))])

    def through(answers, role):
        ids = torch.cat([answers[:, None], everything.expand(len(batch), -1)], 1)
        parts, total = literal(hf, batch, ids, weights)
        places = [[int(p) for p in row if p >= 0] for row in batch.positions[role]]
        return np.stack([parts[e][:, places[e]].sum(-1) for e in range(len(batch))]), np.abs(total).mean()

    found = recall(model, batch)
    subject, unit = through(batch.answer, "subject")
    np.testing.assert_allclose(found.subject, subject / unit, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.relation, through(batch.answer, "relation")[0] / unit, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.other_subject, through(batch.wrong, "subject")[0] / unit, rtol=1e-3, atol=1e-4)
    other = through(batch.answer[unrelated_prompt(batch)], "relation")[0] / unit
    np.testing.assert_allclose(found.other_relation, other, rtol=1e-3, atol=1e-4)
    with asked_together():
        assert recall(model, batch) is recall(model, batch), "computed once for all three detectors"


def paths_to_the_logits(hf, batch, other):
    """[example, head] logit(answer) - logit(wrong) where a head gives at the end what it gives on `other`, all others what they gave."""
    d, n_heads = hf.config.head_dim, hf.config.num_attention_heads
    blocks = [layer.self_attn.o_proj for layer in hf.model.layers]
    each, end = torch.arange(len(batch)), batch.positions["end"]

    def run(tokens, change=None):
        seen = []

        def hook(_, args):
            seen.append(args[0])
            return None if change is None else (change(len(seen) - 1),)

        handles = [block.register_forward_pre_hook(hook) for block in blocks]
        with torch.no_grad():
            logits = hf(tokens, attention_mask=batch.mask.long()).logits[each, end]
        for handle in handles:
            handle.remove()
        return seen, logits[each, batch.answer] - logits[each, batch.wrong]

    clean, base = run(batch.tokens)
    corrupted, _ = run(other.tokens)
    found = []
    for layer in range(len(blocks)):
        for head in range(n_heads):

            def change(i, layer=layer, head=head):
                z = clean[i].clone()
                if i == layer:
                    columns = slice(head * d, (head + 1) * d)
                    z[each, end, columns] = corrupted[i][each, end, columns]
                return z

            found.append(run(batch.tokens, change)[1])
    return torch.stack(found, 1).numpy(), base.numpy()


def test_sides_of_a_conflict_are_path_patching_to_the_logits(hf, model):
    batch = batch_of("knowledge-conflict", 12)
    other = about_others(batch)
    patched, base = paths_to_the_logits(hf, batch, other)
    found = conflict_effects(model, batch)
    changed = (other.tokens != batch.tokens).any(1).numpy()
    assert changed.sum() >= 6
    expected = (base[:, None] - patched)[changed] / np.abs(base[changed]).mean()
    np.testing.assert_allclose(found.claimed[changed], expected, rtol=1e-3, atol=1e-4)
    assert np.isnan(found.claimed[~changed]).all()
    scores = scan(model, [find_detector("memory"), find_detector("context")], batch).scores
    np.testing.assert_allclose(scores["memory"].values, -scores["context"].values)


def test_our_own_path_patching_orders_heads_alike(model):
    batch = batch_of("knowledge-conflict", 16)
    other = about_others(batch)
    changed = (other.tokens != batch.tokens).any(1).nonzero().flatten()
    prompts = replace(batch.rows(changed), counterfactual=other.rows(changed), control=None)
    own = path_patch(model, prompts, None, "logits", positions="end")
    agreed = spearmanr(
        (own.base[:, None] - own.values[..., 0]).mean(0), np.nanmean(conflict_effects(model, batch).claimed, 0)
    )
    assert agreed.statistic > 0.999


def test_a_conflict_about_others_differs_in_country_and_claim_alone():
    batch = batch_of("knowledge-conflict", 16)
    other = about_others(batch)
    places = torch.zeros_like(batch.mask)
    for name in ("country", "country_2", "country_3", "claim", "claim_2"):
        for e, where in enumerate(batch.positions[name]):
            places[e, where[where >= 0]] = True
    assert bool((places | (other.tokens == batch.tokens)).all())
    changed = (other.tokens != batch.tokens).any(1)
    for one in (other.answer, other.wrong):
        assert bool(((one != batch.answer) & (one != batch.wrong))[changed].all())


def test_a_side_is_ten_times_the_other():
    subject = np.tile([1.0, 0.05, 0.5, -1.0, 0.0], (4, 1))
    relation = np.tile([0.1, 0.9, 0.5, 0.02, 0.0], (4, 1))
    found = Recall(subject, relation, np.zeros((4, 5)), np.zeros((4, 5)))
    assert found.source.tolist() == ["subject", "relation", "mixed", "subject", "relation"]


def test_strangers_and_rivals_come_from_other_relations():
    batch = batch_of("facts", 12)
    relation, other = batch.labels["relation"], unrelated_prompt(batch)
    assert bool((relation[other] != relation).all())
    rivals = among_relations(batch).wrong
    for e in range(len(batch)):
        mine = {int(i) for i in rivals[e] if i >= 0}
        assert mine == {int(a) for a, r in zip(batch.answer, relation, strict=True) if r != relation[e]} - {
            int(batch.answer[e])
        }


@pytest.mark.parametrize("task", ["facts", "knowledge-conflict"])
def test_an_untrained_model_has_none(task):
    config = toys.llama(vocab_size=49152, num_hidden_layers=3).config
    for hf in (untrained(config, seed=1), weight_shuffled(untrained(config, seed=2))):
        batch = batch_of(task, 16)
        mine = [find_detector(name) for name in NAMES if find_detector(name).task.name == task]
        scores = scan(attach(hf), mine, batch).scores
        assert not {d.name for d in mine if scores[d.name].observed(d.minimum_effect)}


@pytest.mark.parametrize("name", ["relation", "memory", "context"])
def test_removal_is_mean_ablation_at_the_end(model, hf, name):
    detector = find_detector(name)
    batch = detector.task(toys.smollm2_vocabulary(), 6, 3)
    scored = among_relations(batch) if name == "relation" else batch
    head, d = model.heads[5], hf.config.head_dim
    block = hf.model.layers[head.layer].self_attn.o_proj
    each, end = torch.arange(len(batch)), batch.positions["end"]
    seen = {}

    def run(change):
        def hook(_, args):
            z = args[0].clone()
            part = z[each, end, head.head * d : (head.head + 1) * d]
            seen["mean"] = part.mean(0)
            if change:
                z[each, end, head.head * d : (head.head + 1) * d] = seen["mean"]
            return (z,)

        handle = block.register_forward_pre_hook(hook)
        with torch.no_grad():
            logits = hf(batch.tokens, attention_mask=batch.mask.long()).logits[each, end][:, None]
        handle.remove()
        return logit_difference.score(logits, scored).double().numpy()

    expected = run(False) - run(True)
    np.testing.assert_allclose(
        detector.removal(model, batch, logit_difference).metric_drop([head]), expected, atol=1e-5
    )
    assert np.abs(expected).max() > 1e-5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_facts_in_a_trained_model_and_in_its_shuffled_twin():
    import headatlas

    trained = headatlas.load("smollm2-135m")
    batch = batch_of("facts", 32)
    mine = [find_detector(name) for name in ("subject", "relation", "mixed")]
    scores = scan(trained, mine, batch).scores
    observed = {d.name: {str(line.head) for line in scores[d.name].observed(d.minimum_effect)} for d in mine}
    assert {"23.4", "23.5"} <= observed["subject"]
    assert "29.1" in observed["relation"]
    nothing = scan(attach(weight_shuffled(trained.hf), tokenizer=trained.tokenizer), mine, batch).scores
    assert not any(nothing[d.name].observed(d.minimum_effect) for d in mine)
