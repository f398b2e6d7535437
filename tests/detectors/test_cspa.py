"""Copy suppression-preserving ablation: against loops over plain weights, and on a planted suppressor."""

import math

import numpy as np
import pytest
import torch

from headatlas.detectors import cspa as module
from headatlas.detectors.cspa import LEADING, cspa
from headatlas.lab.planting import find_planting
from headatlas.model import attach
from headatlas.model.runs.shared_pass import alone
from headatlas.task import Batch
from tests import toys


def test_divergences_are_those_of_plain_weights(monkeypatch):
    hf = toys.llama(vocab_size=60, num_hidden_layers=2)
    model = attach(toys.llama(vocab_size=60, num_hidden_layers=2))
    tokens = torch.randint(1, 60, (2, 24), generator=torch.Generator().manual_seed(0))
    predict = torch.arange(4, 23).expand(2, -1)
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": predict})
    asked = [model.heads[1], model.heads[-1]]
    kept, handles = {}, []
    for i, block in enumerate(hf.model.layers):
        handles.append(
            block.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: kept.update({("z", i): args[0]}))
        )
        handles.append(
            block.self_attn.v_proj.register_forward_hook(lambda _, __, out, i=i: kept.update({("v", i): out}))
        )
        handles.append(block.register_forward_pre_hook(lambda _, args, i=i: kept.update({("in", i): args[0]})))
    handles.append(hf.model.norm.register_forward_hook(lambda _, args, __: kept.update({"end": args[0]})))
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = hf(tokens, output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    config, d = hf.config, hf.config.head_dim
    group = config.num_attention_heads // config.num_key_value_heads
    places = predict[0][np.linspace(0, predict.shape[1] - 1, module.PLACES).astype(int)].tolist()
    read_out = hf.lm_head.weight * hf.model.norm.weight  # [token, d_model]
    mean_z = {}
    expected = torch.zeros(2, len(asked), 3, dtype=torch.float64)
    with torch.no_grad():
        for n, head in enumerate(asked):
            z = kept["z", head.layer][..., head.head * d : (head.head + 1) * d]
            mean = z.flatten(0, 1).mean(0)
            mean_z.setdefault(("decoder", head.layer), torch.zeros(config.num_attention_heads, d))[head.head] = mean
            out = hf.model.layers[head.layer].self_attn.o_proj.weight[:, head.head * d : (head.head + 1) * d]
            v = kept["v", head.layer][..., head.head // group * d : (head.head // group + 1) * d]
            for e in range(2):
                for at in places:
                    entry = kept["in", head.layer][e, at]
                    normed = entry / entry.pow(2).mean().add(config.rms_norm_eps).sqrt()
                    end = kept["end"][e, at]
                    clean = hf.lm_head(hf.model.norm(end)).log_softmax(-1)
                    for kind, shift in ((0, None), (1, 0), (2, 12)):
                        write = out @ (mean - z[e, at])
                        if shift is not None:
                            said = tokens[e].roll(shift)
                            seen = said[: at + 1]
                            order = (read_out[seen] @ normed).argsort(descending=True)
                            for s in order[: math.ceil(LEADING * (at + 1))].tolist():
                                unit = read_out[said[s]] / read_out[said[s]].norm()
                                lowered = min(0.0, float((out @ (v[e, s] - mean)) @ unit))
                                write = write + float(patterns[head.layer][e, head.head, at, s]) * lowered * unit
                        changed = hf.lm_head(hf.model.norm(end + write)).log_softmax(-1)
                        expected[e, n, kind] += float((clean.exp() * (clean - changed)).sum()) / len(places)
    rider = module._Suppression(model, batch, asked)
    alone(model, [batch], rider)
    found = module._divergences(model, rider.seen[0], asked, mean_z)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-7)
    monkeypatch.setattr(module, "_suppressing", lambda *_: asked)
    scored = cspa.measure(model, batch)
    whole = expected[..., 0].mean(0)
    columns = [model.heads.index(head) for head in asked]
    share = (expected[..., 0] - expected[..., 1]) / whole
    np.testing.assert_allclose(scored.values[:, columns], share, rtol=2e-2, atol=1e-3)
    others = [i for i in range(len(model.heads)) if i not in columns]
    assert bool((scored.values[:, others] == 0).all())


@pytest.mark.slow
def test_a_suppressor_is_explained_by_suppression_and_one_of_repeats_is_not():
    made = find_planting("cspa").make(0)
    found = cspa.measure(made.model, cspa.task(made.model.tokenizer, 12, 0))
    shares = dict(zip(made.model.heads, (found.values - found.control).mean(0).tolist(), strict=True))
    assert min(shares[head] for head in made.positives) > 0.8
    assert max(share for head, share in shares.items() if head not in made.positives) < cspa.minimum_effect
