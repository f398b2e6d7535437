"""The output projection of an attention layer: the module through which everything goes that its heads put out.

It is found by nudging. Where adapters lie beside a weight (LoRA), the module is the wrapper around both, so that an edit of
z reaches both and the matrix of the wrapper, read by unit vectors, is what heads write through. Where something else reads
what heads put out, edits would miss it, and the model is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.dispatch import delegate, receiving
from headatlas.model.core.linear_and_norm import is_affine, is_rowwise
from headatlas.model.structure.write_path import BlockCall


class _Nudge:
    """Runs one attention module's attention with its output moved, that of the last head alone if asked to; all else as the model would."""

    def __init__(self, module: nn.Module, path: str, size: float, *, last: bool = False) -> None:
        self.module, self.path, self.size, self.last = module, path, size, last

    def attends(self, module: nn.Module) -> bool:
        """The one module alone."""
        return module is self.module

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> Any:
        """The model's own output, moved."""
        output, weights = delegate(self.path, module)(module, query, key, value, mask, **kwargs)
        generator = torch.Generator().manual_seed(0)
        step = torch.randn(output.shape, generator=generator).to(output.device, output.dtype)
        if self.last:
            step[..., :-1, :] = 0
        spread = output.float().std().to(output.dtype)
        # Heads that were pruned put out zeros; whatever they would put out goes the same way.
        return output + self.size * (spread if bool(spread > 0) else 1.0) * step, weights


def projection_of(
    block: nn.Module, block_call: BlockCall, attention: nn.Module, ways: Sequence[nn.Module], n_heads: int, path: str
) -> nn.Module | None:
    """The output projection: the first of the linear maps `ways` after an attention call that takes each head's output in its own columns.

    The next linear map of the right width may as well compute a gate from the hidden states, or mix heads that another map
    has mixed before (DeepSeek V4). The block is run twice on what it was given, the second time with the output of the last
    head nudged: its own columns move, and others, where a norm over all heads lies between, by little.
    """
    seen: list[dict[nn.Module, Tensor]] = []
    for size in (0.0, 1.0):
        inputs: dict[nn.Module, Tensor] = {}
        handles = [
            way.register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.update({module: args[0].clone()}))
            for way in set(ways)
        ]
        try:
            with receiving(_Nudge(attention, path, size, last=True)):
                block(*block_call[0], **block_call[1])
        finally:
            for handle in handles:
                handle.remove()
        seen.append(inputs)
    plain, nudged = seen
    for way in ways:
        if way in plain and way in nudged:
            moved = (nudged[way] - plain[way]).float().square().flatten(0, -2).sum(0).unflatten(0, (n_heads, -1))
            if 2 * moved[-1].sum() > moved.sum():
                return way
    return None


def wrappers(model: nn.Module, path: str, attention: nn.Module, fitting: Collection[nn.Module]) -> list[nn.Module]:
    """The modules around the one at `path`, outermost first, that are among `fitting` and do not hold the attention itself."""
    parts = path.split(".")
    around = [model.get_submodule(".".join(parts[:n])) for n in range(1, len(parts))]
    return [one for one in around if one in fitting and all(attention is not part for part in one.modules())]


def whole_projection(
    block: nn.Module,
    block_call: BlockCall,
    attention: nn.Module,
    found: nn.Module,
    around: Sequence[nn.Module],
    path: str,
) -> nn.Module:
    """The projection `found`, or what is wrapped around it (outermost first): the outermost linear map.

    Where something beside it takes what heads put out, the innermost wrapper that holds that too. Raises UnsupportedModel
    where none does.
    """
    first = next((one for one in (*around, found) if is_affine(one)), found)
    inside = set(first.modules())
    for one in (first, *(wrapper for wrapper in reversed(around) if wrapper not in inside)):
        if not _passes_by(block, block_call, attention, one, path):
            return one
    raise UnsupportedModel(
        f"What the heads of {type(attention).__name__} put out is read by more than their output projection "
        f"({type(found).__name__}), so an edit of it would miss a part.",
        "Merge adapters first: model.merge_and_unload().",
    )


def _passes_by(block: nn.Module, block_call: BlockCall, attention: nn.Module, projection: nn.Module, path: str) -> bool:
    """Whether the block's output moves with what heads put out even while what leaves the projection is held."""
    held: list[Tensor] = []

    def hold(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if len(held) == 0:
            held.append(output.clone())
        return held[0].clone()

    outputs = []
    handle = projection.register_forward_hook(hold)
    try:
        for size in (0.0, 1.0):
            with receiving(_Nudge(attention, path, size)):
                output = block(*block_call[0], **block_call[1])
            outputs.append((output[0] if isinstance(output, tuple) else output).float())
    finally:
        handle.remove()
    plain, moved = outputs
    # Kernels that add in changing order (on GPUs) move the last digits.
    return bool((plain - moved).abs().max() > 8 * torch.finfo(held[0].dtype).eps * plain.abs().max())


def require_rowwise(linear: nn.Module, name: str) -> None:
    """Raise UnsupportedModel where what a linear map gives for one token depends on what stands beside it in the batch."""
    if not is_rowwise(linear):
        raise UnsupportedModel(
            f"{name} ({type(linear).__name__}) rounds what it is given to int8 by looking at the whole batch (one scale for all tokens, or "
            "outlier channels of any of them), so every number would depend on what else is in its batch.",
            "Load float weights, or quantise weights alone (nf4, int8 weight-only) or with a scale per token.",
        )
