"""What a user hands to a model, as a batch: texts get the start and end tokens of their model, ids are taken as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model.text.start_end import AS_GIVEN, rule_of
from headatlas.model.text.two_stacks import completed
from headatlas.reading.chats import demand_messages, is_chat
from headatlas.task import Batch, Vocabulary

WHAT = "Give a text, a list of texts, a chat, ids [example, pos], a Batch, or the dictionary that a tokenizer returns."


def one_prompt(text: str, tokenizer: Vocabulary) -> Batch:
    """A batch of one text, with its end. Raises BadInput for an empty or too long one."""
    return text_batch([text], tokenizer)


def text_batch(texts: Sequence[str], tokenizer: Vocabulary) -> Batch:
    """A batch of texts, padded behind, each with its end. Raises BadInput for no text, and for an empty or too long one."""
    if not texts:
        raise BadInput("There is no text.", "Give at least one.")
    names = ["The prompt"] if len(texts) == 1 else [f"Text {number}" for number in range(1, len(texts) + 1)]
    rows = [fitted(name, text, tokenizer) for name, text in zip(names, texts, strict=True)]
    return text_facts(padded(rows), texts, tokenizer)


def text_facts(batch: Batch, texts: Sequence[str], tokenizer: Vocabulary) -> Batch:
    """A batch of texts with what results say of their start and end tokens, and with what an encoder-decoder's encoder reads."""
    rule = rule_of(tokenizer)
    said = rule.said_of([tokenizer.encode(text) for text in texts])
    told = {"bos": tokenizer.bos, "start_end": said}
    other = batch.counterfactual
    if other is not None:
        other = replace(other, facts={**other.facts, **told})
    return completed(replace(batch, facts={**batch.facts, **told}, counterfactual=other), rule)


def fitted(where: str, text: str, tokenizer: Vocabulary) -> list[int]:
    """The tokens of a text as this model reads it. Raises BadInput naming `where` it stands."""
    if not isinstance(text, str):
        raise BadInput(f"{where} is {type(text).__name__}, not text.", "Give a string.")
    ids = tokenizer.encode(text)
    if not ids:
        raise BadInput(f"{where}: '{text}' has no tokens.", "Write at least one word.")
    row = rule_of(tokenizer).read(ids)
    if len(row) > tokenizer.context:
        free = tokenizer.context - (len(row) - len(ids))
        raise BadInput(f"{where} has {len(ids)} tokens; this model takes {free}.", "Shorten it.")
    return row


def padded(rows: Sequence[Sequence[int]], length: int = 0, **more: Any) -> Batch:
    """Rows of ids as a batch of at least `length` positions, padded behind, with their ends; more: fields of the Batch."""
    length = max(length, *map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    return Batch(
        torch.tensor([[*row, *[0] * (length - len(row))] for row in rows]),
        torch.arange(length) < lengths[:, None],
        {"end": lengths - 1},
        **more,
    )


def batch_of(given: Any, tokenizer: Vocabulary) -> Any:
    """What a user gave as a batch of tokens and mask; a mapping of the model's own inputs stays one. Raises BadInput."""
    if isinstance(given, Mapping) or (hasattr(given, "tokens") and hasattr(given, "mask")):
        return given
    if isinstance(given, str):
        return one_prompt(given, tokenizer)
    texts = texts_of(given, tokenizer)
    return _of_ids(given) if texts is None else text_batch(texts, tokenizer)


def texts_of(given: Any, tokenizer: Vocabulary) -> list[str] | None:
    """The texts of a list of texts, of a chat or of a list of chats; None for anything else. Raises BadInput."""
    if not isinstance(given, Sequence) or not len(given):
        return None
    if is_chat(given):
        return [chat_text("The chat", given, tokenizer)]
    if all(isinstance(one, str) or is_chat(one) for one in given):
        return [
            one if isinstance(one, str) else chat_text(f"Chat {number}", one, tokenizer)
            for number, one in enumerate(given, 1)
        ]
    return None


def chat_text(where: str, messages: Sequence[Mapping[str, Any]], tokenizer: Vocabulary) -> str:
    """A chat as the tokenizer's own template writes it, ready for the next answer. Raises BadInput naming `where` it stands."""
    write = getattr(tokenizer, "chat", None)
    if write is None:
        raise BadInput(f"{where} needs a tokenizer with a chat template, and there is none.", "Give the text itself.")
    demand_messages(where, messages)
    return str(write(where, messages))


def as_batch(given: Any, tokenizer: Vocabulary) -> Any:
    """What a user gave as a Batch with the end of each text: for methods that need named positions. Raises BadInput.

    Of a dictionary that a tokenizer returns only ids and mask are taken.
    """
    found = batch_of(given, tokenizer)
    if isinstance(found, Mapping):
        if "input_ids" not in found or "decoder_input_ids" in found:
            raise BadInput("This dictionary has no input_ids of one stack, so it cannot be made a Batch.", WHAT)
        tokens = ids_of(found["input_ids"])
        tokens = tokens[None] if tokens.ndim == 1 else tokens
        mask = found.get("attention_mask")
        mask = torch.ones_like(tokens) if mask is None else ids_of(mask).reshape(tokens.shape)
        found = Batch(tokens, mask.bool(), facts={"start_end": AS_GIVEN})
    if not isinstance(found, Batch) or "end" in found.positions:
        return found
    places = torch.arange(found.tokens.shape[1])
    return replace(found, positions={**found.positions, "end": torch.where(found.mask.cpu(), places, -1).amax(1)})


def _of_ids(given: Any) -> Batch:
    """Ids [example, pos] or [pos], as a tensor, an array or lists; lists may differ in length. Raises BadInput."""
    if isinstance(given, Sequence) and any(isinstance(one, Sequence | Tensor | np.ndarray) for one in given):
        rows = [ids_of(one) for one in given]
        if any(row.ndim != 1 or not len(row) for row in rows):
            raise BadInput("A list of examples holds one that is no list of token ids, or an empty one.", WHAT)
        return padded([row.tolist() for row in rows], facts={"start_end": AS_GIVEN})
    tokens = ids_of(given)
    tokens = tokens[None] if tokens.ndim == 1 else tokens
    if tokens.ndim != 2 or not tokens.numel():
        raise BadInput(f"Tokens must be [example, pos], got shape {tuple(tokens.shape)}.", WHAT)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), facts={"start_end": AS_GIVEN})


def one_of(given: Any, tokenizer: Vocabulary) -> Batch:
    """One prompt, given in whatever way, as a Batch with its end. Raises BadInput for several."""
    found: Batch = as_batch(given, tokenizer)
    if len(found) != 1:
        raise BadInput(f"One prompt is read at a time, and {len(found)} are given.", "Give one of them.")
    return found


def ids_of(given: Any) -> Tensor:
    """Whole numbers as a tensor. Raises BadInput for anything else."""
    try:
        found = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{type(given).__name__} cannot be read as token ids.", WHAT) from error
    if found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        if not found.numel():
            raise BadInput("There are no tokens.", WHAT)
        raise BadInput(f"Token ids must be whole numbers, got {str(found.dtype).removeprefix('torch.')}.", WHAT)
    return found.long()
