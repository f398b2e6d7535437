"""Finding the parts of an unmodified model by watching one short forward pass, not by knowing its family.

Where attention is computed, which projection takes the heads' outputs, which block it belongs to, whether a norm
follows before the residual stream, and how hidden states become logits: all is seen in what calls what with which tensor.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from headatlas.errors import UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer, blocks_by_path
from headatlas.model.core.dispatch import delegate
from headatlas.model.core.linear_and_norm import (
    is_affine,
    is_linear,
    is_norm,
    note_changes,
    plain_weight,
)
from headatlas.model.core.unembedding import Unembedding, unembedding_of
from headatlas.model.structure.output_projection import projection_of, require_rowwise, whole_projection, wrappers
from headatlas.model.structure.softmax_watch import SoftmaxWatch, mixes_tokens
from headatlas.model.structure.write_path import BlockCall, WritePath, write_path
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
    again: bool = False  # whether it was called once more
    ways: list[nn.Module] = field(default_factory=list)  # linear maps that follow and fit, in order
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)  # of what follows, wrappers of linear maps included
    posts: dict[nn.Module, nn.Module] = field(default_factory=dict)  # module -> the norm that its output enters


class LayerProbe:
    """Watches one forward pass: attention calls in order, and what each of their outputs runs into."""

    def __init__(self, model: nn.Module, path: str) -> None:
        self.model, self.path = model, path
        self.calls: list[Call] = []
        self.blocks: dict[nn.Module, int] = {}  # block -> how many things it returned in a tuple, 0 for a bare tensor
        self.block_calls: dict[nn.Module, BlockCall] = {}
        self.final_input: Tensor | None = None  # what the unembedding got
        self.norms: list[tuple[nn.Module, Tensor]] = []  # (norm, its output)
        self.ran: dict[nn.Module, None] = {}  # linear maps whose weight is no plain parameter
        self.vector_maps: dict[
            nn.Module, int
        ] = {}  # modules that take one tensor and give one, around linear maps -> width
        self.softmaxes = SoftmaxWatch(module for _, module in attention_like(model))
        self._handles: list[RemovableHandle] = []

    def attends(self, module: nn.Module) -> bool:
        """Every module's calls are looked at."""
        return True

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Record a call and compute it as the model would."""
        if not all(type(x) is Tensor for x in (query, key, value)):
            raise UnsupportedModel(
                f"The attention of {type(module).__name__} is handed a {type(value).__name__} (quantised activations, or a tensor spread over "
                "devices), which cannot be looked into.",
                "Quantise weights alone, and load the model in one process.",
            )
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
        if last is not None and last.settled and module is last.projection:
            last.again = True
        if last is not None and not last.settled and is_linear(module) and x.shape[-1] == last.width:
            last.ways.append(module)
            # The very numbers that attention gave, seen through a view: nothing else can be their projection.
            last.settled = x.data_ptr() == last.attended.data_ptr()
            last.projection = module if last.settled else last.ways[0]
        for call in self.calls[-2:]:
            # The very tensor that left the projection enters a norm: a post-norm (Gemma 2/3, OLMo 2).
            if is_norm(module):
                for way in (way for way, output in call.outputs.items() if output is x):
                    call.posts.setdefault(way, module)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if is_linear(module) and args and isinstance(args[0], Tensor):
            note_changes(module, args[0], output)
            if plain_weight(module) is None:
                self.ran[module] = None
        for call in self.calls[-1:]:
            if module in call.ways or module in self.vector_maps:
                call.outputs.setdefault(module, output)
        if is_norm(module):
            self.norms.append((module, output))

    def _wraps(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if isinstance(output, Tensor) and len(given) == 1 and args and given[0] is args[0]:
            self.vector_maps[module] = given[0].shape[-1]

    def __enter__(self) -> LayerProbe:
        for module in self.model.modules():
            around = not is_linear(module) and any(is_linear(part) for part in module.modules())
            if around:
                self._handles.append(module.register_forward_hook(self._wraps, with_kwargs=True))
            if around or is_linear(module) or is_norm(module) or not any(True for _ in module.children()):
                self._handles.append(module.register_forward_pre_hook(self._before))
                self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
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


def attention_layers(
    probe: LayerProbe, model: nn.Module, kind: str, n_decoder: int | None = None
) -> tuple[AttentionLayer, ...]:
    """The attention layers that the probe saw, numbered within their stack; see `stack_of` for kind and n_decoder."""
    names = {module: name for name, module in model.named_modules()}
    for module in probe.ran:
        require_rowwise(module, names[module])
    blocks = blocks_by_path(model)
    taken: set[LayerKey] = set()
    shared = len({call.module for call in probe.calls}) < len(probe.calls)
    two_texts = kind == "encoder-decoder" or "decoder_input_ids" in inspect.signature(model.forward).parameters
    for call in probe.calls:
        if two_texts and call.n_keys > max(other.n_queries for other in probe.calls):
            raise UnsupportedModel(
                f"{type(model).__name__} is not supported: {names[call.module]} attends to the encoder's tokens and the decoder's "
                "own in one softmax, so its heads belong to two stacks.",
                "Run `headatlas families` for the families that work.",
            )
    result = []
    for call in probe.calls:
        name = names[call.module]
        stack = stack_of(call, kind, n_decoder)
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        layer = numbers[0] if numbers and not shared else sum(1 for known, _ in taken if known == stack)
        if (stack, layer) in taken:
            layer = sum(1 for known, _ in taken if known == stack)
        taken.add((stack, layer))
        block = next((one for path, one in blocks.items() if name.startswith(path + ".")), None)
        if block is not None and not call.settled and call.ways:
            call.projection = projection_of(
                block, probe.block_calls[block], call.module, call.ways, call.n_heads, probe.path
            )
        if call.projection is None:
            raise UnsupportedModel(
                f"{type(model).__name__} is not supported: no output projection takes the heads' outputs as they leave the "
                f"attention of {name} ({type(call.module).__name__}), so what single heads write cannot be told apart.",
                "Run `headatlas families` for the families that work.",
            )
        if call.again:
            raise UnsupportedModel(
                f"The output projection of {name} takes something else in the same pass beside what its heads put out, as where an adapter "
                "attends to learned prompts, so edits of heads would miss a part of the attention.",
                "Open the model without that adapter.",
            )
        around = wrappers(
            model,
            names[call.projection],
            call.module,
            {m for m, width in probe.vector_maps.items() if width == call.width},
        )
        path = WritePath()
        if block is None:
            projection = next(
                (one for one in (*around, call.projection) if is_affine(one, call.width)), call.projection
            )
        else:
            try:
                projection = whole_projection(
                    block, probe.block_calls[block], call.module, call.projection, around, probe.path
                )
                path = write_path(block, probe.block_calls[block], projection)
            except (RuntimeError, TypeError, ValueError) as error:
                raise UnsupportedModel(
                    f"A block of {type(model).__name__} ({type(block).__name__}) cannot be run again on what it was given "
                    f"({' '.join(str(error).split())[:80]}), so where its heads' writes enter cannot be seen.",
                    "Does it keep a cache of its own?",
                ) from error
        linear = is_affine(projection, call.width)
        result.append(
            AttentionLayer(stack, layer, call.module, projection, None if shared else block, name, call.n_heads, call.n_groups, call.d_head,
                 call.width // call.n_heads, call.causal and stack == "decoder", path.gain, path.factor, linear=linear,
                 indirect=path.indirect, post_norm=call.posts.get(projection))
        )  # fmt: skip
    return tuple(result)


def unembedding(probe: LayerProbe, model: nn.Module) -> Unembedding | None:
    """The unembedding with the norm in front of it, or None where logits are not a linear read-out of the last block."""
    head = unembedding_of(model)
    if head is None or probe.final_input is None or not is_affine(head, probe.final_input.shape[-1]):
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

    # Attention that this text does not come to (a vision tower's, a decoder's to an absent encoder) is left alone, and so are
    # linear attention, which has no pattern, and a softmax within a token. What attends by a softmax of its own has heads
    # that cannot be seen.
    missed = [
        (name, module)
        for name, module in candidates
        if module in probe.softmaxes.with_softmax
        and not seen(module)
        and mixes_tokens(module, probe.softmaxes.ran[module])
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
