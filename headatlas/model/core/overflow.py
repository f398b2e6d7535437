"""Numbers that left the range of float16 are an error with a place, not a NaN in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.model.core.attention_layer import blocks_by_path
from headatlas.model.core.hooks import evaluating


def refuse_overflow(hf: nn.Module, found: Tensor, inputs: Mapping[str, Any], valid: Tensor | None) -> None:
    """Raise BadInput where `found` [example, pos, ...] is infinite or undefined, naming the block that first was.

    inputs: what the model ran on. valid: [example, pos] bool, False on padding, whose rows may hold anything.
    """
    finite = found.isfinite().flatten(2).all(-1)
    if valid is not None and valid.shape == finite.shape:
        finite = finite | ~valid
    if bool(finite.all()):
        return
    first: list[str] = []

    def look(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if not first and isinstance(hidden, Tensor) and not bool(hidden.isfinite().all()):
                first.append(path)

        return hook

    embeddings: nn.Module = hf.get_input_embeddings()  # type: ignore[operator]
    places = {"the token embeddings": embeddings, **blocks_by_path(hf)}
    handles = [module.register_forward_hook(look(path)) for path, module in places.items()]
    try:
        with evaluating(hf), torch.no_grad():
            hf(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    raise BadInput(
        f"{int((~finite).any(-1).sum())} of {len(finite)} examples overflow float16 in {type(hf).__name__}, first in "
        f"{first[0] if first else 'the logits'}: their numbers are infinite or undefined.",
        "Load the model with dtype bfloat16 or float32.",
    )
