"""From what a user gives to a model's own keyword inputs: texts, padding, limits, and the positions that are asked about."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig

from headatlas.errors import BadInput
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.reading import batch_of
from headatlas.model.text.start_end import AS_GIVEN, said_of
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.model.text.two_stacks import shifted
from headatlas.ops.positions import FROM_THE_START, demand_real, positions_given, token_stack
from headatlas.ops.types import LayerKey

Valid = dict[str, Tensor | None]  # stack -> [example, pos] bool, False on padding; None where nothing is padded


class TakesInputs(Protocol):
    """The facts of a model that its inputs depend on; `Model` has them."""

    tokenizer: Tokenizer
    kind: str
    left_padding: str | None
    right_padding: bool
    accepts: frozenset[str]

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def architecture(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> PretrainedConfig: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def vocabulary_size(self) -> int: ...  # noqa: D102


def model_inputs(model: TakesInputs, batch: Inputs) -> tuple[dict[str, Any], Valid, str]:
    """The model's own keyword inputs, which positions of each stack are real, and how the tokens were made.

    Raises BadInput for tokens outside the vocabulary, too many of them, and padding that the model cannot take.
    """
    given = batch_of(batch, model.tokenizer)
    if isinstance(given, Mapping):
        inputs, valid, said = _given(model, given)
    else:
        inputs, valid, said = _made(model, given)
    return uncached(model.accepts, inputs), valid, said


def _given(model: TakesInputs, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Valid, str]:
    """A mapping of the model's own inputs, such as a tokenizer returns; lists become tensors."""
    for name in batch.keys() - model.accepts:  # many models take any name, and leave it alone
        if near := difflib.get_close_matches(name, model.accepts, 1, 0.85):
            raise BadInput(f"{model.architecture} takes no {name}.", f"Did you mean {near[0]}?")
    if not batch.keys() & model.accepts:
        raise BadInput(
            f"{model.architecture} takes none of {', '.join(sorted(map(str, batch)))}.",
            "Give input_ids, as a tokenizer returns them.",
        )
    inputs = {name: _tensor(model, name, value) for name, value in batch.items()}
    tokens, said = inputs.get("input_ids"), AS_GIVEN
    if isinstance(tokens, Tensor):
        _refuse_tokens(model, tokens, _mask(inputs, "input_ids", "attention_mask"))
    if model.kind == "encoder-decoder":
        encoder, decoder = inputs.get("attention_mask"), inputs.get("decoder_attention_mask")
        if isinstance(tokens, Tensor) and not any(name in inputs for name in _DECODER):
            made, said = _decoder_of(model, tokens, _mask(inputs, "input_ids", "attention_mask"))
            inputs |= made
        if isinstance(inputs.get("decoder_input_ids"), Tensor):
            _refuse_tokens(
                model, inputs["decoder_input_ids"], _mask(inputs, "decoder_input_ids", "decoder_attention_mask")
            )
        for mask in (encoder, decoder):
            if isinstance(mask, Tensor) and mask.ndim == 2 and not bool(mask[:, 0].all()):
                _refuse_left(model)
        decoder = inputs.get("decoder_attention_mask")
        return inputs, {"encoder": _bool(encoder), "decoder": _bool(decoder)}, said
    valid = _bool(inputs.get("attention_mask"))
    if valid is not None and valid.ndim == 2 and "position_ids" not in inputs and not bool(valid[:, 0].all()):
        _left(model, inputs, valid)
    return inputs, {"encoder": valid, "decoder": valid}, said


_DECODER = ("decoder_input_ids", "decoder_inputs_embeds", "labels")


def _tensor(model: TakesInputs, name: str, value: Any) -> Any:
    """One input as the model takes it: lists and arrays of ids and masks as tensors, on its device."""
    if name.endswith(("input_ids", "attention_mask")) and not isinstance(value, Tensor) and value is not None:
        try:
            value = torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"{name} holds rows of different lengths.", "Pad them: tokenizer(texts, padding=True)."
            ) from error
    return value.to(model.device) if isinstance(value, Tensor) else value


def _mask(inputs: Mapping[str, Any], tokens: str, mask: str) -> Tensor:
    """[example, pos] bool which tokens are real. Raises BadInput for a mask of another shape."""
    ids, given = inputs[tokens], inputs.get(mask)
    if not isinstance(given, Tensor) or given.ndim != 2:  # none, or one of the model's own kind
        return torch.ones_like(ids, dtype=torch.bool)
    if given.shape != ids.shape:
        raise BadInput(
            f"{mask} has shape {tuple(given.shape)}, {tokens} {tuple(ids.shape)}.", "Both are [example, pos]."
        )
    return given.bool()


def _bool(mask: Any) -> Tensor | None:
    return mask.bool() if isinstance(mask, Tensor) else None


def _made(model: TakesInputs, batch: Any) -> tuple[dict[str, Any], Valid, str]:
    """Inputs made of tokens [example, pos] and their mask."""
    said = said_of(getattr(batch, "facts", {}))
    encoder = getattr(batch, "encoder", None)
    if model.kind != "encoder-decoder":
        inputs, valid = _stack(model, batch.tokens, batch.mask)
        return inputs, {"encoder": valid, "decoder": valid}, said
    if "input_ids" not in model.accepts:
        raise BadInput(
            f"{model.architecture} reads {_main_input(model)}, not text.",
            f"Give a dictionary with {_main_input(model)} and decoder_input_ids.",
        )
    inputs, source = _stack(model, (encoder or batch).tokens, (encoder or batch).mask, names="")
    if encoder is not None:
        decoder, target = _stack(model, batch.tokens, batch.mask, names="decoder_")
        return {**inputs, **decoder}, {"encoder": source, "decoder": target}, said
    mask = source if source is not None else torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    decoder, how = _decoder_of(model, inputs["input_ids"], mask)
    return {**inputs, **decoder}, {"encoder": source, "decoder": source}, how if said == AS_GIVEN else said


def _decoder_of(model: TakesInputs, tokens: Tensor, mask: Tensor) -> tuple[dict[str, Any], str]:
    """What the decoder reads where only the encoder's tokens are given, as for `labels` that repeat them: they, behind its start token."""
    start = model.tokenizer.start_end.decoder_start
    if start is None:
        ids, said = tokens, f"{AS_GIVEN}; the decoder reads the same ids: the model names no start token for it"
    else:
        ids = shifted(tokens, mask, start)
        said = f"{AS_GIVEN}; the decoder reads them behind its start token (id {start})"
    inputs: dict[str, Any] = {"decoder_input_ids": ids}
    if not bool(mask.all()) and "decoder_attention_mask" in model.accepts:
        inputs["decoder_attention_mask"] = mask.long()
    return inputs, said


def _main_input(model: TakesInputs) -> str:
    return next(
        (name for name in ("input_features", "input_values", "pixel_values") if name in model.accepts), "no tokens"
    )


def _stack(model: TakesInputs, tokens: Tensor, mask: Tensor, names: str = "") -> tuple[dict[str, Any], Tensor | None]:
    """The inputs of one stack (`names`: what its inputs' names begin with), and its mask where something is padded."""
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    _refuse_tokens(model, tokens, mask)
    inputs = {f"{names}input_ids": tokens}
    if bool(mask.all()):
        return inputs, None
    size, pad = model.vocabulary_size, getattr(model.config, "pad_token_id", None)
    if isinstance(pad, int) and 0 <= pad < (size or pad + 1):
        inputs[f"{names}input_ids"] = tokens.masked_fill(~mask, pad)  # RoBERTa counts positions by it
    if not names or f"{names}attention_mask" in model.accepts:
        inputs[f"{names}attention_mask"] = mask.long()
    if not model.right_padding and not bool(mask[:, -1].all()):
        raise BadInput(
            f"Padding behind a text changes what {model.architecture} computes for it.",
            "Give examples of one length.",
        )
    if not bool(mask[:, 0].all()):
        if model.kind == "encoder-decoder":
            _refuse_left(model)
        else:
            _left(model, inputs, mask)
    return inputs, mask


def without_absent(logits: Tensor, positions: Tensor | None) -> Tensor:
    """Logits [example, n, vocab] at `positions` [example, n], NaN for examples that have none of them (all are -1)."""
    if positions is None or positions.ndim != 2 or len(positions) != len(logits):
        return logits
    absent = (positions < 0).all(1).to(logits.device)
    return logits.masked_fill(absent[:, None, None], torch.nan) if bool(absent.any()) else logits


def uncached(accepts: Collection[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same inputs, with the request to keep no keys and values where the model knows such a request."""
    if "use_cache" in accepts or any(name in accepts for name in ("past_key_values", "kwargs")):
        return {"use_cache": False, **inputs}
    return dict(inputs)


def _refuse_tokens(model: TakesInputs, tokens: Tensor, mask: Tensor) -> None:
    if tokens.ndim != 2 or not tokens.numel():
        raise BadInput(f"Tokens must be [example, pos], got shape {tuple(tokens.shape)}.")
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise BadInput(f"Token ids must be whole numbers, got {str(tokens.dtype).removeprefix('torch.')}.")
    if tokens.shape[1] > model.tokenizer.context:
        raise BadInput(
            f"{tokens.shape[1]} tokens are more than {model.name} takes ({model.tokenizer.context}).",
            "Use shorter prompts.",
        )
    size = model.vocabulary_size
    if size and (int(tokens.max()) >= size or int(tokens.min()) < 0):
        wrong = int(tokens.max()) if int(tokens.max()) >= size else int(tokens.min())
        raise BadInput(f"Token id {wrong} lies outside the vocabulary of {model.name} (0 to {size - 1}).")
    if not bool(mask.any(1).all()):
        raise BadInput("An example of the batch is all padding.")


def _refuse_left(model: TakesInputs) -> None:
    if model.left_padding is None:
        raise BadInput(f"{model.architecture} counts positions from the left, padding included.", "Pad on the right.")


def _left(model: TakesInputs, inputs: dict[str, Any], mask: Tensor) -> None:
    _refuse_left(model)
    if model.left_padding == "positions":
        inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)


# ---- positions that a pass is asked about ------------------------------------------------------------------------------
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
