"""A transformers cache made of parts, for the model's own `generate()`, and attention over it.

1. The model's code gives each layer's new keys and values to the cache (`update`). What it gets back is no tensor but `Held`,
   which lets nothing be computed with it: no attention that does not know such a cache can give a wrong number.
2. It then calls its attention function, which under `in_force` is `_Holding.attend`, as for passes (`model/core/dispatch.py`).
   The first call of a text attends in full, by the model's own function on the very tensors; then each part takes what it
   keeps. Later calls ask the model's own function part by part, with the part's query heads, keys, values and mask.
3. Masks and positions are the model's: the cache says that it has seen all tokens, and a part looks up its own columns.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core.dispatch import active, delegate, receiving
from headatlas.model.core.hooks import evaluating
from headatlas.model.core.model import Model
from headatlas.model.holding.own import new_cache
from headatlas.model.holding.parts import Part, Whole, Window
from headatlas.model.holding.span import LayerShape, Span
from headatlas.reading import reason

TOLERANCE = (
    1e-3  # of logits, relative to their largest, between the model's own cache and one of parts that keep everything
)
_SHAPES: weakref.WeakKeyDictionary[nn.Module, tuple[LayerShape, ...]] = weakref.WeakKeyDictionary()


class Held:
    """What a cache of parts gives in the place of keys or of values: `new` [example, group, token, d], and where they go."""

    def __init__(self, layer: HeadwiseLayer, new: Tensor) -> None:
        self.layer, self.new = layer, new

    def __getattr__(self, name: str) -> NoReturn:
        raise self._refused()

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> NoReturn:
        raise cls._refused()

    @staticmethod
    def _refused() -> HeldElsewhere:
        return HeldElsewhere(
            "A cache that holds less was used where its plan is not in force, or by a model that computes with what caches return.",
            "Use it in here: with plan.on(model) as hf: hf.generate(..., past_key_values=plan.cache(model)).",
        )


class HeldElsewhere(UnsupportedModel, AttributeError):
    """What asks a cache that holds less for more than it has; an AttributeError too, so that `hasattr` says no."""


class HeadwiseLayer(CacheLayerMixin):
    """One layer's cache. seen: columns that it was given, padding included."""

    is_croppable = False
    supports_early_init = False

    def __init__(self, shape: LayerShape, spans: Sequence[Span | None]) -> None:
        super().__init__()
        self.shape, self.spans = shape, tuple(spans)
        self.is_sliding = shape.window is not None
        self.parts: list[Part] = []
        self.seen = self.n_examples = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: parts are made when it is known how long the text is."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Keys and values of new tokens, to be taken up by the attention call that follows."""
        return Held(self, key_states), Held(self, value_states)

    def fill(self, keys: Tensor, values: Tensor, n_tokens: int, starts: Tensor, per_group: int) -> None:
        """Keep what is to be kept of a text of `n_tokens` columns, of which these keys and values are the last."""
        self.seen, self.n_examples, self.is_initialized = n_tokens, len(keys), True
        alike: dict[Span | None, list[int]] = {}
        for group, span in enumerate(self.spans):
            alike.setdefault(_narrowed(span, self.shape.window), []).append(group)
        self.parts = []
        for span, groups in alike.items():
            part = Whole(groups, per_group) if span is None else Window(groups, per_group, span, n_tokens)
            part.fill(keys[:, groups], values[:, groups], n_tokens - keys.shape[2], starts)
            self.parts.append(part)

    @property
    def n_bytes(self) -> int:
        """Bytes of its tensors, as they are allocated."""
        return sum(part.n_bytes for part in self.parts)

    def get_seq_length(self) -> int:
        """How many tokens it has seen, held or not: the position of the next."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Masks are made for all tokens that were seen; each part looks up its own."""
        if not isinstance(query_length, int):  # transformers before 5.6 gave positions
            query_length = len(query_length)
        return self.seen + query_length, 0

    def get_max_length(self) -> int:
        """No end."""
        return -1

    get_max_cache_shape = get_max_length

    def reset(self) -> None:
        """Forget the text."""
        self.parts, self.seen, self.is_initialized = [], 0, False

    def crop(self, *_: Any) -> None:
        """Refused: what was dropped cannot be brought back."""
        raise BadInput("A cache that holds less cannot be cropped: what it dropped is gone.", "Start the text anew.")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the examples in another order (beams)."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these examples."""
        for part in self.parts:
            part.pick(indices)
        self.n_examples = len(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each example so many times."""
        self.batch_select_indices(torch.arange(self.n_examples).repeat_interleave(repeats))

    @property
    def batch_size(self) -> int:
        """Examples that it holds."""
        return self.n_examples


def _narrowed(span: Span | None, window: int | None) -> Span | None:
    """A span inside the model's own window, which is a span as well where there is one."""
    if window is None:
        return span
    return Span(0, window) if span is None else span.within(window)


class HeadwiseCache(Cache):
    """A transformers cache in which each key-value group holds a span of its own; made by `CachePlan.cache` and `evicted`.

    shapes: of the layers. spans: [layer][group], None for everything.
    """

    def __init__(self, shapes: Sequence[LayerShape], spans: Sequence[Sequence[Span | None]]) -> None:
        self.headwise = [HeadwiseLayer(*pair) for pair in zip(shapes, spans, strict=True)]
        super().__init__(layers=list(self.headwise))

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors that it holds, as they are allocated."""
        return sum(layer.n_bytes for layer in self.headwise)

    def __repr__(self) -> str:
        return f"HeadwiseCache({self.get_seq_length()} tokens seen, {self.n_bytes:,} bytes)"


class _Holding:
    """Where attention calls go while a plan is in force."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.per_group = {layer.module: layer.n_heads // layer.n_groups for layer in model.layers}

    def attends(self, module: nn.Module) -> bool:
        """Whether a call is one of the model's own layers'."""
        return module in self.per_group

    def attend(
        self, module: nn.Module, query: Tensor, key: Any, value: Any, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """One call: in full for the first tokens of a text, then part by part."""
        if not isinstance(key, Held) or not isinstance(value, Held):
            raise BadInput(
                "A model was called under a cache plan, but with a cache of its own.",
                "Give the plan's: hf.generate(..., past_key_values=plan.cache(model)).",
            )
        own, layer, keys, values = delegate(self.model.path, module), key.layer, key.new, value.new
        if not layer.seen:
            z = own(module, query, keys, values, mask, **kwargs)[0]
            layer.fill(keys, values, keys.shape[2], first_columns(mask, keys), self.per_group[module])
            return z, None
        begin, layer.seen = layer.seen, layer.seen + query.shape[2]
        z = query.new_empty(len(query), query.shape[2], query.shape[1], values.shape[3])

        def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
            found: Tensor = own(module, q, k, v, seen, **kwargs)[0]
            return found

        for part in layer.parts:
            heads, groups = part.heads.to(query.device), part.groups.to(query.device)
            z[:, :, heads] = part.step(query[:, heads], keys[:, groups], values[:, groups], mask, begin, attend)
        return z, None


def first_columns(mask: Tensor | None, keys: Tensor) -> Tensor:
    """[example] the first column that is no padding, from the mask of a text's first call. Raises BadInput for padding elsewhere.

    A query always sees itself, so that the diagonal of a mask says which tokens there are, whatever windows the layer has.
    """
    n, length = len(keys), keys.shape[2]
    if mask is None:
        return torch.zeros(n, dtype=torch.long)
    own = mask[:, 0].diagonal(dim1=-2, dim2=-1)
    real = (own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2).cpu().expand(n, length)
    starts = length - real.sum(1)
    if not torch.equal(real, torch.arange(length) >= starts[:, None]):
        raise BadInput(
            "A cache that holds less needs texts without padding behind or inside them.",
            "Pad on the left (tokenizer.padding_side = 'left'), as generate() wants it.",
        )
    return starts


@contextlib.contextmanager
def in_force(model: Model) -> Iterator[None]:
    """Put attention over caches of parts in force, in this context, without gradients or dropout. Raises BadInput inside a pass."""
    if active() is not None:
        raise BadInput("A cache plan was put in force inside a forward pass or another plan.", "Leave that one first.")
    with evaluating(model.hf), receiving(_Holding(model)), torch.no_grad():
        yield


def cache_shapes(model: Model) -> tuple[LayerShape, ...]:
    """What each layer's own cache holds, from a trial run; also that parts give the same numbers as it does. Raises UnsupportedModel."""
    if model.hf in _SHAPES:
        return _SHAPES[model.hf]
    if model.kind != "decoder":
        raise UnsupportedModel(
            f"{model.name} is no decoder, so it has no cache of what it has read.", "Take a decoder."
        )
    if not model.has_logits:
        raise UnsupportedModel(f"{model.name} gives no token logits, so it writes nothing.", "Take a language model.")
    ids = _trial_tokens(model)
    with torch.no_grad(), evaluating(model.hf):
        try:
            shapes = _shapes_of(model, ids)
            _demand_alike(model, shapes, ids)
        except (HeldElsewhere, ValueError, TypeError, AttributeError, RuntimeError) as error:
            why = "computes with what its cache returns" if isinstance(error, HeldElsewhere) else reason(error)
            raise UnsupportedModel(
                f"The cache of {model.name} cannot hold less by head: {why.rstrip('.')}.",
                "Models whose attention asks transformers' interface can, with full attention or sliding windows.",
            ) from error
    _SHAPES[model.hf] = shapes
    return shapes


def _demand_alike(model: Model, shapes: Sequence[LayerShape], ids: Sequence[Tensor]) -> None:
    """Raise UnsupportedModel unless caches of parts, one for each group, that drop nothing give the model's own logits."""
    spans = [[None if group == 0 else Span(0, 100 + group) for group in range(shape.n_groups)] for shape in shapes]
    own, cache = new_cache(model), HeadwiseCache(shapes, spans)
    wanted = [model.hf(input_ids=part, past_key_values=own, use_cache=True).logits for part in ids]
    with in_force(model):
        found = [model.hf(input_ids=part, past_key_values=cache, use_cache=True).logits for part in ids]
    for one, other in zip(wanted, found, strict=True):
        off = float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))
        if not off < (TOLERANCE if one.dtype == torch.float32 else 0.05):
            raise UnsupportedModel(
                f"{model.name} gives other logits with a cache of parts (by {off:.2g} of the largest), so its cache cannot hold less.",
                "Its attention does more than keys, values and a mask tell.",
            )


def _trial_tokens(model: Model) -> tuple[Tensor, ...]:
    """Some tokens to read, some to go on with at once, and one."""
    ids = torch.randint(
        0, max(model.vocabulary_size, 2), (2, 16), generator=torch.Generator().manual_seed(0)
    ).to(model.device)  # fmt: skip
    return ids[:, :10], ids[:, 10:15], ids[:, 15:]


def _shapes_of(model: Model, ids: Sequence[Tensor]) -> tuple[LayerShape, ...]:
    kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise UnsupportedModel(
            f"{model.name} has layers of {min(kinds).replace('_', ' ')}, whose cache cannot hold less by head.",
            "Full attention and sliding windows can.",
        )
    trial = new_cache(model)
    model.hf(input_ids=ids[0], past_key_values=trial, use_cache=True)
    shapes = []
    if len(trial.layers) != len(model.layers):
        raise UnsupportedModel(
            f"{model.name} has {len(trial.layers)} layers of cache for {len(model.layers)} layers of attention.",
            "Layers without attention, or that share a cache, cannot hold less.",
        )
    layers: list[Any] = list(trial.layers)
    for number, (layer, attention) in enumerate(zip(layers, model.layers, strict=True)):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.keys is None or layer.values is None:
            raise UnsupportedModel(
                f"Layer {number} of {model.name} has a cache of another kind ({type(layer).__name__}), which cannot hold less.",
                "Full attention and sliding windows can.",
            )
        n_groups, d_key = layer.keys.shape[1], layer.keys.shape[3]
        if n_groups != attention.n_groups:
            raise UnsupportedModel(
                f"Layer {number} of {model.name} keeps {n_groups} keys a token for {attention.n_groups} key-value heads.",
                "Caches that are compressed in another way cannot hold less by head.",
            )
        window = int(layer.sliding_window) if isinstance(layer, DynamicSlidingWindowLayer) else None
        shapes.append(LayerShape(n_groups, d_key, layer.values.shape[3], window))
    return tuple(shapes)
