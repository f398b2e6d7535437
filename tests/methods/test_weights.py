"""Circuits read off the weights, against what the models themselves do with the same vectors, and planted heads."""

import functools

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.weights import qk_ov
from headatlas.methods.weights.composition import compose
from headatlas.methods.weights.copying import copy_scores, eigenvalue_scores, lowered, ov_ranks
from headatlas.methods.weights.qk_ov import attends_to, circuits_of, singular, token_vectors, writes_of
from headatlas.model import Model, attach
from headatlas.model.families import tiny_models
from headatlas.model.runs.token_embedding import embedded, turned

TOKENS = torch.tensor([5, 17, 44, 90, 158])
FAMILIES = ["gpt2", "llama", "gemma3", "gemma2", "gpt-neox", "gptj", "phi", "mistral", "qwen2", "qwen3", "bloom", "opt", "olmo2", "granite", "falcon"]  # fmt: skip


@functools.cache
def opened(name: str) -> Model:
    return attach(tiny_models.family(name).build())


@pytest.fixture(params=FAMILIES)
def model(request) -> Model:
    return opened(request.param)


def by_hand(name: str, hf: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(E, MLP0(norm(E))) by the family's own modules."""
    if name == "gpt2":
        e, block = hf.transformer.wte.weight[TOKENS], hf.transformer.h[0]
        return e, block.mlp(block.ln_2(e))
    if name == "gpt-neox":  # attention and MLP side by side
        e, block = hf.gpt_neox.embed_in.weight[TOKENS], hf.gpt_neox.layers[0]
        return e, block.mlp(block.post_attention_layernorm(e))
    block = hf.model.layers[0]
    if name == "gemma3":
        e = hf.model.embed_tokens.weight[TOKENS] * 32**0.5
        return e, block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(e)))
    if name == "olmo2":
        e = hf.model.embed_tokens.weight[TOKENS]
        return e, block.post_feedforward_layernorm(block.mlp(e))
    e = hf.model.embed_tokens.weight[TOKENS]
    return e, block.mlp(block.post_attention_layernorm(e[None]))[0]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "gpt-neox", "olmo2", "qwen2"])
def test_effective_embeddings_are_embedding_and_first_mlp(name):
    with torch.no_grad():
        e, mlp = by_hand(name, tiny_models.family(name).build())
    model = opened(name)
    torch.testing.assert_close(embedded(model, TOKENS, "embedding"), e, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embedded(model, TOKENS, "mlp"), mlp, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedded(model, TOKENS), e + mlp, atol=1e-4, rtol=1e-4)


def alone(model: Model, layer: int, stream: torch.Tensor, length: int = 1) -> dict[str, torch.Tensor]:
    """What a layer makes of streams [token, d_model], each at every position of a sequence of its own."""
    seen = {}

    def watch(view):
        if view.index == layer:
            seen.update(q=view.q, k=view.repeat(view.k), writes=view.writes()[:, 0])

    entry = stream[:, None].expand(-1, length, -1).contiguous()
    model.forward(torch.zeros(len(stream), length, dtype=torch.long), start_at=(layer, entry), watch=watch)
    return seen


def test_ov_is_what_a_head_writes_when_it_attends_to_one_token(model):
    for layer in (0, 2):
        attention = model.layer(layer)
        stream = token_vectors(model, TOKENS)
        real = alone(model, layer, stream)["writes"] * attention.multiplier
        real = real if attention.post_gain is None else real * attention.post_gain
        ours = circuits_of(model, layer).written(stream).transpose(0, 1)
        torch.testing.assert_close(ours, real, atol=2e-3 * float(real.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gptj", "phi3", "mistral", "granite", "glm", "gpt-neox", "gpt2", "bloom"])
def test_qk_is_query_times_key_at_the_offset(name):
    model = opened(name)
    stream = token_vectors(model, TOKENS)
    turns = name not in ("gpt2", "bloom")
    for offset in (None, 0, 1, 5) if turns else (None,):
        seen = alone(model, 1, stream, (offset or 0) + 1)
        # Differences between tokens: biases are not part of the bilinear form.
        q, k = (x - x[:1] for x in (seen["q"][:, :, offset or 0], seen["k"][:, :, 0]))
        circuits = circuits_of(model, 1, offset=offset)
        x = circuits.read(stream) - circuits.read(stream)[:1]
        real = torch.einsum("ahd,bhd->hab", q, k)
        ours = torch.einsum("am,hmr,hrn,bn->hab", x, circuits.qk.left, circuits.qk.right, x)
        torch.testing.assert_close(ours, real, atol=2e-3 * float(real.abs().max()), rtol=1e-3)


def test_an_offset_means_nothing_without_rotary_embeddings():
    for call in (
        lambda: circuits_of(opened("gpt2"), 1, offset=3),
        lambda: attends_to(opened("gpt2"), HeadId(1, 0), TOKENS, offset=3),
    ):
        with pytest.raises(BadInput, match="does not turn its queries"):
            call()
    with pytest.raises(BadInput, match="outside the context"):
        circuits_of(opened("llama"), 1, offset=5000)
    torch.testing.assert_close(turned(opened("gpt2"), opened("gpt2").layers[1], 4), torch.eye(8).expand(4, 8, 8))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_top_tokens_are_those_of_the_whole_matrices(name):
    model, head = opened(name), HeadId(1, 2)
    everything = token_vectors(model, torch.arange(160))
    # OV: writes through the model's own final norm and read-out.
    norm = {"llama": "model.norm", "gemma3": "model.norm", "gpt2": "transformer.ln_f"}[name]
    written = circuits_of(model, 1).written(everything)[2]
    with torch.no_grad():
        logits = model.hf.lm_head(model.hf.get_submodule(norm)(1e3 * written))[TOKENS]
    high, low = writes_of(model, head, TOKENS, 4)
    assert torch.equal(high.tokens, logits.topk(4).indices)
    assert torch.equal(low.tokens, (-writes_logits(model, written[TOKENS])).topk(4).indices)
    among = torch.tensor([3, 60, 61, 99])
    assert torch.equal(
        writes_of(model, head, TOKENS, 1, among=among)[0].tokens[:, 0], among[logits[:, among].argmax(-1)]
    )
    # QK: the model's own queries and keys.
    seen = alone(model, 1, everything)
    scores = seen["q"][TOKENS, 2, 0] @ seen["k"][:, 2, 0].T
    high, low = attends_to(model, head, TOKENS, 4)
    torch.testing.assert_close(high.scores, scores.topk(4).values, atol=1e-3, rtol=1e-4)
    assert torch.equal(high.tokens, scores.topk(4).indices)
    assert torch.equal(low.tokens, (-scores).topk(4).indices)


def writes_logits(model, written):
    matrix, bias = qk_ov.readout(model)
    logits = qk_ov.to_logits(model, written) @ matrix
    return logits if bias is None else logits + bias


def test_singular_directions_are_those_of_the_circuit():
    model, head = opened("llama"), HeadId(2, 1)
    dense = circuits_of(model, 2).ov.dense()[1]
    u, sizes, vh = torch.linalg.svd(dense)
    vectors = circuits_of(model, 2).read(token_vectors(model, torch.arange(160)))
    found = singular(model, head, n=3, k=5)
    for i, direction in enumerate(found):
        assert direction.size == pytest.approx(sizes[i].item(), rel=1e-4)
        assert direction.share == pytest.approx((sizes[i] ** 2 / dense.square().sum()).item(), rel=1e-4)
        read, write = vectors @ u[:, i], vh[i] @ qk_ov.readout(model)[0]
        ends = {tuple(direction.up[0].tokens[0].tolist()), tuple(direction.down[0].tokens[0].tolist())}
        assert ends == {tuple(read.topk(5).indices.tolist()), tuple((-read).topk(5).indices.tolist())}
        same = tuple(direction.up[0].tokens[0].tolist()) == tuple(read.topk(5).indices.tolist())
        assert direction.up[1].tokens[0].tolist() == (write if same else -write).topk(5).indices.tolist()
    assert len(singular(model, head, "qk", n=99, k=2, offset=2)) == 8


def test_eigenvalue_scores_are_those_of_the_token_by_token_matrix():
    for name in ("llama", "gpt2", "gemma3", "olmo2"):
        model = opened(name)
        scores = eigenvalue_scores(model, form="embedding")
        matrix, _ = qk_ov.readout(model)
        for number, head in enumerate(model.heads):
            circuits = circuits_of(model, head.layer)
            x = circuits.read(embedded(model, torch.arange(160), "embedding"))
            whole = (x @ circuits.ov.dense()[head.head] @ matrix).double()
            values = torch.from_numpy(np.linalg.eigvals(whole.numpy()))
            assert scores[number] == pytest.approx((values.sum().real / values.abs().sum()).item(), abs=2e-3)


@functools.cache
def planted(architecture: str) -> tuple[Model, dict]:
    from headatlas.lab.planted import plant
    from headatlas.lab.spec import Head, PlantSpec

    heads = (Head(0, 0, "previous"), Head(1, 1, "induction"), Head(2, 3, "copy-suppression"))
    kv = {"n_kv_heads": 4} if architecture == "llama" else {}
    found = plant(PlantSpec(heads), architecture=architecture, n_layers=3, n_heads=4, width=256, **kv)
    return attach(found.model), {head.kind: head.id for head in heads}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_planted_copiers_and_suppressors_are_told_apart(architecture):
    model, where = planted(architecture)
    tokens = torch.arange(10, 60)
    copying, negative = copy_scores(model, tokens, 1)
    number = {head: i for i, head in enumerate(model.heads)}
    best, worst = number[where["induction"]], number[where["copy-suppression"]]
    assert copying.values.mean(0)[best] > 0.95
    assert negative.values.mean(0)[worst] > 0.95
    others = [i for i in range(len(model.heads)) if i not in (best, worst)]
    assert copying.values.mean(0)[[worst, *others]].max() < 0.2
    assert negative.values.mean(0)[[best, *others]].max() < 0.2
    assert copying.control.mean() < 0.05
    scores = eigenvalue_scores(model, form="embedding")
    assert scores[best] > 0.9
    assert scores[worst] < -0.9


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_planted_induction_head_reads_its_previous_token_head_by_its_keys(architecture):
    model, where = planted(architecture)
    found = compose(model, draws=5)
    best = found.links()[0]
    assert (best.first, best.second, best.kind) == (where["previous"], where["induction"], "k")
    assert best.deviations > 10
    assert best.chance == pytest.approx(found.floor, rel=0.2)


def test_composition_is_that_of_whole_matrices_and_later_heads_only():
    model = opened("gpt-neox")
    found = compose(model, [HeadId(0, 1), HeadId(1, 2)], [HeadId(1, 0), HeadId(2, 3), HeadId(0, 0)], offset=1, draws=2)
    circuits = [circuits_of(model, layer, offset=1) for layer in range(3)]
    ov, qk = circuits[1].ov.dense()[2], circuits[2].qk.dense()[3]
    for kind, read in (("q", qk), ("k", qk.T), ("v", circuits[2].ov.dense()[3])):
        expected = (ov @ read).norm() / ov.norm() / read.norm()
        assert found.scores[kind][1, 1] == pytest.approx(expected.item(), rel=1e-3)
        assert np.isnan(found.scores[kind]).tolist() == [[False, False, True], [True, False, True]]


def test_ranks_among_some_tokens_are_ranks_of_their_logits():
    model = opened("llama")
    among = torch.tensor([7, 30, 31, 32, 80])
    found = ov_ranks(model, torch.tensor([30, 31]), torch.tensor([[31], [32]]), among=among)
    for i, (source, target) in enumerate(((30, 31), (31, 32))):
        for j, head in enumerate(model.heads):
            written = circuits_of(model, head.layer).written(token_vectors(model, torch.tensor([source])))[head.head]
            logits = writes_logits(model, written)[0]
            assert found.raised[i, j, 0] == (logits[among] > logits[target]).sum()
            assert found.lowered[i, j, 0] == (logits[among] < logits[target]).sum()


def test_tokens_that_a_head_lowers_most_are_those_with_low_ranks():
    model, tokens = opened("llama"), torch.tensor([30, 31, 40, 7, 9, 12])
    asked = torch.rand(6, len(model.heads), generator=torch.Generator().manual_seed(0)) > 0.4
    expected = torch.from_numpy(ov_ranks(model, tokens, tokens[:, None]).lowered[..., 0] < 20)
    assert expected.any()
    assert torch.equal(lowered(model, tokens, 20), expected)
    assert torch.equal(lowered(model, tokens, 20, asked=asked), expected & asked)


def test_models_stay_as_they_were():
    model = opened("gemma3")
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    copy_scores(model, TOKENS)
    compose(model, draws=2)
    assert all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items())
    assert model.current is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UnsupportedModel, match="mixes tokens and positions"):
        embedded(opened("bert-masked"), TOKENS)
    with pytest.raises(UnsupportedModel, match="has no attention heads"):
        embedded(opened("qwen3-next"), TOKENS)
    with pytest.raises(UnsupportedModel, match="neither the residual stream nor a norm"):
        circuits_of(opened("falcon-h1"), 1)
    with pytest.raises(UnsupportedModel, match="an encoder and a decoder"):
        embedded(opened("t5"), TOKENS)
    model = opened("llama")
    with pytest.raises(BadInput, match="no form 'sum'"):
        embedded(model, TOKENS, "sum")
    with pytest.raises(BadInput, match="0 to 159"):
        token_vectors(model, torch.tensor([160]))
    with pytest.raises(BadInput, match="two or more different"):
        copy_scores(model, torch.tensor([5, 5]))
    with pytest.raises(BadInput, match="Unknown composition 'w'"):
        compose(model, kinds=["w"])
    with pytest.raises(BadInput, match=r"no head 2\.9"):
        singular(model, HeadId(2, 9))
