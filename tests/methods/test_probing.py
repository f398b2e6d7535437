"""Probes of heads: against scikit-learn by hand, with leaks looked for, and on models whose heads are known."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headatlas.cli import main
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods import probing
from headatlas.methods.classifiers import right_on_others, splits_of
from headatlas.methods.probing import CrossValidation, Labels, labels_of, outputs, probe, tokens_read
from headatlas.model import attach
from headatlas.prompts_file import read_prompts
from headatlas.task import Batch
from tests import toys


@pytest.fixture(params=["gqa", "gpt2", "window"])
def model(request):
    return toys.model(request.param)


@functools.cache
def texts(n: int = 60, seed: int = 0, only_last: bool = False) -> Batch:
    """Texts of several lengths: class 1 of tokens 10 to 15, class 0 of tokens 100 to 105 (or only the last token of them)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 10, (n,), generator=generator)
    y = torch.arange(n) % 2
    tokens = torch.randint(0, 6, (n, 9), generator=generator) + torch.where(y == 1, 10, 100)[:, None]
    if only_last:
        others = torch.randint(20, 90, (n, 9), generator=generator)
        tokens = torch.where(torch.arange(9) == lengths[:, None] - 1, tokens, others)
    mask = torch.arange(9) < lengths[:, None]
    return Batch(tokens, mask, {"end": lengths - 1}, labels={"label": y}, facts={"bos": None})


def plain_outputs(model, batch: Batch, layer: int) -> torch.Tensor:
    """z [example, pos, head x d] of a layer of the plain model, by a hook, one example at a time."""
    projection, seen = model.layers[layer].projection, []
    handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    rows = []
    with torch.no_grad():
        for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
            model.hf(tokens[mask][None])
            rows.append(torch.nn.functional.pad(seen.pop()[0], (0, 0, 0, int((~mask).sum()))))
    handle.remove()
    return torch.stack(rows)


@pytest.mark.parametrize("last", [1, 3])
def test_outputs_are_those_of_the_plain_model_at_the_last_tokens(model, last):
    batch = texts(12)
    real = plain_outputs(model, batch, 1).unflatten(-1, (4, -1))
    found = dict(outputs(model, batch, model.heads, tokens_read(batch, "end", last), memory=1))
    assert set(found) == set(model.heads)
    for e, end in enumerate(batch.positions["end"].tolist()):
        for head in range(4):
            expected = real[e, end - last + 1 : end + 1, head].mean(0)
            torch.testing.assert_close(found[HeadId(1, head)][e], expected, atol=1e-5, rtol=1e-4)


def test_short_texts_are_averaged_over_what_they_have_and_the_start_token_is_left_out():
    batch = texts(20)
    weight = tokens_read(batch, "end", 50)
    torch.testing.assert_close(weight, batch.mask.float() / batch.mask.sum(1, keepdim=True))
    started = replace(batch, facts={"bos": 1})
    weight = tokens_read(started, "end", 50)
    assert float(weight[:, 0].max()) == 0
    torch.testing.assert_close(weight.sum(1), torch.ones(20))
    moved = tokens_read(started.padded(left=3), "end", 50)
    torch.testing.assert_close(moved[:, 3:], weight)
    with pytest.raises(BadInput, match="no single position 'middle'"):
        tokens_read(batch, "middle")


def test_accuracies_are_those_of_scikit_learn_by_hand():
    model, batch = toys.model("gqa"), texts()
    rng = np.random.default_rng(0)
    y = np.where(rng.random(60) < 0.2, 1, 0)  # unbalanced and unrelated, so that accuracies lie in between
    labels = Labels(y, np.arange(60) // 2, ("0", "1"))
    found = probe(model, batch, labels, [HeadId(1, 2)], validation=CrossValidation(folds=3, shuffles=1, test=0))
    z = dict(outputs(model, batch, [HeadId(1, 2)], tokens_read(batch)))[HeadId(1, 2)].double().numpy()
    right = np.zeros(60)
    for train, test in splits_of(y, labels.group, 3, 0):
        mean = z[train].mean(0)
        unit = (z[train] - mean).std()
        fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit((z[train] - mean) / unit, y[train])
        right[test] = fitted.predict((z[test] - mean) / unit) == y[test]
    balanced = (right[y == 0].mean() + right[y == 1].mean()) / 2
    line = found.scores.summary()[0]
    assert line.score == pytest.approx(balanced)
    assert len(found.scores.values) == 30  # a row per group


def test_no_group_is_on_both_sides_of_a_split():
    group = np.repeat(np.arange(20), 3)
    y = np.random.default_rng(1).permutation(np.arange(60) % 2)
    labels = Labels(y, group, ("0", "1"))
    for train, test in splits_of(y, group, 4, 0):
        assert not set(group[train]) & set(group[test])
        assert set(train) | set(test) == set(range(60))
    inside, held = probing._held_back(labels, 0.25, 4, 0)
    assert not set(group[inside]) & set(group[held])
    assert len(held) == 15


def test_repeated_texts_cannot_leak():
    """Every text stands there four times with a label of its own: only a leak could beat chance."""
    model = toys.model("gqa")
    once = texts(24, seed=3, only_last=True)
    index = torch.arange(96) % 24
    y = torch.from_numpy(np.random.default_rng(0).permutation(np.arange(24) % 2))[index]
    batch = replace(once.rows(index), labels={"label": y})
    labels = labels_of(batch)
    assert len(np.unique(labels.group)) == 24
    honest = probe(model, batch, labels, validation=CrossValidation(folds=4, shuffles=1, test=0)).scores.values.mean(0)
    leaking = replace(labels, group=np.arange(96))
    leaked = probe(model, batch, leaking, validation=CrossValidation(folds=4, shuffles=1, test=0)).scores.values.mean(0)
    assert leaked.mean() > 0.7
    assert honest.mean() < 0.6


def test_groups_that_share_a_text_come_together():
    tokens = torch.tensor([[5, 6], [7, 8], [5, 6], [9, 9], [7, 8]])
    batch = Batch(
        tokens, torch.ones_like(tokens, dtype=torch.bool), labels={"label": torch.tensor([0, 1, 0, 1, 0]), "group": torch.tensor([0, 0, 1, 2, 3])}
    )  # fmt: skip
    group = labels_of(batch).group
    assert group[0] == group[1] == group[2] == group[4] != group[3]


def test_a_label_that_is_there_is_found_and_one_that_is_not_is_not(model):
    batch = texts()
    found = probe(model, batch, labels_of(batch), validation=CrossValidation(shuffles=2))
    assert found.top(1)[0][0].score > 0.9
    assert found.top(1)[0][1] > 0.8
    assert found.top(1)[0][0].q < 0.01
    assert abs(found.scores.control.mean() - 0.5) < 0.1
    nothing = Labels(np.random.default_rng(2).permutation(labels_of(batch).y), np.arange(60), ("0", "1"))
    found = probe(model, batch, nothing, validation=CrossValidation(shuffles=2))
    assert all(line.q > 0.01 for line in found.scores.summary())


def test_a_network_reads_what_no_line_can():
    """The label is whether the two halves of the vocabulary that tokens come from agree: an exclusive or."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(240, 2)))
    y = ((z[:, 0] > 0) ^ (z[:, 1] > 0)).long().numpy()
    splits = splits_of(y, np.arange(240), 4, 0)
    line = right_on_others("linear", z.numpy(), [y], [splits], 0)[0].mean()
    network = right_on_others("mlp", z.numpy(), [y], [splits], 0)[0].mean()
    assert line < 0.65
    assert network > 0.9
    batch = texts(40)
    found = probe(
        toys.model("gqa"),
        batch,
        labels_of(batch),
        [HeadId(0, 1)],
        kind="mlp",
        last=2,
        validation=CrossValidation(folds=3, shuffles=1),
    )
    assert found.scores.summary()[0].score > 0.7


def test_the_planted_head_that_reads_a_class_is_among_the_best():
    from headatlas.lab.planted import plant
    from headatlas.lab.spec import Head, PlantSpec

    planted = plant(PlantSpec((Head(0, 2, "current"),)), n_layers=2, n_heads=4, width=128)
    batch = texts(90, only_last=True)
    found = probe(attach(planted.model), batch, labels_of(batch), validation=CrossValidation(shuffles=1, test=0))
    first, second = (line for line, _ in found.top(2))
    assert first.head == HeadId(0, 2)
    assert first.score > 0.95 > second.score + 0.1


def test_wrong_input_is_refused():
    model, batch = toys.model("gqa"), texts()
    labels = labels_of(batch)
    with pytest.raises(BadInput, match=r"no label 'truth'.*Their labels are: label"):
        labels_of(batch, "truth")
    with pytest.raises(BadInput, match="Unknown probe 'tree'"):
        probe(model, batch, labels, kind="tree")
    with pytest.raises(BadInput, match=r"'1' is found in 2 group\(s\)"):
        probe(model, batch, Labels((np.arange(60) < 2).astype(int), np.arange(60), ("0", "1")))
    with pytest.raises(BadInput, match="one label"):
        probe(model, batch, Labels(np.zeros(60, dtype=int), np.arange(60), ("0",)))


LINES = [
    {"text": f"{word} is a {kind}", "label": kind, "group": i // 2}
    for i, (word, kind) in enumerate((w, k) for w in ("Paris", "Rome", "Cairo", "Oslo", "Lima", "Bonn") for k in ("city", "tree"))
]  # fmt: skip


def test_files_may_name_groups_and_bad_lines_are_named(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    batch = read_prompts(file, toys.smollm2_vocabulary())
    labels = labels_of(batch)
    assert labels.classes == ("city", "tree")
    assert len(set(labels.group)) == 6
    assert all(labels.group[i] == labels.group[i + 1] for i in range(0, 12, 2))
    for bad, said in (
        ({"text": "x", "label": "city"}, "Line 2 of p.jsonl lacks group"),
        ({"text": "x", "label": "city", "group": 1, "kind": 3}, "Line 2 of p.jsonl: 'kind' must be text"),
        ({"text": "x", "label": "city", "group": 1, "kind": "y"}, "Line 2 of p.jsonl has kind"),
    ):
        file.write_text(json.dumps(LINES[0]) + "\n" + json.dumps(bad))
        with pytest.raises(BadInput, match=said):
            read_prompts(file, toys.smollm2_vocabulary())


def test_the_command_prints_every_head(tmp_path, monkeypatch, capsys):
    small = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    monkeypatch.setattr("headatlas.load", lambda *_, **__: small, raising=False)
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    arguments = ["probe", "a/any", "--prompts", str(file), "--folds", "2", "--test", "0.3", "--shuffles", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert not ended.value.code
    data = json.loads(capsys.readouterr().out)
    assert len(data["heads"]) == 8
    assert data["heads"][0]["accuracy"] >= data["heads"][-1]["accuracy"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "trust the last column" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["probe", "a/any", "--task", "movie-review"])
    assert ended.value.code == 1
    assert "needs --label" in capsys.readouterr().err
