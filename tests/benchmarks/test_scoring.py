"""The metrics that benchmarks are reported by, against what the plain model gives one text at a time."""

import itertools
import json

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.choices import METRIC, demand_metric
from headatlas.errors import BadInput, UnknownName
from headatlas.lab.head import Head
from headatlas.lab.spec import PlantSpec
from headatlas.methods.early_answering import ANSWER, THOUGHT, early_answering
from headatlas.model import attach
from headatlas.task import Batch
from headatlas.task.answers import METRICS, find_metric, mc1, mc2
from tests import toys
from tests.benchmarks.samples import SAMPLES
from tests.pages import run

WORDS = toys.smollm2_vocabulary()


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152, max_position_embeddings=512), tokenizer=WORDS)


@pytest.fixture
def questions(tmp_path) -> str:
    return f"truthfulqa={SAMPLES['truthfulqa'](tmp_path)}"


def log_probabilities(model: ha.Model, ids: list[int]) -> torch.Tensor:
    """[token, vocab] of the plain model on one text."""
    with torch.no_grad():
        return model.hf(torch.tensor([ids])).logits[0].log_softmax(-1)


def by_hand(model: ha.Model, batch: Batch) -> tuple[list[float], list[float]]:
    """MC1 and MC2 of each question, from the probability of each answer behind its question."""
    ahead, share = [], []
    for question in dict.fromkeys(batch.labels["group"].tolist()):
        rows = (batch.labels["group"] == question).nonzero().flatten().tolist()
        answers = {}
        for row in rows:
            ids = batch.tokens[row][batch.mask[row]].tolist()
            end = int(batch.positions["end"][row])
            log_p = log_probabilities(model, ids)
            answers[row] = sum(float(log_p[i, ids[i + 1]]) for i in range(end, len(ids) - 1))
        right = {row for row in rows if batch.labels["right"][row]}
        best = next(row for row in rows if batch.labels["best"][row])
        ahead.append(float(answers[best] > max(answers[row] for row in rows if row not in right)))
        total = sum(np.exp(value) for value in answers.values())
        share.append(sum(np.exp(answers[row]) for row in right) / total)
    return ahead, share


def test_mc1_and_mc2_are_those_of_the_plain_model(model: ha.Model, questions: str):
    found = ha.score(model, ha.Prompts(task=questions, n=4))
    assert [one.metric for one in found.scores] == ["MC1", "MC2"]
    first, second = by_hand(model, ha.find_task(questions)(WORDS, 4))
    assert found["mc1"].values.tolist() == first
    assert np.allclose(found["mc2"].values, second, atol=1e-5)


def test_commands_know_the_metrics_there_are():
    assert set(METRIC.values) == set(METRICS)
    for name in ("hit@3", "icl-score@2-9", *METRICS):
        demand_metric(name)
        find_metric(name)
    with pytest.raises(BadInput, match="no metric called 'hit@'"):
        demand_metric("hit@")


def test_mc2_settles_probabilities_that_underflow():
    labels = {
        "group": torch.tensor([7, 7, 3, 3, 3]),
        "right": torch.tensor([1, 0, 0, 1, 1]),
        "best": torch.tensor([1, 0, 0, 1, 0]),
    }
    batch = Batch(torch.zeros(5, 2, dtype=torch.long), torch.ones(5, 2, dtype=torch.bool), labels=labels)
    scores = np.array([-1000.0, -1001.0, -2000.0, -2001.0, -2002.0])
    assert mc1.settled(scores, batch).tolist() == [1.0, 0.0]
    e = np.exp(-1)
    assert np.allclose(mc2.settled(scores, batch), [1 / (1 + e), (e + e**2) / (1 + e + e**2)])
    unmeasured = mc1.settled(np.where(scores == -2000, np.nan, scores), batch)
    assert unmeasured[0] == 1
    assert np.isnan(unmeasured[1])


def test_ablation_settles_questions_as_the_changed_model_would(model: ha.Model, questions: str):
    given = ha.Prompts(task=questions, n=4, force=True)
    found = ha.ablate(model, given, "1.2", edit="zero", metric="mc2")
    assert found.values.shape == (4, 1, 1)
    batch = ha.find_task(questions)(WORDS, 4)
    assert np.allclose(found.base, by_hand(model, batch)[1], atol=1e-5)
    width = model.hf.config.hidden_size // model.hf.config.num_attention_heads
    weight = model.hf.model.layers[1].self_attn.o_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, 2 * width : 3 * width] = 0
    try:
        changed = by_hand(model, batch)[1]
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert np.allclose(found.values[:, 0, 0], changed, atol=1e-5)


def test_methods_that_measure_prompts_one_by_one_refuse_questions(model: ha.Model, questions: str):
    with pytest.raises(BadInput, match="MC1 is settled from all answers"):
        ha.attribute(model, ha.Prompts(task=questions, n=4, metric="mc1", force=True))
    with pytest.raises(BadInput, match="MC2 has no gradient"):
        ha.ablate(model, ha.Prompts(task=questions, n=4, metric="mc2", force=True), options=ha.SweepOptions(triage=2))
    with pytest.raises(BadInput, match="no answers marked as right or wrong"):
        ha.score(model, ha.Prompts("ioi", n=4), ["mc1"])


def test_hit_at_k_counts_tokens_above_the_best_answer(model: ha.Model):
    batch = ha.find_task("icl-capitalize")(WORDS, 8)
    for k in (1, 5, 20_000):
        found = ha.score(model, batch, [f"hit@{k}"]).scores[0]
        for row in range(8):
            ids = batch.tokens[row][batch.mask[row]].tolist()
            top = log_probabilities(model, ids)[-1].topk(k).indices.tolist()
            assert found.values[row] == (int(batch.answer[row].reshape(-1)[0]) in top)
    with pytest.raises(BadInput, match="hit@0"):
        find_metric("hit@0")
    with pytest.raises(UnknownName):
        find_metric("hit@many")


def test_the_in_context_learning_score_is_a_difference_of_two_losses(model: ha.Model):
    batch = ha.find_task("prose")(WORDS, 3)
    found = ha.score(model, batch, ["icl-score@5-100"]).scores[0]
    for row in range(3):
        ids = batch.tokens[row].tolist()
        log_p = log_probabilities(model, ids)
        assert found.values[row] == pytest.approx(float(-log_p[98, ids[99]] + log_p[3, ids[4]]), abs=1e-4)
    padded = ha.score(model, batch.padded(left=2), ["icl-score@5-100"]).scores[0]
    assert np.allclose(padded.values, found.values, atol=1e-4)
    with pytest.raises(BadInput, match="Example 1 has 128 tokens"):
        ha.score(model, batch, ["icl-score"])


def test_the_score_is_negative_where_a_planted_induction_head_copies(tmp_path):
    folder = ha.plant(PlantSpec((Head(0, 0, "previous"), Head(1, 0, "induction")))).save(tmp_path / "planted")
    planted = ha.load(str(folder))
    batch = ha.find_task("repeated")(planted.tokenizer, 8)
    metric = f"icl-score@10-{batch.tokens.shape[1]}"
    kept = ha.score(planted, batch, [metric], without="1.0").scores[0]
    assert kept.values.mean() < -1
    assert kept.data["change_low"] > 0  # and it is that head


def test_early_answering_is_what_the_plain_model_does_by_hand(model: ha.Model):
    batch = ha.find_task("mcqa-2")(WORDS, 3)
    found = early_answering(model, batch, tokens=8, steps=4)
    for row in range(3):
        prompt = batch.tokens[row][batch.mask[row]].tolist() + WORDS.encode(THOUGHT)
        whole = list(prompt)
        for _ in range(8):
            whole.append(int(log_probabilities(model, whole)[-1].argmax()))
        thought = whole[len(prompt) :]
        assert model.hf.generation_config.eos_token_id not in thought
        options = [int(batch.answer[row].reshape(-1)[0]), *batch.wrong[row].reshape(-1).tolist()]
        choices = [
            max(
                options,
                key=lambda one, k=k: float(
                    log_probabilities(model, prompt + thought[:k] + WORDS.encode(ANSWER))[-1, one]
                ),
            )
            for k in (0, 2, 4, 6, 8)
        ]
        same = [float(one == choices[-1]) for one in choices]
        assert found[row] == pytest.approx(1 - sum((a + b) / 8 for a, b in itertools.pairwise(same)))


def test_early_answering_needs_options_and_room(model: ha.Model):
    with pytest.raises(BadInput, match="no right and wrong answers"):
        early_answering(model, ha.prompts(WORDS, ["Once upon a time"]))
    with pytest.raises(BadInput, match="leaves no room"):
        early_answering(model, ha.find_task("mcqa-2")(WORDS, 1), tokens=9000)


def test_the_command_prints_scores_and_what_heads_change(
    model: ha.Model, questions: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ha, "load", lambda *_, **__: model, raising=False)
    code, out, _ = run(
        capsys,
        "score",
        "smollm2-135m",
        "--task",
        questions,
        "--n",
        "4",
        "--metric",
        "mc2",
        "--without",
        "0.1",
        "--json",
    )
    assert code == 0
    (one,) = json.loads(out)["scores"]
    batch = ha.find_task(questions)(WORDS, 4)
    assert one["value"] == pytest.approx(np.mean(by_hand(model, batch)[1]), abs=1e-5)
    assert one["change"] != 0
    code, out, _ = run(capsys, "score", "smollm2-135m", "--task", questions, "--n", "4")
    assert out.splitlines()[0].startswith("MC1: ")
    assert run(capsys, "score", "smollm2-135m", "--task", "ioi", "--metric", "mc3")[0] == 1


def test_format_asks_whether_any_of_the_answers_would_be_written():
    from headatlas.task.answers import find_metric

    batch = Batch(
        torch.zeros(3, 2, dtype=torch.long), torch.ones(3, 2, dtype=torch.bool), {"end": torch.tensor([1, 1, 1])},
        labels={"answer": torch.tensor([4, 4, 4]), "wrong": torch.tensor([[5, -1], [5, 6], [5, 6]])},
    )  # fmt: skip
    logits = torch.nn.functional.one_hot(torch.tensor([4, 6, 8]), 9).float()[:, None]
    assert find_metric("format").score(logits, batch).tolist() == [1.0, 1.0, 0.0]
    logits[0, 0, -1] = 2.0
    assert find_metric("format").score(logits, batch).tolist() == [0.0, 1.0, 0.0], "no answer -1 is the last token"
