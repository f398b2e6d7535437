"""From a batch to a model's own keyword inputs: padding, positions, limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PretrainedConfig

from headatlas.errors import BadInput
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.tokenizer import Tokenizer

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


def model_inputs(model: TakesInputs, batch: Inputs) -> tuple[dict[str, Any], Valid]:
    """The model's own keyword inputs, and which positions of each stack are real.

    Raises BadInput for tokens outside the vocabulary, too many of them, and padding that the model cannot take.
    """
    inputs, valid = _given(model, batch) if isinstance(batch, Mapping) else _made(model, batch)
    return uncached(model.accepts, inputs), valid


def _given(model: TakesInputs, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Valid]:
    """A mapping of the model's own inputs, such as a tokenizer returns."""
    inputs = {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    tokens = inputs.get("input_ids")
    if isinstance(tokens, Tensor) and tokens.ndim == 2:
        _refuse_length(model, tokens.shape[1])
    given, decoder = inputs.get("attention_mask"), inputs.get("decoder_attention_mask")
    valid = given.bool() if given is not None else None
    if model.kind == "encoder-decoder":
        return inputs, {"encoder": valid, "decoder": decoder.bool() if decoder is not None else None}
    if valid is not None and valid.ndim == 2 and "position_ids" not in inputs and not bool(valid[:, 0].all()):
        _left(model, inputs, valid)
    return inputs, {"encoder": valid, "decoder": valid}


def _made(model: TakesInputs, batch: Any) -> tuple[dict[str, Any], Valid]:
    """Inputs made of tokens [example, pos] and their mask."""
    tokens: Tensor = batch if isinstance(batch, Tensor) else batch.tokens
    mask: Tensor = torch.ones_like(tokens, dtype=torch.bool) if isinstance(batch, Tensor) else batch.mask
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    size = model.vocabulary_size
    _refuse_tokens(model, tokens, mask, size)
    inputs = {"input_ids": tokens}
    if not bool(mask.all()):
        pad = getattr(model.config, "pad_token_id", None)
        if isinstance(pad, int) and 0 <= pad < (size or pad + 1):
            inputs["input_ids"] = tokens = tokens.masked_fill(~mask, pad)  # RoBERTa counts positions by it
        inputs["attention_mask"] = mask.long()
        if not model.right_padding and not bool(mask[:, -1].all()):
            raise BadInput(
                f"Padding behind a text changes what {model.architecture} computes for it.",
                "Give examples of one length.",
            )
        if not bool(mask[:, 0].all()):
            _left(model, inputs, mask)
    if model.kind == "encoder-decoder":
        # The same text on both sides: the decoder reads it again, as in teacher forcing of a copying task.
        inputs |= {"decoder_input_ids": tokens}
        if "attention_mask" in inputs and "decoder_attention_mask" in model.accepts:
            inputs["decoder_attention_mask"] = inputs["attention_mask"]
    present = None if bool(mask.all()) else mask
    return inputs, {"encoder": present, "decoder": present}


def uncached(accepts: Collection[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same inputs, with the request to keep no keys and values where the model knows such a request."""
    if "use_cache" in accepts or any(name in accepts for name in ("past_key_values", "kwargs")):
        return {"use_cache": False, **inputs}
    return dict(inputs)


def _refuse_tokens(model: TakesInputs, tokens: Tensor, mask: Tensor, size: int) -> None:
    if tokens.ndim != 2:
        raise BadInput(f"Tokens must be [example, pos], got shape {tuple(tokens.shape)}.")
    _refuse_length(model, tokens.shape[1])
    if size and (int(tokens.max()) >= size or int(tokens.min()) < 0):
        wrong = int(tokens.max()) if int(tokens.max()) >= size else int(tokens.min())
        raise BadInput(f"Token id {wrong} lies outside the vocabulary of {model.name} (0 to {size - 1}).")
    if not bool(mask.any(1).all()):
        raise BadInput("An example of the batch is all padding.")


def _refuse_length(model: TakesInputs, n: int) -> None:
    if n > model.tokenizer.context:
        raise BadInput(
            f"{n} tokens are more than {model.name} takes ({model.tokenizer.context}).", "Use shorter prompts."
        )


def _left(model: TakesInputs, inputs: dict[str, Any], mask: Tensor) -> None:
    if model.left_padding is None:
        raise BadInput(f"{model.architecture} counts positions from the left, padding included.", "Pad on the right.")
    if model.left_padding == "positions":
        inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
