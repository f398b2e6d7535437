"""Which texts a model reads where nothing is scored: one's own, chats, those of a file, or of a built-in task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headatlas.errors import BadInput
from headatlas.methods.sweeps.plan import positions_of
from headatlas.model import Model
from headatlas.model.text.reading import as_batch
from headatlas.model.text.start_end import first_written
from headatlas.own_prompts.make import prompts_of_file
from headatlas.reading.chats import read_chats
from headatlas.task import Batch, find_task
from headatlas.task.answers import first_alternatives


@dataclass(frozen=True)
class Texts:
    """Texts to read; exactly one source is given.

    text: one, or several, taken exactly as written. chat: a JSON file of messages {"role", "content"}, written as the
    model's own template has them. prompts: a file as `headatlas.prompts` reads it. task: a built-in task, of which `n` prompts
    are drawn with `seed`. Raises BadInput unless one is given.
    """

    text: str | Sequence[str] = ()
    chat: str | Path | None = None
    prompts: str | Path | None = None
    task: str | None = None
    n: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if sum(map(bool, (self.text, self.chat, self.prompts, self.task))) != 1:
            raise BadInput(
                "Say what is read.", "Give either --text TEXT, --chat FILE.json, --prompts FILE.jsonl or --task NAME."
            )

    def read(self, model: Model) -> Batch:
        """The texts as a model reads them, with the position of each text's end. Raises BadInput, UnknownName, UnfitTask."""
        return first_alternatives(self.with_answers(model))

    def with_answers(self, model: Model) -> Batch:
        """The same with each right answer of several tokens behind its prompt, where a file has sets of them."""
        if self.task:
            return find_task(self.task)(model.tokenizer, self.n, self.seed)
        if self.prompts:
            return prompts_of_file(model, self.prompts)
        texts = [self.text] if isinstance(self.text, str) and self.text else list(self.text)
        return texts_as_batch(model, texts or read_chats(str(self.chat)))


def texts_as_batch(model: Model, given: Any) -> Batch:
    """Whatever a user gave as texts (a string, several, a chat, ids, a Batch, `Texts`) as a Batch with its ends. Raises BadInput."""
    if isinstance(given, Texts):
        return given.read(model)
    found = as_batch(given, model.tokenizer)
    if not isinstance(found, Batch):
        raise BadInput(f"{type(given).__name__} cannot be read as texts.", "Give a text, a list of texts, or a Batch.")
    return first_alternatives(found)


def at_first_written(model: Model, batch: Batch) -> Batch:
    """The batch of texts with its end where an encoder-decoder's decoder writes its first token; of other models the batch itself."""
    if model.kind != "encoder-decoder" or "end" not in batch.positions:
        return batch
    return replace(
        batch, positions={**batch.positions, "end": torch.full((len(batch),), first_written(model.tokenizer))}
    )


def token_at(batch: Batch, position: int | str) -> int:
    """Where the token of the first text is that a position names: a number as it is, of a named one its last token.

    Raises BadInput for a name that the text has not, and for all or each, which name no one token.
    """
    if isinstance(position, int):
        return position
    if position in ("all", "each"):
        raise BadInput(f"One token is looked at, not '{position}'.", "Give a number, or a named position.")
    named = positions_of(batch.rows([0]), position)[position]
    assert named is not None
    return int(named.max())
