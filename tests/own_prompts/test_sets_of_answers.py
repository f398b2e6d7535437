"""Prompts with several right answers of several tokens: their probabilities are added, each read behind the prompt."""

import json

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.edits import Zero
from headatlas.errors import BadInput
from headatlas.model import attach
from headatlas.task.answers import first_alternatives
from tests import toys

WORDS = toys.smollm2_vocabulary()
ROWS = [
    {
        "prompt": "The capital of Burkina Faso is",
        "answer": [" Ouagadougou", " the city of Ouagadougou", " Paris"],
        "wrong": [" Tokyo", " Bobo-Dioulasso"],
        "counterfactual": "The capital of Liechtenstein is",
    },
    {
        "prompt": "As we know, the capital of Italy is",
        "answer": " Rome",
        "wrong": " Havana",
        "counterfactual": "As we know, the capital of Cuba is",
    },
]


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152), tokenizer=WORDS)


def by_hand(hf, prompts: list[str]) -> list[list[float]]:
    """Of each row the log-probability of each answer, from a run of its own over prompt and answer."""
    found = []
    for row, prompt in zip(ROWS, prompts, strict=True):
        answers = [row["answer"]] if isinstance(row["answer"], str) else row["answer"]
        mine = []
        for answer in answers:
            front, ids = WORDS.encode(prompt), WORDS.encode(answer)
            front = [*WORDS.front, *front]
            with torch.no_grad():
                said = hf(input_ids=torch.tensor([front + ids])).logits[0].float().log_softmax(-1)
            mine.append(sum(float(said[len(front) - 1 + i, one]) for i, one in enumerate(ids)))
        found.append(mine)
    return found


def expected(rows: list[list[float]], metric: str) -> list[float]:
    sizes = [
        [len(WORDS.encode(a)) for a in ([r["answer"]] if isinstance(r["answer"], str) else r["answer"])] for r in ROWS
    ]
    if metric == "mean-log-probability":
        rows = [
            [one / size for one, size in zip(row, mine, strict=True)] for row, mine in zip(rows, sizes, strict=True)
        ]
    sums = [float(np.exp(row).sum()) for row in rows]
    return sums if metric == "probability" else [float(np.log(one)) for one in sums]


@pytest.mark.parametrize("metric", ["log-probability", "mean-log-probability", "probability"])
def test_probabilities_of_a_prompts_answers_are_added(model, metric):
    batch = ha.prompts(model, ROWS)
    assert len(batch) == 4
    clean = expected(by_hand(model.hf, [row["prompt"] for row in ROWS]), metric)
    np.testing.assert_allclose(ha.score(model, batch, [metric]).scores[0].values, clean, rtol=1e-4)
    found = ha.ablate(model, batch, ["0.1", "1.0"], edit="zero", metric=metric)
    np.testing.assert_allclose(found.base, clean, rtol=1e-4)
    for i, head in enumerate(found.heads):
        with model.edited([Zero([head])]) as changed:
            wanted = expected(by_hand(changed, [row["prompt"] for row in ROWS]), metric)
        np.testing.assert_allclose(found.values[:, i, 0], wanted, rtol=1e-4)


def test_patching_counts_answers_together(model):
    batch = ha.prompts(model, ROWS)
    other = expected(by_hand(model.hf, [row["counterfactual"] for row in ROWS]), "log-probability")
    for found in (
        ha.patch(model, batch, "0.1", metric="log-probability"),
        ha.path_patch(model, ha.Prompts(batch=batch, metric="log-probability"), "0.1", "logits", direction="denoising"),
    ):
        assert found.values.shape == (2, 1, 1)
        np.testing.assert_allclose(found.base, other, rtol=1e-4)


def test_a_match_with_any_of_the_answers_counts(model):
    said = model.predict("The capital of France is", k=1)
    assert said is not None
    first = first_alternatives(ha.prompts(model, ROWS))
    best = int(model.forward(first, logit_positions=first.positions["end"].reshape(-1, 1))[0, 0].argmax())
    rows = [{"prompt": ROWS[0]["prompt"], "answer": [" Ouagadougou", WORDS.decode(best)]}]
    assert ha.score(model, ha.prompts(model, rows), ["exact-match"]).scores[0].values.tolist() == [1.0]
    rows = [{"prompt": ROWS[0]["prompt"], "answer": [" Ouagadougou", " Paris"]}]
    assert ha.score(model, ha.prompts(model, rows), ["exact-match"]).scores[0].values.tolist() == [0.0]


def test_what_is_read_at_the_end_reads_each_prompt_once(model):
    batch = ha.prompts(model, ROWS)
    single = [{**row, "answer": [WORDS.decode(int(i)) for i in ids if i >= 0], "wrong": [WORDS.decode(int(i)) for i in other if i >= 0]}
              for row, ids, other in zip(ROWS, first_alternatives(batch).answer, first_alternatives(batch).wrong, strict=True)]  # fmt: skip
    alone = ha.prompts(model, single)
    for metric in ("rank", "logit-difference", "logit-margin", "accuracy", "hit@10"):
        wanted = ha.score(model, alone, [metric]).scores[0].values
        np.testing.assert_allclose(ha.score(model, batch, [metric]).scores[0].values, wanted, atol=1e-5)
    assert len(ha.ablate(model, batch, "0.1", metric="kl", edit="zero").base) == 2
    assert len(ha.ablate(model, batch, "0.1", edit="zero").base) == 2  # the logit difference, by first tokens
    assert len(ha.downstream(model, batch, "0.1", edit="zero").before) == 2


def test_a_file_gives_the_same_and_counts_its_prompts(model, tmp_path):
    path = tmp_path / "sets.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    found = ha.ablate(model, ha.Prompts(prompts=path, metric="log-probability"), "0.1", edit="zero")
    np.testing.assert_allclose(
        found.base, ha.ablate(model, ha.prompts(model, ROWS), "0.1", edit="zero", metric="log-probability").base
    )
    assert found.facts["n"] == 2
    assert "counted together" in found.facts["answers"]
    assert len(ha.Texts(prompts=path).read(model)) == 2


def test_what_would_be_counted_wrongly_is_refused(model):
    batch = ha.prompts(model, ROWS)
    with pytest.raises(BadInput, match="settled from all answers"):
        ha.attribute(model, ha.Prompts(batch=batch, metric="log-probability"))
    with pytest.raises(BadInput, match="next-token loss is that of one continuation"):
        ha.score(model, batch, ["next-token-loss"])
    for answers in ([" Paris", " Paris, France"], [" Rome", " Rome"]):
        with pytest.raises(BadInput, match="would count twice"):
            ha.prompts(model, [{"prompt": "The capital is", "answer": answers}])
    no_wrong = [{"prompt": ROWS[0]["prompt"], "answer": ROWS[0]["answer"]}] * 8
    with pytest.raises(BadInput, match="mining measures prompts one by one"):
        ha.mine(model, tasks=[ha.prompts(model, no_wrong)])
