"""Finding the parts of an unmodified model by watching one short forward pass, not by knowing its family.

Where attention is computed, which projection takes the heads' outputs, which block it belongs to, whether a norm
follows before the residual stream, and how hidden states become logits: all is seen in what calls what with which tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from headatlas.errors import UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer, blocks_by_path
from headatlas.model.core.dispatch import delegate, receiving
from headatlas.model.core.linear_and_norm import is_linear, is_norm, matrix, norm_gain
from headatlas.model.core.unembedding import Unembedding, unembedding_of
from headatlas.model.structure.softmax_watch import SoftmaxWatch
from headatlas.model.structure.write_path import BlockCall, write_path
from headatlas.ops.types import LayerKey


@dataclass
class Call:
    """One attention call seen by the probe."""

    module: nn.Module
    n_heads: int
    n_groups: int
    d_head: int
    width: int  # n_heads x d_value
    causal: bool
    n_queries: int
    n_keys: int
    attended: Tensor  # what the attention gave; held, so that nothing else comes to lie at its address
    projection: nn.Module | None = None
    settled: bool = False  # whether the projection is beyond doubt
    ways: list[nn.Module] = field(default_factory=list)  # linear maps that follow and fit, in order
    output: Tensor | None = None  # the projection's output
    post: nn.Module | None = None


class LayerProbe:
    """Watches one forward pass: attention calls in order, and what each of their outputs runs into."""

    def __init__(self, model: nn.Module, path: str) -> None:
        self.model, self.path = model, path
        self.calls: list[Call] = []
        self.blocks: dict[nn.Module, int] = {}  # block -> how many things it returned in a tuple, 0 for a bare tensor
        self.block_calls: dict[nn.Module, BlockCall] = {}
        self.final_input: Tensor | None = None  # what the unembedding got
        self.norms: list[tuple[nn.Module, Tensor]] = []  # (norm, its output)
        self.softmaxes = SoftmaxWatch(module for _, module in attention_like(model))
        self._handles: list[RemovableHandle] = []

    def attends(self, module: nn.Module) -> bool:
        """Every module's calls are looked at."""
        return True

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Record a call and compute it as the model would."""
        output, weights = delegate(self.path, module)(module, query, key, value, mask, **kwargs)
        causal = mask is None and bool(
            kwargs["is_causal"] if kwargs.get("is_causal") is not None else getattr(module, "is_causal", True)
        )
        if mask is not None and mask.shape[-1] == mask.shape[-2] > 1:
            seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            causal = not bool(seen.triu(1).any())
        self.calls.append(
            Call(
                module,
                query.shape[1],
                key.shape[1],
                query.shape[-1],
                output.shape[-1] * output.shape[-2],
                causal,
                query.shape[2],
                key.shape[2],
                output,
            )
        )
        return output, weights

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not args or not isinstance(args[0], Tensor):
            return
        x = args[0]
        last = self.calls[-1] if self.calls else None
        if last is not None and not last.settled and is_linear(module) and x.shape[-1] == last.width:
            last.ways.append(module)
            # The very numbers that attention gave, seen through a view: nothing else can be their projection.
            last.settled = x.data_ptr() == last.attended.data_ptr()
            last.projection = module if last.settled else last.ways[0]
        for call in self.calls[-2:]:
            # The very tensor that left the projection enters a norm: a post-norm (Gemma 2/3, OLMo 2).
            if call.output is not None and x is call.output and call.post is None and is_norm(module):
                call.post = module

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        for call in self.calls[-1:]:
            if module is call.projection and call.output is None:
                call.output = output
        if isinstance(output, Tensor) and is_norm(module):
            self.norms.append((module, output))

    def __enter__(self) -> LayerProbe:
        for module in self.model.modules():
            if not any(True for _ in module.children()) or is_norm(module):
                self._handles.append(module.register_forward_pre_hook(self._before))
                self._handles.append(module.register_forward_hook(self._after))
        for block in blocks_by_path(self.model).values():
            self._handles.append(block.register_forward_hook(self._block, with_kwargs=True))
        head = unembedding_of(self.model)
        if head is not None:
            self._handles.append(head.register_forward_pre_hook(self._final))
        self.softmaxes.__enter__()
        return self

    def _block(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.blocks[module] = len(output) if isinstance(output, tuple) else 0
        self.block_calls[module] = (args, kwargs)

    def _final(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.final_input = args[0]

    def __exit__(self, *_: object) -> None:
        self.softmaxes.__exit__()
        for handle in self._handles:
            handle.remove()


def attention_like(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules whose class is called attention and that own weights, outermost first, nested ones left out."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(known + ".") for known, _ in found)
        owns = any(parameter.ndim >= 2 for parameter in module.parameters())
        if "attention" in type(module).__name__.lower() and owns and not inside:
            found.append((name, module))
    return found


def stack_of(call: Call, kind: str, n_decoder: int | None) -> str:
    """decoder, encoder or cross: what a layer reads, not what it is called.

    A model of one stack has that stack. Of an encoder-decoder, which was run on texts of different lengths, the queries and
    keys of a call tell: n_decoder is the length of the decoder's text.
    """
    if kind != "encoder-decoder":
        return kind
    if call.n_queries != n_decoder:
        return "encoder"
    return "decoder" if call.n_keys == n_decoder else "cross"


class _Nudge:
    """Runs one attention module's attention with its output moved a little, if asked to; all else as the model would."""

    def __init__(self, module: nn.Module, path: str, size: float) -> None:
        self.module, self.path, self.size = module, path, size

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
        return output + self.size * output.float().std().to(output.dtype) * step, weights


def projection_of(block: nn.Module, block_call: BlockCall, call: Call, path: str) -> nn.Module | None:
    """The output projection: the first linear map after an attention call whose input moves when the attention's output does.

    The next linear map of the right width may as well compute a gate from the hidden states. The block is run twice on what
    it was given, the second time with the attention's output nudged.
    """
    seen: list[dict[nn.Module, Tensor]] = []
    for size in (0.0, 1.0):
        inputs: dict[nn.Module, Tensor] = {}
        handles = [
            way.register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.update({module: args[0].clone()}))
            for way in set(call.ways)
        ]
        try:
            with receiving(_Nudge(call.module, path, size)):
                block(*block_call[0], **block_call[1])
        finally:
            for handle in handles:
                handle.remove()
        seen.append(inputs)
    plain, nudged = seen
    moved = (way for way in call.ways if way in plain and way in nudged and not torch.equal(plain[way], nudged[way]))
    return next(moved, None)


def attention_layers(
    probe: LayerProbe, model: nn.Module, kind: str, n_decoder: int | None = None
) -> tuple[AttentionLayer, ...]:
    """The attention layers that the probe saw, numbered within their stack; see `stack_of` for kind and n_decoder."""
    names = {module: name for name, module in model.named_modules()}
    blocks = blocks_by_path(model)
    taken: set[LayerKey] = set()
    shared = len({call.module for call in probe.calls}) < len(probe.calls)
    result = []
    for call in probe.calls:
        name = names[call.module]
        stack = stack_of(call, kind, n_decoder)
        if stack == "cross" and call.n_keys > max(other.n_queries for other in probe.calls):
            raise UnsupportedModel(
                f"{type(model).__name__} is not supported: {name} attends to the encoder's tokens and the decoder's own in one "
                "softmax, so its heads belong to two stacks.",
                "Run `headatlas families` for the families that work.",
            )
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        layer = numbers[0] if numbers and not shared else sum(1 for known, _ in taken if known == stack)
        if (stack, layer) in taken:
            layer = sum(1 for known, _ in taken if known == stack)
        taken.add((stack, layer))
        block = next((one for path, one in blocks.items() if name.startswith(path + ".")), None)
        if block is not None and not call.settled and call.ways:
            call.projection = projection_of(block, probe.block_calls[block], call, probe.path)
        if call.projection is None:
            raise UnsupportedModel(
                f"{type(model).__name__} is not supported: no output projection takes the heads' outputs as they leave the "
                f"attention of {name} ({type(call.module).__name__}), so what single heads write cannot be told apart.",
                "Run `headatlas families` for the families that work.",
            )
        gain, factor = None, 1.0
        if block is not None:
            try:
                gain, factor = write_path(block, probe.block_calls[block], call.projection)
            except (RuntimeError, TypeError, ValueError) as error:
                raise UnsupportedModel(
                    f"A block of {type(model).__name__} ({type(block).__name__}) cannot be run again on what it was given "
                    f"({' '.join(str(error).split())[:80]}), so where its heads' writes enter cannot be seen.",
                    "Does it keep a cache of its own?",
                ) from error
        post_norm = call.post if gain is None else None
        if call.post is not None:
            scale = norm_gain(call.post, matrix(call.projection).shape[1])[0]
            gain = scale if gain is None else scale * gain
        result.append(
            AttentionLayer(stack, layer, call.module, call.projection, None if shared else block, name, call.n_heads, call.n_groups, call.d_head,
                 call.width // call.n_heads, call.causal and stack == "decoder", gain, factor, post_norm=post_norm)
        )  # fmt: skip
    return tuple(result)


def unembedding(probe: LayerProbe, model: nn.Module) -> Unembedding | None:
    """The unembedding with the norm in front of it, or None where logits are not a linear read-out of the last block."""
    head = unembedding_of(model)
    if head is None or probe.final_input is None or not is_linear(head):
        return None
    last = probe.final_input
    for norm, output in reversed(probe.norms):
        if output.data_ptr() == last.data_ptr() and output.shape[-1] == last.shape[-1]:
            return Unembedding(head, norm, last.shape[-1])
    return None


def check_firing(probe: LayerProbe, model: nn.Module, architecture: str) -> None:
    """Refuse a model some of whose attention never asked the attention interface. Raises UnsupportedModel."""
    fired = {call.module for call in probe.calls}
    candidates = attention_like(model)

    def seen(module: nn.Module) -> bool:
        return any(part in fired for part in module.modules())

    # Attention that this text does not come to (a vision tower's, a decoder's to an absent encoder) is left alone, and so is
    # linear attention, which has no pattern. What attends by a softmax of its own has heads that cannot be seen.
    missed = [
        (name, module)
        for name, module in candidates
        if module in probe.softmaxes.ran and module in probe.softmaxes.with_softmax and not seen(module)
    ]
    if not fired and not missed:
        raise UnsupportedModel(
            f"{architecture} has no attention heads (no attention by a softmax in {type(model).__name__} on plain tokens).",
            "headatlas needs a transformer with softmax attention.",
        )
    if missed:
        kinds = sorted({type(module).__name__ for _, module in missed})
        raise UnsupportedModel(
            f"{architecture} is not supported: {len(missed)} of {len(candidates)} attention modules ({', '.join(kinds)}; first: {missed[0][0]}) "
            "compute attention without asking transformers' attention interface, so their heads cannot be seen or changed.",
            "Run `headatlas families` for the families that work, or add a layout in headatlas/model/layouts/.",
        )
