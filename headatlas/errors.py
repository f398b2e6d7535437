"""The errors a user may see: each says what was given, what was expected and what to do next."""

from __future__ import annotations


class HeadAtlasError(Exception):
    """Base of all expected errors; the command line prints `message` and `hint` on one line and exits with 1."""

    lines = False  # whether the message is a list with a line for each fault

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message} {hint}")
        self.message = message
        self.hint = hint


class UnknownName(HeadAtlasError):
    """A name (detector, task, head type, model ...) that nothing goes by."""


class UnsupportedModel(HeadAtlasError):
    """A model that headatlas refuses because its numbers could be wrong."""


class SourceError(HeadAtlasError):
    """A model that could not be found, fetched or read."""


class UnfitTask(HeadAtlasError):
    """A task that cannot be built for this tokenizer or context length; detectors on it are skipped with the reason."""


class BadInput(HeadAtlasError):
    """Input of the right kind with a wrong value: a position out of range, a head that does not exist."""


class StoreError(HeadAtlasError):
    """A run folder that cannot be written or read."""
