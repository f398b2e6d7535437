"""Averaged inputs and blocked induction patterns: against the plain model with hooks, and with the pattern changed by hand."""

from __future__ import annotations

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.induction_ablation import averaged_inputs, pattern_knockout
from headatlas.task import Batch, find_task, next_token_loss
from tests import toys

D_HEAD = 8


def prompts(n: int = 4, length: int = 10) -> Batch:
    tokens = torch.randint(5, 12, (n, length), generator=torch.Generator().manual_seed(1))
    return Batch(tokens, torch.ones(n, length, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["mha", "gqa"])
def test_a_head_with_averaged_input_gives_what_the_block_gives_that_reads_the_mean(kind: str):
    model, batch, head = toys.model(kind), prompts(), HeadId(1, 2)
    block = model.hf.model.layers[1].self_attn
    seen: dict[str, torch.Tensor] = {}
    read = block.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(x=kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(batch.tokens)
        read.remove()
        mean = seen["x"].mean(0, keepdim=True).expand_as(seen["x"])
        put = block.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "hidden_states": mean}), with_kwargs=True
        )
        take = block.o_proj.register_forward_pre_hook(lambda _, args: seen.update(z=args[0]))
        model.hf(batch.tokens)
        put.remove()
        take.remove()

        def change(_, args):
            z = args[0].clone()
            own = slice(D_HEAD * head.head, D_HEAD * (head.head + 1))
            z[..., own] = seen["z"][..., own]
            return (z,)

        swap = block.o_proj.register_forward_pre_hook(change)
        wanted = model.hf(batch.tokens).logits
        swap.remove()
        plain = model.hf(batch.tokens).logits
    found = model.forward(batch, edits=[averaged_inputs(model, [head], batch)])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert float((found - plain).abs().max()) > 1e-4


def test_blocked_are_the_tokens_behind_earlier_copies_and_nothing_else():
    model, batch, heads = toys.model("gqa"), prompts(), [HeadId(0, 1)]
    patterns: list[list[torch.Tensor]] = [[], []]
    for which, edits in enumerate(([], pattern_knockout(heads, batch))):
        model.forward(batch, edits=edits, watch=lambda layer, kept=patterns[which]: kept.append(layer.pattern.clone()))
    before, after = (kept[0][:, 1] for kept in patterns)
    wanted = before.clone()
    for e, row in enumerate(batch.tokens.tolist()):
        for query in range(len(row)):
            for key in range(query - 1):
                if row[key] == row[query]:
                    wanted[e, query, key + 1] = 0.0
    assert float((wanted - before).abs().max()) > 0.01
    torch.testing.assert_close(after, wanted / wanted.sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(patterns[1][0][:, 0], patterns[0][0][:, 0])


def test_prompts_without_repeats_have_nothing_to_block_and_padding_is_no_repeat():
    tokens = torch.tensor([[5, 6, 7, 8, 0, 0, 0], [5, 6, 5, 8, 9, 10, 11]])
    mask = tokens > 0
    assert [edit.positions.tolist() for edit in pattern_knockout([HeadId(0, 0)], Batch(tokens, mask))] == [[[-1], [2]]]
    assert pattern_knockout([HeadId(0, 0)], Batch(tokens[:1], mask[:1])) == []


def test_averages_of_prompts_of_different_lengths_are_refused():
    tokens = torch.tensor([[5, 6, 7], [5, 6, 0]])
    with pytest.raises(BadInput, match="one length"):
        averaged_inputs(toys.model("mha"), [HeadId(0, 0)], Batch(tokens, tokens > 0))


def test_ablate_takes_averaged_inputs_head_by_head():
    model = toys.model("gqa")
    batch = find_task("repeated")(model.tokenizer, 3, 0)
    found = ha.ablate(model, batch, edit="input", metric=next_token_loss)
    places = next_token_loss.positions(batch)
    for head in (HeadId(0, 1), HeadId(1, 3)):
        edits = [averaged_inputs(model, [head], batch)]
        changed, plain = (
            next_token_loss.score(model.forward(batch, edits=one, logit_positions=places), batch) for one in (edits, [])
        )
        torch.testing.assert_close(
            torch.from_numpy(found.effects[:, found.heads.index(head), 0]).float(),
            changed - plain,
            atol=1e-5,
            rtol=1e-4,
        )
