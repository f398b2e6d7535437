"""What encoder-decoders are measured by: span corruption, their own greedy output, pairs; each beside the plain model's own loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.edits import Zero
from headatlas.errors import BadInput, UnfitTask
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import metric_on, prepared
from headatlas.methods.measured_by.own_output import MOST
from headatlas.methods.measured_by.spans import corrupted
from headatlas.methods.sweeps.plan import metric_of
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.own import task_of
from headatlas.mining.scan import scan, scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import attach
from headatlas.model.text.reading import text_batch
from headatlas.own_prompts.control import disordered
from headatlas.progress import Silent
from headatlas.store import read_json
from headatlas.task import Batch, find_task
from headatlas.task.answers import log_probability
from headatlas.task.encoders import own_output_loss, span_corruption_loss
from tests.methods.measured_by.two_stacks import SENTINELS, build, switched_off

PROSE = find_task("prose")
HEADS = [HeadId(1, 2, stack) for stack in ("encoder", "decoder", "cross")]
IDLE = [HeadId(1, 1, stack) for stack in ("encoder", "decoder", "cross")]
PAIRS = [
    {"prompt": "the lion went to the store", "answer": "the dog walked off"},
    {"prompt": "the mouse gave a ring", "answer": "the cat had a book"},
    {"prompt": "the horse went to the old house", "answer": "lion"},
]


def rows(tokens, mask):
    return [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]


def test_spans_become_sentinels_as_the_paper_draws_it(t5):
    batch = text_batch(["the lion gave a ring to the mouse"], t5.model.tokenizer)
    found = corrupted(batch, t5.model.tokenizer, torch.tensor([[8, 2, 3, -1]]))
    read, written = (
        t5.words.convert_ids_to_tokens(one)
        for one in (found.encoder.tokens[0].tolist(), found.labels["written"][0].tolist())
    )
    assert read == ["the", "<extra_id_0>", "a", "ring", "to", "the", "<extra_id_1>", "</s>"]
    assert written == ["<extra_id_0>", "lion", "gave", "<extra_id_1>", "mouse", "<extra_id_2>", "</s>"]
    assert found.tokens[0].tolist() == [0, *found.labels["written"][0].tolist()[:-1]], "the decoder reads them shifted"
    told = found.positions["masked"][0].tolist()
    assert [written[place] if place >= 0 else None for place in told] == ["mouse", "lion", "gave", None]
    assert t5.words.convert_ids_to_tokens(found.labels["masked"][0, :3].tolist()) == ["mouse", "lion", "gave"]


def test_drawn_spans_put_the_text_together_again_and_hang_on_it_alone(t5):
    batch = PROSE(t5.model.tokenizer, 6, 1)
    found = prepared(t5.model, span_corruption_loss, batch)
    sentinel = set(t5.model.tokenizer.sentinels)
    assert len(sentinel) == SENTINELS
    for text, read, told in zip(
        rows(batch.tokens, batch.mask), rows(found.encoder.tokens, found.encoder.mask),
        rows(found.labels["written"], found.labels["written"] >= 0), strict=True,
    ):  # fmt: skip
        spans, now = {}, None
        for one in told[:-1]:
            now = one if one in sentinel else now
            spans.setdefault(now, [])
            if one not in sentinel:
                spans[now].append(one)
        whole = [one for part in read[:-1] for one in (spans[part] if part in sentinel else [part])]
        assert whole == text[1:], "the start token is the decoder's"
        gone = sum(map(len, spans.values()))
        assert gone == round(0.15 * (len(text) - 1))
        assert len(spans) - 1 == max(1, round(gone / 3))
    alone = prepared(t5.model, span_corruption_loss, batch.rows([4]))
    width = alone.labels["written"].shape[1]
    assert torch.equal(alone.labels["written"][0], found.labels["written"][4, :width])


def test_texts_without_tokens_or_sentinels_enough_are_no_task(t5):
    words = t5.model.tokenizer
    with pytest.raises(UnfitTask, match="no token"):
        corrupted(text_batch(["lion"], words), words)
    long = text_batch([" ".join(["the"] * 2 * SENTINELS)], words)
    with pytest.raises(UnfitTask, match=f"more than {SENTINELS - 1} spans"):
        corrupted(long, words, torch.arange(1, 2 * SENTINELS + 1, 2)[None])


def is_the_rise_of_its_own_loss(two, found, metric, head):
    """Assert that what removing the head costs is by how much the model's own loss rises with the head's columns of W_O zero."""
    sources = rows(found.encoder.tokens, found.encoder.mask)
    targets = rows(found.labels["written"], found.labels["written"] >= 0)
    clean = two.losses(sources, targets)
    with switched_off(two.hf, head.stack, head.layer, head.head):
        gone = np.array(two.losses(sources, targets)) - clean
    assert np.abs(gone).max() > 1e-3
    removal = SetAblation(two.model, found, metric, Zero)
    np.testing.assert_allclose(removal.metric_drop([head]), gone, atol=3e-5)


@pytest.mark.parametrize("head", [None, *HEADS], ids=str)
def test_the_span_corruption_loss_is_the_models_own(t5, head):
    found = prepared(t5.model, span_corruption_loss, PROSE(t5.model.tokenizer, 5, 2))
    assert metric_on(t5.model, PROSE) is span_corruption_loss
    sources = rows(found.encoder.tokens, found.encoder.mask)
    targets = rows(found.labels["written"], found.labels["written"] >= 0)
    clean = t5.losses(sources, targets)
    np.testing.assert_allclose(metric_of(t5.model, found, span_corruption_loss), clean, rtol=1e-5)
    if head is not None:
        is_the_rise_of_its_own_loss(t5, found, span_corruption_loss, head)


@pytest.mark.parametrize("head", [None, *HEADS], ids=str)
def test_the_loss_of_its_own_output_is_the_models_own(marian, head):
    batch = PROSE(marian.model.tokenizer, 5, 2)
    assert metric_on(marian.model, PROSE) is own_output_loss
    found = prepared(marian.model, own_output_loss, batch)
    sources = rows(found.encoder.tokens, found.encoder.mask)
    targets = rows(found.labels["written"], found.labels["written"] >= 0)
    for source, target in zip(sources, targets, strict=True):  # greedy decoding, token by token
        written = [0]
        while len(written) - 1 < len(target):
            with torch.no_grad():
                logits = marian.hf(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
        assert written[1:] == target
        assert len(target) == MOST or target[-1] == 1
    clean = marian.losses(sources, targets)
    np.testing.assert_allclose(metric_of(marian.model, found, own_output_loss), clean, rtol=1e-5, atol=1e-6)
    if head is not None:
        is_the_rise_of_its_own_loss(marian, found, own_output_loss, head)


def test_the_control_is_asked_for_the_same_output_of_another_source(marian):
    found = prepared(marian.model, own_output_loss, PROSE(marian.model.tokenizer, 4, 2))
    control = found.control
    assert torch.equal(control.labels["written"], found.labels["written"])
    assert not torch.equal(control.encoder.tokens, found.encoder.tokens)
    sources = rows(control.encoder.tokens, control.encoder.mask)
    targets = rows(control.labels["written"], control.labels["written"] >= 0)
    np.testing.assert_allclose(
        metric_of(marian.model, control, own_output_loss), marian.losses(sources, targets), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_pairs_are_scored_as_the_models_own_loss_of_the_answer(kind, request):
    one = request.getfixturevalue(kind)
    batch = ha.prompts(one.model, PAIRS)
    sources = [one.words(row["prompt"]).input_ids for row in PAIRS]
    targets = [one.words(row["answer"], add_special_tokens=False).input_ids for row in PAIRS]
    assert rows(batch.encoder.tokens, batch.encoder.mask) == sources
    clean = np.array(one.losses(sources, targets))
    lengths = np.array([len(target) for target in targets])
    head = HeadId(1, 2, "cross")
    with switched_off(one.hf, "cross", 1, 2):
        gone = np.array(one.losses(sources, targets))
    assert np.abs(gone - clean).max() > 1e-3
    loss = ha.ablate(one.model, ha.Prompts(batch=batch, metric="next-token-loss"), [head], edit="zero")
    np.testing.assert_allclose(loss.base, clean, rtol=1e-5)
    np.testing.assert_allclose(loss.effects[:, 0, 0], gone - clean, atol=3e-5)
    likely = ha.ablate(one.model, batch, [head], edit="zero")
    assert likely.facts["metric"] == "log-probability"
    np.testing.assert_allclose(likely.base, -clean * lengths, rtol=1e-5)
    np.testing.assert_allclose(likely.effects[:, 0, 0], (clean - gone) * lengths, atol=2e-4)


def test_words_of_a_pairs_source_stand_in_the_encoder_alone(t5):
    batch = ha.prompts(t5.model, [{**PAIRS[0], "spans": {"giver": "lion"}}])
    assert batch.encoder.positions["giver"].tolist() == [[1]]
    assert batch.positions["giver"].tolist() == [[-1]]
    with pytest.raises(BadInput, match="No example has a position 'giver'"):
        ha.ablate(t5.model, batch, ["decoder:0.1"], positions="giver")
    one = ha.ablate(t5.model, batch, ["encoder:0.1"], positions="giver", edit="zero")
    assert abs(one.effects[0, 0, 0]) > 1e-4


def test_patching_a_pair_puts_in_what_the_source_gives(t5):
    """A cross head at all positions: z of the clean run in the run on the other source, beside plain hooks."""
    pairs = [{**PAIRS[0], "counterfactual": "the mouse went to the house"}]
    module = t5.hf.decoder.block[1].layer[1].EncDecAttention.o
    clean, other = (t5.words(text).input_ids for text in (pairs[0]["prompt"], pairs[0]["counterfactual"]))
    target = t5.words(pairs[0]["answer"], add_special_tokens=False).input_ids
    kept = {}
    handle = module.register_forward_pre_hook(lambda _, inputs: kept.setdefault("z", inputs[0].clone()))
    before = t5.losses([clean], [target])[0]
    handle.remove()
    without = t5.losses([other], [target])[0]

    def put(_, inputs):
        z = inputs[0].clone()
        z[..., 16:24] = kept["z"][..., 16:24]
        return (z,)

    handle = module.register_forward_pre_hook(put)
    after = t5.losses([other], [target])[0]
    handle.remove()
    assert abs(after - without) > 1e-3
    found = ha.patch(t5.model, ha.prompts(t5.model, pairs), [HeadId(1, 2, "cross")])
    n = len(target)
    # The decoder reads one token more than the model's own loss does, behind all that is asked for.
    np.testing.assert_allclose(found.base, [-without * n], rtol=1e-5)
    np.testing.assert_allclose(found.other, [-before * n], rtol=1e-5)
    np.testing.assert_allclose(found.values[:, 0, 0], [-after * n], rtol=1e-5)


def test_sources_of_another_length_are_not_patched(t5):
    pairs = [{**PAIRS[0], "counterfactual": "the mouse went"}]
    with pytest.raises(BadInput, match="its counterfactual 4"):
        ha.patch(t5.model, ha.prompts(t5.model, pairs), [HeadId(1, 2, "cross")])


def test_an_answer_too_long_for_the_decoder_is_refused(t5):
    with pytest.raises(BadInput, match="the answer has"):
        ha.prompts(t5.model.tokenizer.within(8), [{"prompt": "the lion", "answer": " ".join(["lion"] * 8)}])


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_texts_without_answers_are_asked_where_the_decoder_begins(kind, request):
    opened = request.getfixturevalue(kind)
    text, head = "the lion went to the store", HeadId(1, 2, "cross")
    ids = torch.tensor([opened.words(text).input_ids])

    def first():
        with torch.no_grad():
            logits = opened.hf(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits
        return logits[0, -1].double().log_softmax(-1)

    clean = first()
    with switched_off(opened.hf, "cross", 1, 2):
        gone = first()
    kl = float((clean.exp() * (clean - gone)).sum())
    assert kl > 1e-3
    found = ha.ablate(opened.model, text, [head], edit="zero")
    np.testing.assert_allclose(found.values[0, 0, 0], kl, rtol=1e-4)
    row = next(one for one in ha.ask(opened.model, text, edit="zero", top=24).heads if one.head == head)
    assert row.kl == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize(("kind", "metric"), [("t5", span_corruption_loss), ("marian", own_output_loss)])
def test_tasks_by_name_are_measured_as_in_mining(kind, metric, request):
    one = request.getfixturevalue(kind)
    found = ha.ablate(one.model, ha.Prompts("prose", n=3, force=True), [HEADS[2]], edit="zero")
    assert found.facts["metric"] == metric.name
    batch = prepared(one.model, metric, PROSE(one.model.tokenizer, 3, 0))
    np.testing.assert_allclose(found.base, metric_of(one.model, batch, metric), rtol=1e-5)
    with pytest.raises(BadInput, match="does not do prose"):
        ha.ablate(one.model, ha.Prompts("prose", n=3), [HEADS[2]])
    with pytest.raises(BadInput, match="Give each prompt its counterfactual"):
        ha.patch(one.model, ha.Prompts("ioi", n=3, force=True))


def test_a_loss_needs_what_the_encoder_reads(t5):
    tokens = torch.randint(5, 60, (2, 6), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": torch.arange(5).expand(2, -1)})
    with pytest.raises(BadInput, match="do not say what it reads"):
        ha.ablate(t5.model, ha.Prompts(batch=batch, metric="next-token-loss"))


@pytest.mark.parametrize(("kind", "metric"), [("t5", span_corruption_loss), ("marian", own_output_loss)])
def test_heads_of_all_stacks_get_verdicts(kind, metric, request):
    """Random weights do no task, so the gate is set open; what is tested is what verdicts rest on."""
    one = request.getfixturevalue(kind).model
    detector = find_detector("local")
    found = scan_task(one, PROSE, [detector], PROSE(one.tokenizer, 4))
    assert found.baseline.metric == metric.name
    heads = (HEADS[0], HEADS[1], IDLE[0], IDLE[1])
    known = replace(found.detectors[0], observed=heads)
    found = replace(found, detectors=(known,), smallest=0.0)
    verdict = judge_task(one, PROSE, [detector], found, n=4, seed=0, progress=Silent(), examples=4)
    told = verdict.detectors["local"]
    assert told.metric == metric.name
    assert {told.heads[head].verdict for head in IDLE[:2]} == {"refuted"}, "they write nothing"
    assert all(abs(told.heads[head].alone.effect) > 1e-3 for head in HEADS[:2])


@pytest.mark.parametrize(("kind", "metric"), [("t5", span_corruption_loss), ("marian", own_output_loss)])
def test_means_are_over_what_the_metric_reads(kind, metric, request):
    one = request.getfixturevalue(kind)
    batch = PROSE(one.model.tokenizer, 3)
    found = scan(one.model, [find_detector("local")], batch, metric=metric)
    read = prepared(one.model, metric, batch)
    sums = {}
    for source, target in zip(
        rows(read.encoder.tokens, read.encoder.mask), rows(read.tokens, read.mask), strict=True
    ):  # fmt: skip

        def watch(layer):
            total, n = sums.get((layer.stack, layer.index), (0.0, 0))
            sums[layer.stack, layer.index] = total + layer.z[0].double().sum(0), n + layer.z.shape[1]

        one.model.forward(
            {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([target])}, watch=watch
        )
    assert found.mean_z.keys() == sums.keys()
    for key, (total, n) in sums.items():
        torch.testing.assert_close(found.mean_z[key].double(), total / n, rtol=1e-4, atol=1e-5)


def test_pairs_are_mined_by_their_own_metric_beside_disordered_sources(t5, tmp_path):
    nouns = ("lion", "mouse", "horse", "bird")
    pairs = [
        {"prompt": f"the {a} went to the {place}", "answer": f"the {a} walked off"}
        for a in nouns for place in ("store", "school", "house")
    ]  # fmt: skip
    batch = ha.prompts(t5.model, pairs)
    control = disordered(batch, t5.model.tokenizer)
    assert torch.equal(control.tokens, batch.tokens), "the answers stay"
    for mine, other in zip(
        rows(batch.encoder.tokens, batch.encoder.mask), rows(control.encoder.tokens, control.encoder.mask), strict=True
    ):  # fmt: skip
        assert sorted(mine) == sorted(other)
        assert other[-1] == 1
    assert not torch.equal(control.encoder.tokens, batch.encoder.tokens)
    ha.mine(t5.model, ["local"], tasks=batch, n=6, out=tmp_path / "out")
    (entry,) = read_json(tmp_path / "out" / "atlas.json")["detectors"]
    assert entry["baseline"]["metric"] == "log-probability"
    first = task_of(batch)(t5.model.tokenizer, 6)
    assert entry["baseline"]["value"] == pytest.approx(
        float(metric_of(t5.model, first, log_probability).mean()), rel=1e-5
    )
    floor = float(metric_of(t5.model, first.control, log_probability).mean())
    assert entry["baseline"]["floor"] == pytest.approx(floor, rel=1e-5)
    assert abs(floor - entry["baseline"]["value"]) > 1e-3, "another source, another loss"


def test_a_run_does_not_start_behind_the_block_that_makes_the_position_bias():
    """With scores this large the bias changes nothing of the sample that a model is tried on, and much of other texts."""
    hf = build("t5", 422, gain=8.0)
    assert not attach(hf).restarts


def test_a_model_that_names_no_start_for_its_decoder_has_no_metric():
    hf = build("t5", 422)
    assert metric_on(attach(hf), PROSE) is own_output_loss, "without a tokenizer there are no sentinels"
    hf.config.decoder_start_token_id = hf.generation_config.decoder_start_token_id = None
    assert metric_on(attach(hf), PROSE) is None
