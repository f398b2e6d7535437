"""Edits in every family of the zoo: a zeroed head moves the output, equal values do not, runs start at a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import headatlas as ha
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.families import tiny_models
from tests.model.families import every_family, inputs, opened, tokens

pytestmark = pytest.mark.filterwarnings("ignore")


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to a share of the largest number."""
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


@every_family
def test_zeroing_a_head_of_any_layer_moves_the_output(name: str):
    model, given = opened(name), inputs(name)
    whole = model.forward(given)
    for layer in model.layers:
        edited = model.forward(given, edits=[ha.Zero([HeadId(layer.index, 1, layer.stack)])])
        assert not torch.equal(edited, whole), layer.name


@dataclass(frozen=True)
class Patterns:
    """An edit that multiplies the patterns of heads."""

    heads: tuple[HeadId, ...]
    factor: float = 1.0
    component: str = "pattern"

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        here = [head.head for head in self.heads if (head.stack, head.layer) == (layer.stack, layer.index)]
        changed = x.clone()
        changed[:, here] *= self.factor
        return changed


@every_family
def test_an_identity_edit_of_patterns_changes_nothing_and_a_real_one_does(name: str):
    model, given = opened(name), inputs(name)
    if not all(layer.pattern_editable for layer in model.layers):
        with pytest.raises(UnsupportedModel, match="patterns cannot be edited"):
            model.forward(given, edits=[Patterns(model.heads)])
        return
    whole = model.forward(given)
    close(model.forward(given, edits=[Patterns(model.heads)]), whole)
    head = model.layers[-1].heads[1:2]
    emptied = model.forward(given, edits=[Patterns(head, 0.0)])
    assert not torch.allclose(emptied, whole, atol=1e-4)
    if name != "bitnet":  # it normalises all heads' outputs together before they are written
        close(emptied, model.forward(given, edits=[ha.Zero(head)]))


@dataclass(frozen=True)
class Keep:
    """Keeps the residual stream at the entry of each block that attends."""

    heads: tuple[HeadId, ...]
    kept: dict[int, Tensor]
    component: str = "residual"

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        self.kept[layer.index] = x.clone()
        return x


# ALBERT's layers are one block; in T5 the first block computes the position bias of all.
CANNOT_RESTART = ("albert", "t5", "mt5", "switch")


@every_family
def test_a_run_started_at_a_layer_equals_the_whole_run(name: str):
    model, given, kept = opened(name), inputs(name), {}
    main = "decoder" if "decoder" in model.stacks else model.stacks[0]
    assert model.restarts == (name not in CANNOT_RESTART)
    if not model.restarts:
        with pytest.raises(UnsupportedModel, match="cannot start at a layer"):
            model.forward(given, start_at=(1, torch.zeros(2, 24, 32)))
        return
    heads = tuple(head for head in model.heads if head.stack == main)
    whole = model.forward(given, edits=[Keep(heads, kept)])
    assert torch.equal(whole, model.forward(given))
    assert len(kept) == len(tiny_models.family(name).stacks[main])
    for layer, residual in kept.items():
        again = model.forward(given, start_at=(model.block_index(main, layer), residual))
        torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)


CACHES = [
    "bloom",
    "falcon",
    "falcon-grouped",
    "falcon-alibi",
    "gptj",
    "gpt-neo",
    "mistral",
    "gpt-oss",
    "deepseek-v3",
    "bamba",
]


@pytest.mark.parametrize("name", CACHES)
def test_edits_act_in_cached_generation_as_in_whole_passes(name: str):
    model, sequence = opened(name), tokens(1, 20)
    edits = [ha.Zero([model.heads[1]])]
    with model.edited(edits) as hf:
        out = hf.generate(sequence, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    for _ in range(6):
        logits = model.forward(sequence, edits=edits)
        sequence = torch.cat([sequence, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, sequence)
