"""Successor, negative, correct-letter and truthfulness heads: planted ones are found, and nothing is found where nothing is."""

import functools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from headatlas import load
from headatlas.detector import find_detector
from headatlas.detectors._measures.seeds import seed_of
from headatlas.heads import HeadId
from headatlas.lab.controls import weight_shuffled
from headatlas.lab.grid import model_of
from headatlas.lab.planted import plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.methods.probing import labels_of
from headatlas.model import Model, attach
from headatlas.scores import HeadScores
from headatlas.task import Batch
from headatlas.tasks._series import neighbours
from headatlas.tasks.statements import statements
from headatlas.tasks.yes_no import yes_no
from tests import toys

D_HEAD, WIDTH = 8, 32


def scores(model: Model, name: str, batch: Batch) -> HeadScores:
    found = find_detector(name).measure(model, batch)
    return HeadScores(model.heads, found.values.double().numpy(), found.control.double().numpy())


def observed(model: Model, name: str, batch: Batch) -> set[HeadId]:
    return {line.head for line in scores(model, name, batch).observed(find_detector(name).minimum_effect)}


@functools.cache
def untrained(seed: int = 0) -> Model:
    """A tiny random model that reads SmolLM2's tokens."""
    hf = toys.llama(vocab_size=49152, num_hidden_layers=2, max_position_embeddings=256)
    return attach(hf, tokenizer=toys.smollm2_vocabulary())


def reader(seen: list[list[int]], writes: list[int], vocabulary: int, answer: int = 0, tokenizer=None) -> Model:
    """One layer whose first three heads h look at the tokens seen[h], and by way of them raise (1) or lower (-1) the answer's logit."""
    hf = toys.llama(
        vocab_size=vocabulary, num_hidden_layers=1, num_key_value_heads=4, max_position_embeddings=256,
        tie_word_embeddings=False,
    )  # fmt: skip
    layer = hf.model.layers[0]
    with torch.no_grad():
        for weight in layer.self_attn.parameters():
            weight.zero_()
        table = hf.model.embed_tokens.weight.zero_()
        table[:, 0] = 1.0
        hf.lm_head.weight.zero_()[answer, 1] = 1.0
        slow = D_HEAD // 2 - 1  # this pair of coordinates hardly turns with the position
        for head, tokens in enumerate(seen):
            table[tokens, 2 + head] = 1.0
            layer.self_attn.q_proj.weight[D_HEAD * head + slow, 0] = 1.0
            layer.self_attn.k_proj.weight[D_HEAD * head + slow, 2 + head] = 3.0
            layer.self_attn.v_proj.weight[D_HEAD * head, 2 + head] = 1.0
            layer.self_attn.o_proj.weight[1, D_HEAD * head] = float(writes[head])
        # The last head looks evenly at everything and writes a little of its own whatever it sees.
        layer.self_attn.v_proj.weight[D_HEAD * 3, 0] = 1.0
        layer.self_attn.o_proj.weight[WIDTH - 1, D_HEAD * 3] = 0.1
        hf.lm_head.weight[1, WIDTH - 1] = 1.0
    return attach(hf, tokenizer=tokenizer)


def attention_of(model: Model, batch: Batch) -> list[torch.Tensor]:
    """[head, query, key] of every layer in one list per example, by the plain model's eager attention."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    rows = []
    with torch.no_grad():
        for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
            found = model.hf(tokens[mask][None], output_attentions=True).attentions
            rows.append(torch.cat([layer[0] for layer in found]))
    model.hf.set_attn_implementation(before)
    return rows


# ---- successor ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_planted_successor_is_found_and_its_look_alikes_are_not(architecture):
    heads = (
        Head(0, 0, "duplicate"),
        Head(0, 1, "previous"),
        Head(1, 1, "successor"),
        Head(1, 2, "mover"),
        Head(2, 0, "induction"),
    )
    planted = plant(PlantSpec(heads, noise=0.03), architecture=architecture, n_layers=3)
    model = model_of(planted)
    assert observed(model, "successor", Batch(torch.zeros(1, 1), torch.ones(1, 1))) == set(planted.of("successor"))


def test_successor_scores_are_the_argmax_of_the_ov_circuit():
    model = untrained()
    layer, table = model.hf.model.layers[1].self_attn, model.hf.model.embed_tokens.weight.detach()
    first, norms = model.hf.model.layers[0], model.hf.model.layers[1].input_layernorm
    rows, chance = [], []
    with torch.no_grad():
        for members, pairs in neighbours(model.tokenizer).values():
            for token, following in pairs:
                x = table[token] + first.mlp(first.post_attention_layernorm(table[token]))
                v = (layer.v_proj.weight @ norms(x)).view(2, D_HEAD).repeat_interleave(2, 0)
                written = torch.einsum("hd,hdm->hm", v, layer.o_proj.weight.T.reshape(4, D_HEAD, WIDTH))
                best = (model.hf.model.norm(written) @ model.hf.lm_head.weight[members].T).argmax(-1)
                winner = torch.tensor(members)[best]
                rows.append((winner == following).float())
                chance.append(((winner != following) & (winner != token)).float() / (len(members) - 2))
    found = find_detector("successor").measure(model, Batch(torch.zeros(1, 1), torch.ones(1, 1)))
    torch.testing.assert_close(found.values[:, 4:], torch.stack(rows))
    torch.testing.assert_close(found.control[:, 4:], torch.stack(chance))


# ---- negative -------------------------------------------------------------------------------------------------------
def test_a_head_that_looks_at_no_is_found_and_one_that_looks_at_both_words_is_not():
    words = toys.smollm2_vocabulary()
    no, yes = words.single(" No"), words.single(" Yes")
    model = reader([[no], [no, yes], [yes]], [1, 1, 1], 49152, tokenizer=words)
    batch = yes_no(words, 12, 0)
    found = scores(model, "negative", batch).summary()
    assert observed(model, "negative", batch) == {HeadId(0, 0)}
    assert found[0].score > 1.0
    assert abs(found[1].score) < 1e-3
    assert found[2].score == pytest.approx(-found[0].score, rel=0.02)


def test_the_lean_is_that_of_eager_attention_over_both_orders_of_the_words():
    model, batch = untrained(), yes_no(toys.smollm2_vocabulary(), 4, 1)
    swapped = batch.tokens.clone()
    rows = torch.arange(4)
    swapped[rows, batch.positions["yes"]], swapped[rows, batch.positions["no"]] = (
        batch.tokens[rows, batch.positions["no"]], batch.tokens[rows, batch.positions["yes"]],
    )  # fmt: skip
    wanted = torch.zeros(2, 4, 8)
    for order, (tokens, first, second) in enumerate(((batch.tokens, "yes", "no"), (swapped, "no", "yes"))):
        for e, pattern in enumerate(attention_of(model, Batch(tokens, batch.mask))):
            y, n = batch.positions[first][e], batch.positions[second][e]
            after = pattern[:, max(y, n) + 1 :]
            a, b = after[..., y], after[..., n]
            wanted[order, e] = ((a + b) * (b / a).log()).mean(1)
    found = find_detector("negative").measure(model, batch)
    torch.testing.assert_close(found.values, wanted.mean(0), atol=1e-5, rtol=1e-4)


def test_removing_a_head_evens_its_attention_to_both_words_and_nothing_else():
    words = toys.smollm2_vocabulary()
    no, yes = words.single(" No"), words.single(" Yes")
    # In order: looks at No and writes it; looks at both words alike and writes No.
    model = reader([[no], [no, yes]], [1, 1], 49152, answer=no, tokenizer=words)
    batch = yes_no(words, 8, 3)
    effect = find_detector("negative").removal(model, batch, yes_no.metric)
    assert (effect.clean > 0).all(), "it leans to No whatever is asked"

    def literal(head: int) -> list[float]:
        """The fall of logit(No) with the head's weights on the two words set to their mean, by hand; all other tokens say nothing."""
        layer, table = model.hf.model.layers[0], model.hf.model.embed_tokens.weight
        found = []
        for e, pattern in enumerate(attention_of(model, batch)):
            length, states = int(batch.mask[e].sum()), {}
            handle = model.hf.model.norm.register_forward_pre_hook(lambda _, args, s=states: s.update(x=args[0][0]))
            with torch.no_grad():
                model.hf(batch.tokens[e, :length][None])
                handle.remove()
                places = torch.stack([batch.positions["yes"][e], batch.positions["no"][e]])
                given = pattern[head, length - 1, places]
                v = layer.input_layernorm(table[batch.tokens[e, places]]) @ layer.self_attn.v_proj.weight.T
                change = (given.mean() - given) @ v[:, D_HEAD * head : D_HEAD * (head + 1)]
                x = states["x"][-1]
                new = x + layer.self_attn.o_proj.weight[:, D_HEAD * head : D_HEAD * (head + 1)] @ change
                logits = [model.hf.lm_head(model.hf.model.norm(one)) for one in (x, new)]
                found.append(float(logits[0][no] - logits[1][no]))
        return found

    for head in (0, 1):
        np.testing.assert_allclose(effect.metric_drop([HeadId(0, head)]), literal(head), atol=1e-4)
    assert effect.metric_drop([HeadId(0, 0)]).min() > 0.04
    # Looking at both alike, but for what the rotation makes of the distance.
    assert np.abs(effect.metric_drop([HeadId(0, 1)])).max() < 0.01


# ---- correct letter -------------------------------------------------------------------------------------------------
def questions(n: int, seed: int, options: int = 4) -> Batch:
    """Made-up questions in which token 7 is the label of the right option; in the control it stands anywhere."""
    rng = np.random.default_rng(seed)
    right, elsewhere = torch.arange(n) % options, torch.from_numpy(rng.integers(0, options, n))
    at = {f"label{i + 1}": torch.full((n, 1), 3 + 2 * i) for i in range(options)} | {"end": torch.full((n,), 13)}
    labels = {"right": right, "answer": torch.full((n,), 9), "wrong": torch.arange(10, 9 + options).expand(n, -1)}

    def made(marked: torch.Tensor, control: Batch | None = None) -> Batch:
        tokens = torch.from_numpy(rng.integers(20, 40, (n, 14)))
        for i in range(options):
            tokens[:, 3 + 2 * i] = torch.where(marked == i, 7, 8)
        return Batch(tokens, torch.ones(n, 14, dtype=torch.bool), at, labels=labels, control=control)

    return made(right, made(elsewhere))


@pytest.mark.parametrize("options", [2, 4])
def test_a_head_that_looks_at_the_right_label_and_writes_the_answer_is_found_and_its_look_alikes_are_not(options):
    # In order: the right kind; the same that writes against the answer; every label, whichever is right.
    model = reader([[7], [7], [7, 8]], [1, -1, 1], 64, answer=9)
    batch = questions(16, 0, options)
    assert observed(model, "correct-letter", batch) == {HeadId(0, 0)}
    found = scores(model, "correct-letter", batch).summary()
    assert found[0].score > 0.9
    assert found[1].score == 0.0
    assert found[2].score < 0.05


@pytest.mark.parametrize("options", [2, 4])
def test_the_preference_is_that_of_eager_attention_where_the_head_writes_for_the_right_label(options):
    model, batch = toys.model("gqa"), questions(6, 1, options)
    wanted, written = torch.zeros(6, 8), torch.zeros(6, 8)
    direction = model.hf.lm_head.weight[9] - model.hf.lm_head.weight[10 : 9 + options].mean(0)
    norm = model.hf.model.norm
    with torch.no_grad():
        states = model.hf(batch.tokens, output_hidden_states=True).hidden_states
        for e, pattern in enumerate(attention_of(model, batch)):
            places = torch.tensor([3, 5, 7, 9])[:options]
            right = torch.arange(options) == batch.labels["right"][e]
            seen = pattern[:, 13, places]
            wanted[e] = seen[:, right][:, 0] - seen[:, ~right].mean(1)
            for layer, block in enumerate(model.hf.model.layers):
                x = block.input_layernorm(states[layer][e, places])
                v = (x @ block.self_attn.v_proj.weight.T).view(options, 2, 8).repeat_interleave(2, 1)
                out = torch.einsum("khd,hdm->khm", v, block.self_attn.o_proj.weight.T.reshape(4, 8, 32))
                heads = slice(4 * layer, 4 * layer + 4)
                written[e, heads] = torch.einsum("hk,khm,m->h", seen[heads], out, direction * norm.weight)
        scale = torch.tensor([block_end(model, row) for row in batch.tokens])
    effect = (written * scale[:, None]).mean(0)
    found = find_detector("correct-letter").measure(model, batch)
    torch.testing.assert_close(found.values, wanted * (effect > 0), atol=1e-5, rtol=1e-4)


def block_end(model: Model, tokens: torch.Tensor) -> float:
    """The final norm's factor at the last token."""
    seen = []
    handle = model.hf.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.hf(tokens[None])
    handle.remove()
    return float((seen[0][0, -1].square().mean() + model.hf.config.rms_norm_eps).rsqrt())


# ---- truthfulness ---------------------------------------------------------------------------------------------------
def test_truthfulness_is_the_accuracy_of_a_probe_on_pairs_it_never_saw(monkeypatch):
    from headatlas.detectors import truthfulness as module

    monkeypatch.setattr(module, "PROMPTS", 60)
    model = untrained()
    batch = statements(model.tokenizer, 8, 0)
    seed = seed_of(batch)
    read = statements(model.tokenizer, 60, seed)
    seen = []
    projection = model.layers[1].projection
    handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for tokens, mask in zip(read.tokens, read.mask, strict=True):
            model.hf(tokens[mask][None])
    handle.remove()
    z = torch.stack([x[0, stop] for x, stop in zip(seen, read.positions["stop"], strict=True)]).double().numpy()
    labels = labels_of(read, "truth", "pair")
    assert (read.labels["truth"] == torch.from_numpy(labels.y)).all()
    right = np.zeros(60)
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(z, labels.y, labels.group)
    for train, test in splits:
        own = z[:, :D_HEAD] - z[train, :D_HEAD].mean(0)
        own /= np.sqrt(np.square(own[train]).mean())  # one unit for all dimensions, whose basis is arbitrary
        fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit(own[train], labels.y[train])
        right[test] = fitted.predict(own[test]) == labels.y[test]
    balanced = np.mean([right[labels.y == label].mean() for label in (0, 1)])
    assert scores(model, "truthfulness", batch).summary()[4].score == pytest.approx(balanced, abs=1e-6)


# ---- where nothing is -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["successor", "negative", "correct-letter", "truthfulness"])
def test_an_untrained_model_has_none(name):
    model = untrained()
    batch = find_detector(name).task(model.tokenizer, 16, 0)
    assert observed(model, name, batch) == set()


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return load("smollm2-135m")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["successor", "negative", "correct-letter", "truthfulness"])
def test_a_model_with_shuffled_weights_has_none(smollm2, name):
    shuffled = attach(weight_shuffled(smollm2.hf, seed=0), tokenizer=smollm2.tokenizer)
    assert observed(shuffled, name, find_detector(name).task(smollm2.tokenizer, 32, 0)) == set()


@pytest.mark.slow
def test_smollm2_has_no_successor_head_by_the_published_rule(smollm2):
    found = scores(smollm2, "successor", find_detector("successor").task(smollm2.tokenizer, 4, 0))
    best = found.top(1)[0]
    assert best.score == pytest.approx(0.123, abs=0.03)
    assert not found.observed(0.4)


@pytest.mark.slow
def test_truth_can_be_read_off_middle_heads_of_smollm2_with_either_seed(smollm2):
    first, second = (
        scores(smollm2, "truthfulness", statements(smollm2.tokenizer, 32, seed)).summary() for seed in (0, 1)
    )
    assert max(line.score for line in first) > 0.6
    assert np.corrcoef([line.score for line in first], [line.score for line in second])[0, 1] > 0.5
