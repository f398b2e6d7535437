"""The self-check on load: looking in must change nothing and miss nothing, and edits must really act; otherwise the model is refused."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput, HeadAtlasError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.linear_and_norm import device_of, dtype_of
from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import Tokens
from headatlas.model.core.refusals import ChosenKeys
from headatlas.model.core.view import LayerView
from headatlas.model.structure.reach import NEAR, reaches
from headatlas.model.structure.whole_run import WholeRun, keep_entries, restarted, tensors_handed
from headatlas.ops.types import LayerKey

# Token ids that stand for something else than text.
SPECIAL = ("pad", "bos", "eos", "image", "video", "audio", "boi", "eoi", "boa", "eoa", "vision_start", "vision_end")


@dataclass(frozen=True)
class Check:
    """One line of the table: what was checked, the number found, and the bound it must keep."""

    name: str
    ok: bool
    value: float | None
    bound: float | None
    note: str


@dataclass(frozen=True)
class Probe:
    """A probing edit of chosen heads by a function of the component's tensor."""

    heads: tuple[HeadId, ...]
    component: str
    change: Callable[[Tensor], Tensor]

    @property
    def layers(self) -> frozenset[LayerKey]:
        """The (stack, layer) pairs of the heads."""
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """`x` changed."""
        return self.change(x)


def bound(dtype: torch.dtype, fp32: float, half: float) -> float:
    """The tolerance for a type of weights."""
    return fp32 if dtype in (torch.float32, torch.float64) else half


def precision(model: Model) -> torch.dtype:
    """The type by whose bounds a model is measured: that of its weights, or a coarse one where activations are rounded to int8."""
    return model.dtype if all(layer.linear for layer in model.layers) else torch.bfloat16


def inspect_model(
    model: Model,
    inputs: Mapping[str, Tensor],
    reference: Tensor,
    whole: WholeRun,
) -> list[Check]:
    """Checks of watching on sample inputs, against the `reference` output of the untouched model; one run of the model.

    whole: filled with what `restarted` layers are given, for `restart`.
    """
    checks: list[Check] = []

    def note(name: str, value: float, limit: float, text: str = "") -> None:
        checks.append(Check(name, value <= limit, value, limit, text))

    scale = float(reference.float().abs().max()) + 1e-9
    half = bound(model.dtype, 0.0, 1e-2)
    seen: dict[LayerKey, dict[str, float]] = {}
    outputs: dict[int, Tensor] = {}
    tried = restarted(model)

    def watch(layer: LayerView) -> None:
        valid = layer.valid_queries[:, None, :, None]
        if _sink_is_factor(layer):
            object.__setattr__(layer.attention, "sink_factor", True)
        rows = layer.rows(torch.arange(layer.n_queries, device=layer.q.device)).float()
        sums = rows.sum(-1)
        facts = {
            "sum": float(((sums - 1).abs() * valid[..., 0]).max()),
            "over": float(((sums - 1) * valid[..., 0]).max()),
        }
        facts["ahead"] = float((rows * torch.ones_like(rows).triu(1) * valid).max()) if layer.causal else 0.0
        keys = torch.arange(layer.n_keys, device=layer.q.device).expand(len(rows), -1)
        facts["entries"] = float(((layer.columns(keys).float() - rows).abs() * valid).max())
        bias = layer.attention.output_bias()
        if layer.attention.linear:
            outputs[id(layer.attention.projection)] = layer.writes().float().sum(2) + (0.0 if bias is None else bias)
        seen[layer.stack, layer.index] = facts
        if layer.attention in tried:
            whole.handed[layer.stack, layer.index] = tensors_handed(layer)

    real: dict[int, Tensor] = {}
    handles = [
        layer.projection.register_forward_hook(lambda module, _, out: real.update({id(module): out.float()}))
        for layer in model.layers
    ]
    handles += [
        layer.block.register_forward_pre_hook(keep_entries(whole.entries), with_kwargs=True)
        for layer in tried
        if layer.block is not None
    ]
    try:
        watched = model.forward(inputs, watch=watch)
    finally:
        for handle in handles:
            handle.remove()
    note(
        "same output watched and unwatched",
        float((watched - reference).float().abs().max()) / scale,
        half,
        "relative to the largest output",
    )
    missed = [layer.name for layer in model.layers if (layer.stack, layer.index) not in seen]
    note("attention layers that never ran", float(len(missed)), 0.0, ", ".join(missed[:3]))
    sinks = max(facts["sum"] for facts in seen.values()) > bound(model.dtype, 1e-4, 2e-2)
    note(
        "attention rows sum to one",
        max(facts["over"] for facts in seen.values()),
        bound(model.dtype, 1e-4, 2e-2),
        "below one: a learned sink takes the rest" if sinks else "",
    )
    note("attention to later tokens", max(facts["ahead"] for facts in seen.values()), 0.0, "causal layers")
    note(
        "entries equal rows",
        max(facts["entries"] for facts in seen.values()),
        bound(model.dtype, 2e-5, 2e-2),
        "fast kernel against the model's own eager attention",
    )
    wide = max(float(value.abs().max()) for value in real.values()) + 1e-9
    apart = max((float((outputs[key] - real[key]).abs().max()) for key in outputs), default=0.0)
    note(
        "sum of heads' writes equals the block's output", apart / wide, bound(precision(model), 1e-4, 3e-2), "relative"
    )

    return checks


def _sink_is_factor(layer: LayerView) -> bool:
    """Whether less of each row's weight comes to the output than its eager attention says, and never more."""
    passed, rows = layer.weight_passed(torch.arange(layer.n_queries, device=layer.q.device))
    part, limit = passed.float() / rows.float().sum(-1), bound(rows.dtype, 1e-4, 2e-2)
    return bool((part < 1 + limit).all() and (part > 0).all() and (part < 1 - limit).any())


def restart(model: Model, inputs: Mapping[str, Tensor], reference: Tensor, whole: WholeRun) -> Check:
    """Whether a run may start at a layer with the residual stream of a `whole` run; sets `model.restarts`.

    Its output must be that of the whole run, and each layer must be handed what it was there: a bias that a skipped block lacks
    (T5's) may happen to change little on this sample.
    """
    limit = bound(precision(model), 1e-5, 2e-2) * (float(reference.float().abs().max()) + 1e-9)
    far, alike = 0.0, True
    try:
        blocks = model.decoder_blocks()
        for layer in restarted(model):
            index = next(i for i, block in enumerate(blocks) if block is layer.block)
            handed: dict[str, Tensor] = {}

            def watch(view: LayerView, layer: AttentionLayer = layer, handed: dict[str, Tensor] = handed) -> None:
                if view.attention is layer:
                    handed |= tensors_handed(view)

            again = model.forward(inputs, watch=watch, start_at=(index, whole.entries[blocks[index]]))
            far = max(far, float((again - reference).float().abs().max()))
            before = whole.handed[layer.stack, layer.index]
            alike = (
                alike
                and before.keys() == handed.keys()
                and all(torch.equal(value, handed[name]) for name, value in before.items())
            )
        model.restarts = far <= limit and alike
    except (HeadAtlasError, ValueError, TypeError, RuntimeError, AttributeError, LookupError, StopIteration):
        model.restarts = False  # the model's own code stumbled over what a skipped block did not hand on
    note = (
        "" if model.restarts else "no: blocks are shared or hand on more than the residual stream; whole runs instead"
    )
    return Check("runs can start at a layer", True, far if model.restarts else None, limit, note)


def padding_of(length: int) -> int:
    """How many of a sample's tokens are padding where it is tried."""
    return min(3 if length < 20 else length // 3, length - 1)


def padding(model: Model, tokens: Tensor, reference: Tensor) -> list[Check]:
    """Whether padded batches give what single examples give; sets how left padding is passed on, or that it is refused.

    Where sparse attention chooses among the keys of a sample, other texts are tried until one leaves no choice to rounding;
    without such a one, or if left padding changes the choice, what is tried is so short that nothing is chosen.
    """
    try:
        return _padding(model, tokens, reference)
    except ChosenKeys:
        model.left_choices = True
    for turn in range(8):
        with contextlib.suppress(ChosenKeys):
            checks = _padding(model, tokens.roll(turn, 1), reference)
            if model.left_padding is not None:
                return checks
    model.left_choices = False
    while True:
        tokens = tokens[:, : tokens.shape[1] // 2]
        try:
            return _padding(model, tokens, reference)
        except ChosenKeys:
            if tokens.shape[1] < 8:
                raise


def _padding(model: Model, tokens: Tensor, reference: Tensor) -> list[Check]:
    limit = bound(precision(model), 1e-4, 5e-2) * (float(reference.float().abs().max()) + 1e-9)
    length = tokens.shape[1]
    pads = padding_of(length)
    short = tokens[:1, : length - pads]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, length - pads :] = False
    model.right_padding = True
    right = _tokens_of(model.forward(Tokens(tokens, mask)), slice(length - pads))
    alone = model.forward(short)
    right_far = float((right - alone).float().abs().max())
    model.right_padding = right_far <= limit
    shifted = torch.cat([tokens[:1, length - pads :], short], 1)
    both = Tokens(torch.cat([shifted, tokens[1:2]]), mask[:2].flip(1))
    ways: tuple[str | None, ...] = ("positions", "mask") if "position_ids" in model.accepts else ("mask",)
    if "position_ids" not in model.accepts and "kwargs" in model.accepts:
        ways = (*ways, "positions")  # what is not named may be handed on to a part that knows it (Whisper's decoder)
    for way in (*ways, None):
        model.left_padding = way
        if way is None:
            continue
        try:
            far = float((_tokens_of(model.forward(both), slice(pads, None)) - alone).float().abs().max())
        except ChosenKeys:
            raise
        except (TypeError, ValueError, BadInput):
            continue
        if far <= limit:
            break
    return padding_lines(right_far, far if model.left_padding else None, limit, model.left_padding)


def _tokens_of(outputs: Tensor, places: slice) -> Tensor:
    """The first example's outputs at these tokens; all of them where a text has one output (classifiers), not one a token."""
    return outputs[:1, places] if outputs.ndim > 2 else outputs[:1]


def padding_lines(right: float, left: float | None, limit: float, way: str | None) -> list[Check]:
    """How far padding on the right and on the left moved an example, and how left padding is passed on."""
    told = "" if right <= limit else "refused for this family: give examples of one length"
    text = {
        "positions": "positions counted from the first token",
        "mask": "the model counts by itself",
        None: "refused for this family",
    }
    return [
        Check("right padding changes nothing", True, right, limit, told),
        Check("left padding changes nothing", True, left, limit, text[way]),
    ]


def demand(model: Model, checks: list[Check]) -> None:
    """Raise UnsupportedModel naming the first check that failed."""
    for check in checks:
        if not check.ok:
            number = "" if check.value is None else f" ({check.value:.3g}, bound {check.bound:.3g})"
            raise UnsupportedModel(
                f"{model.architecture} failed the self-check '{check.name}'{number}: {check.note or 'its numbers could be wrong'}.",
                "headatlas refuses models that it cannot look into exactly.",
            )


def sample(hf: Any, config: Any, length: int = 12) -> dict[str, Tensor]:
    """A few random examples of whatever the model takes: tokens where it takes any, else pixels or audio features.

    Longer than a small window, chunk or top-k of the configuration, so that what lies beyond it is checked; an encoder and
    its decoder get texts of different lengths, which tell their layers apart.
    """
    generator = torch.Generator().manual_seed(0)
    accepts = inspect.signature(hf.forward).parameters
    device, dtype = device_of(hf), dtype_of(hf)
    if "input_ids" not in accepts and "pixel_values" in accepts:
        size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        channels = getattr(config, "num_channels", 3)
        return {"pixel_values": torch.randn(2, channels, size, size, generator=generator).to(device, dtype)}
    vocabulary = int(getattr(config, "vocab_size", None) or 0)
    if not vocabulary:
        raise UnsupportedModel(
            f"{type(hf).__name__} is not supported: its configuration names no vocabulary, so it takes no token ids.",
            "headatlas needs a transformer that reads tokens, pixels or audio features.",
        )
    special = (getattr(config, f"{name}_token_id", None) for name in SPECIAL)
    reserved = {value for value in special if isinstance(value, int)}
    usable = torch.tensor([token for token in range(min(vocabulary, 5000)) if token not in reserved][-2000:])
    context = int(getattr(config, "max_position_embeddings", length) or length)
    reach = [value for value in reaches(config) if value < NEAR]
    wanted = max(length, *(2 * value + 8 for value in reach)) if reach else length
    n = max(4, min(wanted, context - 2))
    tokens = usable[torch.randint(len(usable), (2, n), generator=generator)].to(device)
    if "input_features" in accepts and "input_ids" not in accepts:
        frames = 2 * config.max_source_positions
        return {
            "input_features": torch.randn(2, config.num_mel_bins, frames, generator=generator).to(device, dtype),
            "decoder_input_ids": tokens,
        }
    if getattr(config, "is_encoder_decoder", False) or getattr(hf.config, "is_encoder_decoder", False):
        return {"input_ids": tokens, "decoder_input_ids": tokens[:, : n - 1]}
    # A third one that ends otherwise than the first: where later tokens change nothing before, the model is causal.
    other = tokens[:1].clone()
    other[:, n - padding_of(n) :] = tokens[1:, : padding_of(n)]
    return {"input_ids": torch.cat([tokens, other])}
