"""Positions that a pass is asked about, held against the tokens that it is given: what would act nowhere is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.ops.positions import FROM_THE_START, demand_real, positions_given, token_stack
from headatlas.ops.types import LayerKey


class _Edit(Protocol):
    @property
    def component(self) -> str: ...
    @property
    def layers(self) -> frozenset[LayerKey]: ...


def real_tokens(kind: str, inputs: Mapping[str, Any], valid: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Stack -> [example, pos] bool which tokens of a pass are real, where the inputs say it; none where a cache goes before."""
    if inputs.get("past_key_values") is not None:
        return {}
    two = kind == "encoder-decoder"
    ids = {"encoder": inputs.get("input_ids"), "decoder": inputs.get("decoder_input_ids" if two else "input_ids")}
    found = {}
    for stack, tokens in ids.items():
        mask = valid.get(stack)
        if isinstance(tokens, Tensor) and tokens.ndim == 2:
            plain = mask is not None and mask.shape == tokens.shape
            found[stack] = mask if mask is not None and plain else torch.ones_like(tokens, dtype=torch.bool)
    return found


def demand_positions(edits: Sequence[_Edit], real: Mapping[str, Tensor]) -> None:
    """Raise BadInput for an edit at a position that no text has, or that is an example's padding."""
    for edit in edits:
        stacks = {stack for stack, _ in edit.layers}
        at, keys = getattr(edit, "positions", None), getattr(edit, "keys", None)
        asked = [(token_stack(stack, edit.component), at) for stack in stacks if isinstance(at, Tensor)]
        asked += [(token_stack(stack, "k"), keys) for stack in stacks if isinstance(keys, Tensor)]
        for stack, positions in asked:
            if stack in real:
                demand_real(positions, real[stack], repr(edit))


def logit_positions_given(given: Any, n: int, length: int | None) -> Tensor:
    """[n] or [example, n] the positions whose logits are wanted. Raises BadInput for those that there are not.

    Of [example, n] -1 means none. length: of the stack that gives logits, None where it is not known.
    """
    positions = positions_given(given)
    shared = getattr(given, "ndim", 2 if len(positions) > 1 else 1) < 2
    if length is not None and int(positions.max()) >= length:
        raise BadInput(
            f"Logits at position {int(positions.max())} are beyond the text, whose tokens are 0 to {length - 1}.",
            FROM_THE_START,
        )
    if not shared and len(positions) not in (1, n):
        raise BadInput(f"logit_positions has {len(positions)} rows for {n} examples.", "Give [n] or [example, n].")
    return positions[0] if shared else positions.expand(n, -1)
