"""Detectors that need the whole model go through the same mill as those of one layer; probes of own answers and relation indices by plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.detector import Measured, ModelDetector, find_detector, model_detector
from headatlas.detectors._measures import relation_index
from headatlas.detectors._measures.own_answers import chosen, probed
from headatlas.detectors.faithfulness import _untold
from headatlas.errors import UnsupportedModel
from headatlas.methods import probing
from headatlas.methods.labels import Labels
from headatlas.methods.probing import CrossValidation, probe
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import Batch, find_task
from headatlas.tasks.repeated import repeated
from tests import toys


def _first_head(model, batch) -> Measured:
    """Made up: 1 for the first head of the first layer, 0 for others.

    Formula: none. Chance: 0.
    """
    values = torch.zeros(len(batch), len(model.heads))
    values[:, 0] = 1.0
    return Measured(values, torch.zeros_like(values))


def made(**options) -> ModelDetector:
    return model_detector(head_type="induction-head", task=repeated, version=1, minimum_effect=0.5, **options)(
        _first_head
    )


def test_a_model_detector_is_scored_beside_layer_detectors():
    model = toys.model("gqa")
    batch = repeated(model.tokenizer, 8, seed=0)
    detector = made()
    assert (detector.name, detector.encoder, detector.about["chance"]) == ("first-head", False, "0.")
    found = scan(model, [detector], batch).scores["first-head"]
    assert [line.head for line in found.observed(detector.minimum_effect)] == [model.heads[0]]


def test_removal_at_named_positions_leaves_the_others_alone():
    model = toys.model("mha")
    batch = repeated(model.tokenizer, 4, seed=0)
    found = scan(model, [], batch, metric=repeated.metric)
    heads = model.heads[:2]
    nowhere = torch.full((len(batch), 1), -1)
    everywhere = torch.arange(batch.tokens.shape[1]).expand(len(batch), -1)
    effects = [
        ablated(model, batch, repeated.metric, found.mean_z, where).metric_drop(heads)
        for where in (None, everywhere, nowhere, everywhere[:, :4])
    ]
    np.testing.assert_allclose(effects[0], effects[1], atol=1e-5)
    np.testing.assert_allclose(effects[2], 0.0, atol=1e-6)
    assert np.abs(effects[0] - effects[3]).max() > 1e-4


def test_a_detector_that_a_model_cannot_be_asked_is_skipped_with_the_reason(monkeypatch, tmp_path):
    def refusing(model, batch) -> Measured:
        raise UnsupportedModel("Its blocks cannot be taken apart.", "Ask another model.")

    asked = made()
    monkeypatch.setattr("headatlas.mining.planning.detectors", lambda: {asked.name: replace(asked, measure=refusing)})
    atlas = ha.mine(toys.model("gqa"), n=4, out=tmp_path / "run")
    assert atlas.data["detectors"] == []
    assert atlas.data["skipped"] == [
        {"detector": "first-head", "reason": "Its blocks cannot be taken apart. Ask another model."}
    ]


@pytest.fixture(scope="module")
def reader():
    return attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary().within(128))


def patterns(tokens: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Eager attention [example, head, query, key] and normed inputs of each layer, of the same weights."""
    hf = toys.llama(vocab_size=49152)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = hf(tokens, output_attentions=True, output_hidden_states=True)
    return list(found.attentions), [
        layer.input_layernorm(x) for layer, x in zip(hf.model.layers, found.hidden_states, strict=False)
    ]


def test_the_chosen_answer_is_that_of_the_highest_logit_in_a_plain_run():
    hf = toys.llama(vocab_size=49152)
    batch = find_task("cross-lingual")(toys.smollm2_vocabulary().within(128), 6, 0)
    found = chosen(attach(hf), batch)
    for row in range(len(batch)):
        length = int(batch.mask[row].sum())
        with torch.no_grad():
            logits = hf(batch.tokens[row : row + 1, :length]).logits[0, -1]
        options = torch.cat([batch.answer[row].reshape(-1), batch.wrong[row].reshape(-1)])
        assert int(found[row]) == int(logits[options].argmax())


def prompts_of(n: int) -> tuple[Batch, torch.Tensor]:
    """Texts whose last token is one of two: which of them, and with it nine times of ten the label."""
    kind = torch.arange(n) % 2
    tokens = torch.randint(20, 100, (n, 6), generator=torch.Generator().manual_seed(0))
    tokens[:, -1] = 5 + kind
    label = kind.clone()
    label[::10] = 1 - label[::10]
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)), label


def test_what_gives_the_label_away_without_being_it_is_part_of_chance():
    batch, label = prompts_of(120)
    model = toys.model("gqa")
    group, kind = torch.arange(120) // 2, batch.tokens[:, -1] - 5
    free = probed(model, batch, label, group, torch.zeros(120))
    within = probed(model, batch, label, group, kind)
    torch.testing.assert_close(free.values, within.values)
    best = free.values.mean(0).argmax()
    assert float(free.values.mean(0)[best]) > 0.7
    assert float(free.control.mean(0)[best]) < 0.6
    assert abs(float((within.values - within.control).mean(0)[best])) < 0.1


def test_labels_change_places_within_their_number_only(monkeypatch):
    batch, label = prompts_of(60)
    y, within = label.numpy(), np.arange(60) // 20
    labels = Labels(y, np.arange(60), ("no", "yes"), within)
    seen = []
    fit = probing.right_on_others

    def keep(kind, x, runs, splits, seed):
        seen.extend(runs)
        return fit(kind, x, runs, splits, seed)

    monkeypatch.setattr(probing, "right_on_others", keep)
    probe(toys.model("gqa"), batch, labels, heads=["0.0"], validation=CrossValidation(shuffles=3, test=0))
    own, *shuffled = seen
    assert np.array_equal(own, y)
    assert len(shuffled) == 3
    for run in shuffled:
        assert not np.array_equal(run, y)
        for number in range(3):
            assert run[within == number].sum() == y[within == number].sum()


def test_a_model_that_is_always_alike_says_nothing():
    batch, label = prompts_of(60)
    found = probed(toys.model("gqa"), batch, torch.ones_like(label), torch.arange(60), torch.zeros(60))
    assert bool(found.values.isnan().all())
    assert found.values.shape == (60, len(toys.model("gqa").heads))


@pytest.mark.parametrize("task", ["semantic-relations", "semantic-dependencies"])
@torch.no_grad()
def test_relation_indices_are_those_of_plain_weights(reader, monkeypatch, task):
    monkeypatch.setattr(relation_index, "LEAST", 1 / 15)  # about what an untrained head gives each key
    batch = find_task(task)(reader.tokenizer, 6, 0)
    found = find_detector("semantic-induction").measure(reader, batch)
    maps, inputs = patterns(batch.tokens)
    hf = reader.hf
    size = hf.config.head_dim
    groups = hf.config.num_attention_heads // hf.config.num_key_value_heads
    seen = 0
    for i, head in enumerate(reader.heads):
        block = hf.model.layers[head.layer].self_attn
        for row in range(len(batch)):
            key = int(batch.positions["head_last"][row])
            length = int(batch.mask[row].sum())
            group = head.head // groups
            v = block.v_proj.weight[group * size : (group + 1) * size] @ inputs[head.layer][row, key]
            write = block.o_proj.weight[:, head.head * size : (head.head + 1) * size] @ v
            ids = sorted(set(batch.tokens[row, :length].tolist()))
            logits = {one: float(hf.lm_head.weight[one] @ (hf.model.norm.weight * write)) for one in ids}
            mean = sum(logits.values()) / len(logits)
            raised = {one: max(0.0, value - mean) for one, value in logits.items()}
            looked = float(maps[head.layer][row, head.head, key + 1 : length, key].max()) >= relation_index.LEAST
            share = {one: value / sum(raised.values()) * looked for one, value in raised.items()}
            seen += looked
            tail, others = batch.positions["tail"][row], [p for p in batch.positions["other"][row].tolist() if p >= 0]
            assert float(found.values[row, i]) == pytest.approx(share[int(batch.tokens[row, tail])], abs=1e-4)
            wanted = sum(share[int(batch.tokens[row, p])] for p in others) / len(others)
            assert float(found.control[row, i]) == pytest.approx(wanted, abs=1e-4)
    assert 0 < seen < len(reader.heads) * len(batch)


def test_a_prompt_without_its_thought_is_the_question_and_its_end(reader):
    batch = find_task("thoughts")(reader.tokenizer, 4, 0)
    told, untold = (
        [reader.tokenizer.decode(row[mask].tolist()) for row, mask in zip(part.tokens, part.mask, strict=True)]
        for part in (batch, _untold(batch))
    )
    for one, other in zip(told, untold, strict=True):
        front, rest = one.split("\nThought:")
        assert other == front + rest[rest.index("\nSo") :]
