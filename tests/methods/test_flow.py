"""Importances against the formula written out in loops on the plain model; routes, files, and the command."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.information_flow import export
from headatlas.methods.information_flow.routes import Importances, Node, extract, importances, shares
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests import pages
from tests.methods.sweeps.test_replay import prompts

TOKENS = torch.randint(5, 150, (9,), generator=torch.Generator().manual_seed(0))


def opened(name: str) -> ha.Model:
    return attach(FAMILIES[name].build())


def proximity(part: torch.Tensor, whole: torch.Tensor) -> float:
    return max(float(whole.abs().sum() - (whole - part).abs().sum()), 1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_importances_are_the_papers_formula(name: str):
    hf, layer, kept = FAMILIES[name].build(attn_implementation="eager"), 1, {}
    block = hf.model.layers[layer]
    post = block.post_attention_layernorm if name == "gemma3" else None
    hooks = [
        block.register_forward_pre_hook(lambda _, args, kwargs: kept.update(x=args[0][0]), with_kwargs=True),
        block.self_attn.v_proj.register_forward_hook(lambda _, __, out: kept.update(v=out[0])),
        block.self_attn.o_proj.register_forward_hook(lambda _, __, out: kept.update(o=out[0])),
        block.mlp.register_forward_hook(lambda _, __, out: kept.update(m=out[0])),
    ]
    if post is not None:
        hooks += [
            post.register_forward_hook(lambda _, __, out: kept.update(o=out[0], plain=__[0][0])),
            block.post_feedforward_layernorm.register_forward_hook(lambda _, __, out: kept.update(m=out[0])),
        ]
    with torch.no_grad():
        pattern = hf(input_ids=TOKENS[None], output_attentions=True).attentions[layer][0]
    for hook in hooks:
        hook.remove()
    middle = kept["x"] + kept["o"]
    width, size = block.self_attn.head_dim, 4 // block.self_attn.num_key_value_groups
    size = 4 // size
    found = importances(attach(hf), TOKENS)[layer]
    w = block.self_attn.o_proj.weight
    with torch.no_grad():
        for i in (0, 4, 8):
            parts = {}
            for h in range(4):
                for j in range(i + 1):
                    v = kept["v"][j, h // size * width : (h // size + 1) * width]
                    part = pattern[h, i, j] * (w[:, h * width : (h + 1) * width] @ v)
                    if post is not None:
                        part = part * (1 + post.weight) / (kept["plain"][i].pow(2).mean() + post.eps).sqrt()
                    parts[h, j] = part
            whole = middle[i]
            torch.testing.assert_close(sum(parts.values()) + kept["x"][i], whole, atol=1e-4, rtol=1e-4)
            near = {
                key: proximity(part, whole) if pattern[key[0], i, key[1]] > 0 else 0.0 for key, part in parts.items()
            }
            total = sum(near.values()) + proximity(kept["x"][i], whole)
            for (h, j), value in near.items():
                assert float(found.heads[h, i, j]) == pytest.approx(value / total, abs=2e-5)
            assert float(found.residual[i]) == pytest.approx(proximity(kept["x"][i], whole) / total, abs=2e-5)
            out = whole + kept["m"][i]
            both = proximity(kept["m"][i], out), proximity(whole, out)
            assert float(found.mlp[i]) == pytest.approx(both[0] / sum(both), abs=2e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gemma3", "gptj", "falcon", "bloom", "granite", "gpt-oss"])
def test_what_arrives_at_a_token_adds_up_to_one(name: str):
    for block in importances(opened(name), TOKENS):
        first = block.heads.sum((0, 2)) + block.residual + block.constant + (block.mlp if block.parallel else 0.0)
        torch.testing.assert_close(first, torch.ones(9), atol=1e-5, rtol=0)
        if not block.parallel:
            torch.testing.assert_close(block.mlp + block.before, torch.ones(9), atol=1e-5, rtol=0)
        assert float(block.heads.triu(1).abs().max()) == 0.0
        assert block.parallel == (name in ("gptj", "falcon"))


def made(n: int = 3) -> tuple[Importances, ...]:
    """Two blocks of one head: in the second, token 2 reads token 0, of which the rest is quiet."""
    quiet, one = torch.zeros(1, n, n), torch.ones(n)
    reads = quiet.clone()
    reads[0, 2, 0] = 0.5
    still = Importances(quiet, one, 0 * one, 0.01 * one, 0.99 * one, False, (HeadId(0, 0),))
    moves = Importances(reads, torch.tensor([1.0, 1.0, 0.5]), 0 * one, 0.3 * one, 0.7 * one, False, (HeadId(1, 0),))
    return still, moves


def test_a_route_follows_what_exceeds_the_threshold_and_nothing_else():
    tokens = torch.tensor([7, 8, 9])
    route = extract(tokens, made(), threshold=0.04)
    assert {(e.source, e.target, e.kind) for e in route.edges} == {
        (Node(3, 2), Node(4, 2), "residual"), (Node(3, 2), Node(4, 2), "mlp"),
        (Node(2, 2), Node(3, 2), "residual"), (Node(2, 0), Node(3, 2), "attention"),
        (Node(1, 2), Node(2, 2), "residual"), (Node(1, 0), Node(2, 0), "residual"),
        (Node(0, 2), Node(1, 2), "residual"), (Node(0, 0), Node(1, 0), "residual"),
    }  # fmt: skip
    assert route.heads() == {HeadId(1, 0): 0.5}
    assert Node(0, 1) not in route.nodes
    strict = extract(tokens, made(), threshold=0.6)
    assert {e.kind for e in strict.edges} == {"residual"}
    assert strict.heads() == {}
    assert {e.source.position for e in extract(tokens, made(), position=1).edges} == {1}


def test_shares_are_means_over_tokens_and_padding_does_not_matter():
    model, batch = opened("llama"), prompts(2)
    found = shares(model, batch)
    tokens = batch.tokens[1][batch.mask[1]]
    blocks = importances(model, tokens)
    assert found.values[1, 5] == pytest.approx(float(blocks[1].heads[1, 1:].sum(-1).mean()), abs=1e-6)
    inside = extract(tokens, blocks).heads()
    assert found.used[1].tolist() == [float(head in inside) for head in model.heads]
    wide = shares(model, batch.padded(left=2, right=1))
    np.testing.assert_allclose(wide.values, found.values, atol=1e-6)
    with pytest.raises(BadInput, match="one token"):
        shares(model, ha.Batch(torch.tensor([[5]]), torch.ones(1, 1, dtype=torch.bool)))


@pytest.mark.parametrize("name", ["jamba", "qwen3-next", "afmoe", "bert-masked", "t5"])
def test_models_whose_flow_is_not_known_are_refused(name: str):
    with pytest.raises(UnsupportedModel):
        importances(opened(name), TOKENS)


def test_wrong_positions_and_thresholds_are_named(tmp_path):
    with pytest.raises(BadInput, match="outside the text"):
        extract(torch.tensor([1, 2, 3]), made(), position=3)
    with pytest.raises(BadInput, match="threshold"):
        extract(torch.tensor([1, 2, 3]), made(), threshold=1.0)
    model = opened("llama")
    with pytest.raises(BadInput, match="No route is written"):
        export.write(model, extract(torch.tensor([1, 2, 3]), made()), tmp_path / "route.png")
    assert list(tmp_path.iterdir()) == []


def test_files_hold_the_route(narrow_smollm2, tmp_path):
    tokens = torch.tensor(narrow_smollm2.tokenizer.encode("a <b> & c\n")[:3])
    route = extract(tokens, made())
    for ending in (".json", ".graphml", ".svg", ".html"):
        export.write(narrow_smollm2, route, tmp_path / f"route{ending}")
    data = json.loads((tmp_path / "route.json").read_text())
    assert len(data["edges"]) == 8
    assert data["heads"] == {"1.0": 0.5}
    space = "{http://graphml.graphdrawing.org/xmlns}"
    root = ElementTree.fromstring((tmp_path / "route.graphml").read_text())
    nodes = {node.get("id") for node in root.iter(f"{space}node")}
    edges = list(root.iter(f"{space}edge"))
    assert len(nodes) == len(route.nodes)
    assert len(edges) == 8
    assert {edge.get(end) for edge in edges for end in ("source", "target")} <= nodes
    weights = sorted(float(e.find(f"{space}data[@key='edge-weight']").text) for e in edges)
    assert weights == sorted(edge.weight for edge in route.edges)
    drawing = ElementTree.fromstring((tmp_path / "route.svg").read_text())
    paths = list(drawing.iter("{http://www.w3.org/2000/svg}path"))
    assert len(paths) == 8
    widest = max(paths, key=lambda path: float(path.get("stroke-width")))
    assert "1.000" in widest[0].text
    page = (tmp_path / "route.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not list(tmp_path.glob("*.half"))


def test_the_command(load_gives_narrow_smollm2, tmp_path, capsys):
    def run(*options: str) -> tuple[int, str]:
        code, out, _ = pages.run(capsys, "flow", "smollm2-135m", *options)
        return code, out

    code, text = run("--prompt", "The capital of France is", "--out", str(tmp_path / "route.svg"))
    assert code == 0
    assert "nodes" in text
    assert (tmp_path / "route.svg").exists()
    printed = json.loads(run("--prompt", "The capital", "--json")[1])
    assert printed["schema"] == "headatlas/flow/1"
    assert printed["start_end"] == json.loads(run("--task", "ioi", "--n", "2", "--json")[1])["start_end"]
    assert "<|im_start|> (id 1)" in printed["start_end"]
    assert len(json.loads(run("--task", "ioi", "--n", "2", "--top", "3", "--json")[1])["heads"]) == 3
    (tmp_path / "own.jsonl").write_text(
        json.dumps({"prompt": "The capital of France is", "spans": {"what": "The capital"}})
    )
    own = ("--prompts", str(tmp_path / "own.jsonl"), "--json")
    named, numbered = (json.loads(run(*own, "--position", one)[1]) for one in ("what", "2"))
    assert named == numbered
    assert named["edges"] != json.loads(run(*own)[1])["edges"]
    several = ["--text", "a", "--text", "b", "--position", "1"]
    unnamed = [*own, "--position", "who"]
    wrongs = (["--prompt", "Hi there", "--position", "9"], [], ["--task", "ioi", "--out", "x.svg"], several, unnamed)
    for wrong in wrongs:
        assert run(*wrong)[0] == 1
