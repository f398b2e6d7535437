"""Filter heads: scores by plain hooks, and where there is nothing to find."""

import numpy as np
import torch

from headatlas.detector import find_detector
from headatlas.detectors._measures.name_movers import effect_unit
from headatlas.lab.planting import find_planting
from headatlas.model import attach
from headatlas.task import find_task, logit_difference
from tests import toys


def test_scores_are_those_of_plain_hooks():
    """Rotary angles are put on after q_proj, so that the same position takes the query as the projection gives it."""
    made = find_planting("filter").make(2)
    model, hf = made.model, made.model.hf
    batch = find_task("filter-list")(model.tokenizer, 8, 0)
    found = find_detector("filter").measure(model, batch)
    width = hf.config.head_dim

    def run(tokens, put=None):
        """(last logits, queries of each layer [head * width]) of a prompt; put: (head, its query) at the end."""
        seen, handles = [], []
        for number, layer in enumerate(hf.model.layers):

            def watch(module, inputs, output, number=number):
                seen.append(output[0, -1].clone())
                if put is not None and put[0].layer == number:
                    output = output.clone()
                    output[0, -1, put[0].head * width : (put[0].head + 1) * width] = put[1]
                    return output
                return None

            handles.append(layer.self_attn.q_proj.register_forward_hook(watch))
        with torch.no_grad():
            logits = hf(tokens[None]).logits[0, -1]
        for handle in handles:
            handle.remove()
        return logits, seen

    def beyond(logits, ids, e):
        """Logit of the first id minus the mean of the others'."""
        return float(logits[ids[0]] - logits[ids[1:]].mean())

    rows = [batch.tokens[e][batch.mask[e]] for e in range(8)]
    turned = [torch.cat([batch.wrong[e, :1], batch.answer[e : e + 1], batch.wrong[e, 1:]]) for e in range(8)]
    own = [torch.cat([batch.answer[e : e + 1], batch.wrong[e]]) for e in range(8)]
    clean = [run(row)[0] for row in rows]
    unit = np.mean([beyond(clean[e], own[e], e) - beyond(clean[e], turned[e], e) for e in range(8)])
    for source, values in ((batch.counterfactual, found.values), (batch.control, found.control)):
        moved = np.zeros((8, len(model.heads)))
        for e in range(8):
            queries = run(source.tokens[e][source.mask[e]])[1]
            for i, head in enumerate(model.heads):
                query = queries[head.layer][head.head * width : (head.head + 1) * width]
                moved[e, i] = beyond(run(rows[e], (head, query))[0], turned[e], e) - beyond(clean[e], turned[e], e)
        if source is batch.control:  # chance, without what is below zero on average
            moved -= np.minimum(moved.mean(0), 0)
        np.testing.assert_allclose(values, moved / unit, atol=1e-4)
    positive = model.heads.index(next(iter(made.positives)))
    assert float(found.values[:, positive].mean()) > 0.9
    assert float(found.control[:, positive].mean()) < 0.5


def test_nothing_is_defined_where_the_model_does_not_do_the_task():
    words = toys.smollm2_vocabulary().within(256)
    model = attach(toys.llama(vocab_size=49152), tokenizer=words)
    batch = find_task("filter-list")(words, 10, 0)
    with torch.no_grad():
        logits = model.forward(batch, logit_positions=batch.positions["end"].reshape(-1, 1))
    assert np.isnan(effect_unit(logit_difference.score(logits, batch).double().numpy()))
    assert bool(find_detector("filter").measure(model, batch).values.isnan().all())
