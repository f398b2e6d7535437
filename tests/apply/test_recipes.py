"""Recipes: in force they are what hooks on the plain model do, and files that are damaged or of something else are refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from headatlas.apply.recipe.export import export_recipe
from headatlas.apply.recipe.outcome import BEYOND, NO_BETTER, WORSE, outcome_of, prose_change
from headatlas.apply.recipe.recipe import ALWAYS, ANSWERING, Recipe, data_hash, fit_facts
from headatlas.apply.recipe.store import load_recipe, save_recipe
from headatlas.errors import BadInput, HeadAtlasError, StoreError
from headatlas.heads import HeadId
from headatlas.model import attach
from headatlas.task import Batch, logit_difference
from tests import toys
from tests.methods.test_probing import texts

HEADS = (HeadId(0, 1), HeadId(1, 3))


@pytest.fixture(params=["gqa", "gpt2", "window"])
def model(request):
    return toys.model(request.param)


def made(model, when=ANSWERING, *, stream=True) -> Recipe:
    """A recipe with numbers of every kind, large enough to change what is written."""
    torch.manual_seed(3)
    width = model.layers[0].d_value
    scale = {HEADS[0]: torch.linspace(-1, 3, width)}
    shift = {head: 4 * torch.randn(width) for head in HEADS}
    vectors = {("decoder", 1): 2 * torch.randn(model.d_model)} if stream else {}
    batch = texts(8)
    separate = hasattr(model.layers[0].module, "q_proj")
    query = {HEADS[0]: torch.randn(width, model.d_model)} if separate and when == ALWAYS else {}
    return Recipe("iti", scale, shift, vectors, query, when=when, facts=fit_facts(model, batch))


def hooked(model, recipe: Recipe):
    """The same by hooks on the plain model, written apart: loops over heads, one change after the other."""
    handles = []
    for layer in model.layers:

        def change(_, args, layer=layer):
            z = args[0].clone()
            tokens = range(z.shape[1]) if recipe.when == ALWAYS else [z.shape[1] - 1]
            for t in tokens:
                for head in layer.heads:
                    part = slice(head.head * layer.d_value, (head.head + 1) * layer.d_value)
                    z[:, t, part] = z[:, t, part] * recipe.scale.get(head, 1.0) + recipe.shift.get(head, 0.0)
            return (z,)

        handles.append(layer.projection.register_forward_pre_hook(change))
        for head in set(layer.heads) & recipe.query.keys():

            def more(_, args, out, head=head, width=layer.d_value):
                out = out.clone()
                out[..., head.head * width : (head.head + 1) * width] += args[0] @ recipe.query[head].T
                return out

            handles.append(layer.module.q_proj.register_forward_hook(more))
        vector = recipe.stream.get((layer.stack, layer.index))
        if vector is not None:

            def add(_, args, kwargs, vector=vector):
                x = (args[0] if args else kwargs["hidden_states"]).clone()
                x[:, slice(None) if recipe.when == ALWAYS else slice(-1, None)] += vector
                return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

            handles.append(layer.block.register_forward_pre_hook(add, with_kwargs=True))
    return handles


def written(hf, ids):
    return hf.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)


@pytest.mark.parametrize("when", [ALWAYS, ANSWERING])
def test_generation_is_that_of_hooks_on_the_plain_model_with_and_without_a_cache(model, when):
    recipe, ids = made(model, when), texts(8).tokens[:2, :4]
    with recipe.on(model) as hf:
        ours = written(hf, ids)
        uncached = hf.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0, use_cache=False)
    handles = hooked(model, recipe)
    real = written(model.hf, ids)
    for handle in handles:
        handle.remove()
    assert torch.equal(ours, real)
    assert not torch.equal(ours, written(model.hf, ids))
    if when == ALWAYS:
        assert torch.equal(uncached, real)


@pytest.mark.parametrize("when", [ALWAYS, ANSWERING])
def test_a_recipe_comes_back_from_its_files_with_its_rivals(model, when, tmp_path):
    recipe = replace(made(model, when), rivals=(made(model, when, stream=False),))
    save_recipe(recipe, tmp_path / "kept")
    found = load_recipe(tmp_path / "kept")
    assert (found.intervention, found.when, found.heads) == (recipe.intervention, recipe.when, HEADS)
    assert found.facts == json.loads(json.dumps(recipe.facts))
    for ours, theirs in ((recipe, found), (recipe.rivals[0], found.rivals[0])):
        for part in ("scale", "shift", "stream", "query"):
            one, other = getattr(ours, part), getattr(theirs, part)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    ids = texts(8).tokens[:1, :4]
    with recipe.on(model) as hf, torch.no_grad():
        before = hf(ids).logits
    with found.on(model) as hf, torch.no_grad():
        assert torch.equal(hf(ids).logits, before)


def spoilt(folder: Path, how: str) -> None:
    """One fault in the files of a recipe."""
    data = json.loads((folder / "recipe.json").read_text())
    tensors = load_file(folder / "recipe.safetensors")
    raw = (folder / "recipe.safetensors").read_bytes()
    if how == "cut":
        (folder / "recipe.safetensors").write_bytes(raw[:-9])
    elif how == "bit":
        (folder / "recipe.safetensors").write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
    elif how == "other numbers":
        save_file({name: 2 * value for name, value in tensors.items()}, folder / "recipe.safetensors")
    elif how == "gone":
        (folder / "recipe.safetensors").unlink()
    elif how == "schema":
        data["schema"] = "headatlas/edits/1"
    elif how == "newer":
        data["schema"] = "headatlas/recipe/9"
    elif how == "head":
        data["recipe"]["shift"][0] = "no.head"
    elif how == "unnamed":
        data["recipe"]["shift"].pop()
    elif how == "when":
        data["when"] = "sometimes"
    elif how == "key":
        data["colour"] = "red"
    elif how == "empty":
        data["recipe"] = {"scale": [], "shift": [], "stream": []}
    (folder / "recipe.json").write_text("{" if how == "no json" else json.dumps(data))


@pytest.mark.parametrize(
    "how",
    ["cut", "bit", "other numbers", "gone", "schema", "newer", "head", "unnamed", "when", "key", "empty", "no json"],
)
def test_damaged_and_foreign_files_are_refused_in_one_line(how, tmp_path):
    folder = tmp_path / "kept"
    save_recipe(made(toys.model("gqa")), folder)
    spoilt(folder, how)
    with pytest.raises(StoreError) as error:
        load_recipe(folder)
    assert "\n" not in str(error.value)
    assert "recipe" in str(error.value)


def test_a_recipe_of_another_model_is_refused_unless_asked_for():
    model, other = toys.model("gqa"), attach(toys.llama(hidden_size=48, num_attention_heads=4))
    recipe = made(model)
    with pytest.raises(BadInput, match=r"numbers for 0\.1"), recipe.on(other):
        pass
    torch.manual_seed(9)
    twin = toys.llama()
    with torch.no_grad():
        twin.model.layers[0].self_attn.o_proj.weight.add_(0.1)
    changed = attach(twin)
    with pytest.raises(BadInput, match="other weights"), recipe.on(changed):
        pass
    with recipe.on(changed, other_weights=True) as hf:
        assert hf is twin
    with pytest.raises(BadInput, match="no attention layer 5"):
        replace(recipe, shift={HeadId(5, 0): torch.zeros(8)}).demand_model(model)


def test_numbers_that_are_not_finite_are_not_kept(tmp_path):
    recipe = made(toys.model("gqa"))
    with pytest.raises(BadInput, match="not finite"):
        save_recipe(replace(recipe, shift={HEADS[0]: torch.full((8,), torch.nan)}), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_the_hash_of_the_data_knows_tokens_and_labels_and_not_the_padding():
    batch = texts(8)
    longer = replace(batch.padded(right=3, token=7), positions={}, marks={})
    assert data_hash(batch) == data_hash(longer)
    assert data_hash(batch) != data_hash(batch.rows(slice(0, 7)))
    flipped = replace(batch, labels={**batch.labels, "label": 1 - batch.labels["label"]})
    assert data_hash(batch) != data_hash(flipped)


@pytest.mark.parametrize("when", [ALWAYS, ANSWERING])
def test_the_exported_module_does_what_the_recipe_does_and_takes_itself_away(model, when, tmp_path):
    recipe = made(model, when)
    ids = texts(8).tokens[:2, :4]
    with recipe.on(model) as hf:
        ours = written(hf, ids)
    before = written(model.hf, ids)
    export_recipe(model, recipe, tmp_path / "out")
    spec = importlib.util.spec_from_file_location("exported_recipe", tmp_path / "out" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.attach(model.hf):
        assert torch.equal(written(model.hf, ids), ours)
    assert torch.equal(written(model.hf, ids), before)
    assert not torch.equal(ours, before)


def test_what_is_exported_serves_where_headatlas_cannot_be_imported(tmp_path):
    model = toys.model("gqa")
    recipe, ids = made(model), texts(8).tokens[:2, :4]
    with recipe.on(model) as hf:
        ours = written(hf, ids)
    export_recipe(model, recipe, tmp_path / "out")
    model.hf.save_pretrained(tmp_path / "hf")
    torch.save(ids, tmp_path / "ids.pt")
    code = (
        "import sys\nsys.modules['headatlas'] = None\n"
        "import torch\nfrom transformers import LlamaForCausalLM\n"
        "sys.path.insert(0, 'out')\nfrom recipe import attach\n"
        "hf, ids = LlamaForCausalLM.from_pretrained('hf'), torch.load('ids.pt')\n"
        "with attach(hf): changed = hf.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)\n"
        "torch.save(changed, 'changed.pt')\n"
        "hf.model.layers[0].self_attn.o_proj.weight.data.mul_(2)\n"
        "try: attach(hf)\n"
        "except ValueError as error: assert 'other weights' in str(error)\n"
        "else: raise SystemExit('other weights were taken')\n"
        "try: import headatlas\n"
        "except ImportError: pass\n"
        "else: raise SystemExit('headatlas was there')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "changed.pt"), ours)


def test_the_serving_format_gives_each_projection_and_block_what_the_recipe_does(model, tmp_path):
    recipe = made(model, ALWAYS)
    export_recipe(model, recipe, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "serving.json").read_text())
    numbers = load_file(tmp_path / "out" / "serving.safetensors")
    assert "not tested" in told["status"]
    handles = []
    for one in told["layers"]:
        module, kinds = model.hf.get_submodule(one["module"]), one["tensors"]
        if "input_scale" in kinds:
            scale = numbers[kinds["input_scale"]]
            handles.append(module.register_forward_pre_hook(lambda _, args, scale=scale: (args[0] * scale,)))
        if "output_bias" in kinds:
            bias = numbers[kinds["output_bias"]]
            handles.append(module.register_forward_hook(lambda _, __, out, bias=bias: out + bias))
        if "weight_add" in kinds:
            weight = numbers[kinds["weight_add"]]
            handles.append(module.register_forward_hook(lambda _, args, out, weight=weight: out + args[0] @ weight.T))
        if "input_add" in kinds:
            vector = numbers[kinds["input_add"]]
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, vector=vector: ((args[0] + vector, *args[1:]), kwargs), with_kwargs=True
                )
            )
    ids = texts(8).tokens[:2, :6]
    with torch.no_grad():
        served = model.hf(ids).logits
    for handle in handles:
        handle.remove()
    with recipe.on(model) as hf, torch.no_grad():
        torch.testing.assert_close(served, hf(ids).logits, atol=1e-4, rtol=1e-4)


# ---- measuring ------------------------------------------------------------------------------------------------------
def pairs(n: int = 24) -> Batch:
    """Prompts of one answer each, the same for all."""
    batch = texts(n)
    answers = {"answer": torch.full((n,), 20), "wrong": torch.full((n,), 50)}
    return replace(batch, labels={**batch.labels, **answers})


def toward(model, sign: float) -> Recipe:
    """A vector in the stream that the unembedding reads as the answer (sign 1), or as the wrong one."""
    weight = model.hf.get_output_embeddings().weight.detach()
    return Recipe("iti", stream={("decoder", 1): sign * 200 * (weight[20] - weight[50])})


def test_a_gain_is_called_one_only_beyond_random_recipes_of_its_size():
    model, batch = toys.model("gqa"), pairs()
    for sign, verdict in ((1, BEYOND), (-1, WORSE)):
        recipe = toward(model, sign)
        rivals = [recipe.random(model, seed, "directions") for seed in range(3)]
        found = outcome_of(model, recipe, batch, [logit_difference], rivals=rivals, elsewhere=())
        edits = recipe.edits_for(logit_difference.positions(batch))
        change = logit_difference.score(
            model.forward(batch, edits=edits, logit_positions=logit_difference.positions(batch)), batch
        ) - logit_difference.score(model.forward(batch, logit_positions=logit_difference.positions(batch)), batch)
        gain = found.gains[0]
        assert gain.change == pytest.approx(float(change.mean()), abs=1e-4)
        assert found.verdict == verdict
        assert gain.over == pytest.approx(gain.change - np.mean(gain.random), abs=1e-9)
        assert (found.damage, list(found.facts["skipped"])) == ((), ["prose"])  # of ids alone there is no prose
    random = toward(model, 1).random(model, 5, "directions")
    rivals = [toward(model, 1), *rivals]
    assert outcome_of(model, random, batch, [logit_difference], rivals=rivals, elsewhere=()).verdict != BEYOND
    nothing = Recipe("iti", shift={HEADS[0]: torch.zeros(8)})
    found = outcome_of(model, nothing, batch, [logit_difference], rivals=rivals[:1], elsewhere=())
    assert (found.verdict, found.gains[0].change) == (NO_BETTER, 0.0)


def test_damage_on_prose_is_the_rise_of_the_loss_and_the_divergence_token_by_token():
    model, batch = toys.model("gqa"), texts(6)
    places = torch.tensor([[0, 1, 2], [1, 2, -1]]).repeat(3, 1)
    batch = replace(batch, positions={"predict": places})
    recipe = toward(model, 0.02)
    edits = recipe.edits()
    rise, kl = prose_change(model, batch, recipe)
    plain, changed = (model.forward(batch, edits=one).double().log_softmax(-1) for one in ([], edits))
    for e, row in enumerate(places.tolist()):
        at = [t for t in row if t >= 0]
        expected = [float(plain[e, t, batch.tokens[e, t + 1]] - changed[e, t, batch.tokens[e, t + 1]]) for t in at]
        apart = [float((plain[e, t].exp() * (plain[e, t] - changed[e, t])).sum()) for t in at]
        assert rise[e] == pytest.approx(np.mean(expected), abs=1e-4)
        assert kl[e] == pytest.approx(np.mean(apart), abs=1e-4)
        assert kl[e] > 0


def test_random_recipes_have_the_size_of_the_real_one():
    model = toys.model("gqa")
    recipe = made(model)
    drawn = recipe.random(model, 1, "directions")
    assert drawn.shift.keys() == recipe.shift.keys()
    assert drawn.scale == recipe.scale
    for key, value in recipe.shift.items():
        assert drawn.shift[key].norm() == pytest.approx(float(value.norm()), rel=1e-4)
        assert abs(float(torch.cosine_similarity(drawn.shift[key], value, dim=0))) < 0.99
    elsewhere = recipe.random(model, 1, "heads")
    assert not set(elsewhere.heads) & set(recipe.heads)
    assert [head.layer for head in elsewhere.heads] == [head.layer for head in recipe.heads]


def test_an_answering_recipe_needs_one_end_for_all_texts_of_a_pass():
    with pytest.raises(HeadAtlasError, match="newest token, or at positions"):
        made(toys.model("gqa")).edits(torch.tensor([[1]]), newest=True)
