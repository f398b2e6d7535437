"""A file of chats, as others keep them: messages of a role and a text each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput
from headatlas.reading.files import Source, read_text
from headatlas.reading.json_text import parse_json

_FORM = 'Write [{"role": "user", "content": "..."}, ...], or a list of such lists.'


def read_chats(path: str | Path) -> list[list[dict[str, Any]]]:
    """The chats of a JSON file that holds one, or a list of them. Raises BadInput naming the message that is none."""
    file = Path(path)
    source = Source(file, _FORM, BadInput, pipe=True)
    text = read_text(source)
    with source.explained():
        value = parse_json(text)
    if not isinstance(value, list) or not value:
        raise source.bad("holds no chat")
    chats = [value] if all(isinstance(one, dict) for one in value) else value
    for number, chat in enumerate(chats, 1):
        if not isinstance(chat, list) or not chat:
            raise source.bad(f"has no chat in place {number}")
        for place, one in enumerate(chat, 1):
            if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("role", "content")):
                raise source.bad(f"has in chat {number}, message {place}, no role and content that are text")
    return chats


def is_chat(given: Any) -> bool:
    """Whether this is meant as a chat: a list of messages, each with a role."""
    listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0
    return listed and all(isinstance(one, Mapping) and "role" in one for one in given)


def demand_messages(where: str, messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise BadInput naming `where` a chat stands if one of its messages has no text."""
    for number, one in enumerate(messages, 1):
        if not isinstance(one.get("content"), str):
            raise BadInput(
                f"{where}: message {number} has no text as its content.", "Write {'role': 'user', 'content': '...'}."
            )
