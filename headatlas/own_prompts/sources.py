"""What is given on a command line or by arguments as prompts: held against each other before a model is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headatlas.errors import BadInput

OWN = "own-prompts"  # how tasks are called that are a user's prompts
FEWEST = 8  # prompts of such a task


def listed(given: str | Sequence[str] | None) -> list[str]:
    """One text, or several, as a list."""
    return [given] if isinstance(given, str) and given else list(given or ())


def demand_counterfactuals(
    text: str | Sequence[str] | None, chat: str | Path | None, counterfactual: str | Sequence[str] | None
) -> None:
    """Raise BadInput where counterfactuals stand beside neither texts nor a file of chats, or are not as many."""
    others = listed(counterfactual)
    if not others:
        return
    if text:
        demand_as_many(len(listed(text)), len(others))
    elif chat is None or len(others) != 1:
        raise BadInput(
            "A counterfactual of its own goes with --text, or as one file with --chat.",
            'A file of prompts has its counterfactuals in the column "counterfactual".',
        )


def demand_as_many(prompts: int, others: int) -> None:
    """Raise BadInput unless each prompt has its counterfactual."""
    if prompts != others:
        raise BadInput(f"There are {prompts} prompts and {others} counterfactuals.", "Give one for each, in order.")


def demand_enough(prompts: int) -> None:
    """Raise BadInput for fewer prompts than make a task."""
    if prompts < FEWEST:
        raise BadInput(
            f"{prompts} {'prompt is' if prompts == 1 else 'prompts are'} too few for a task.",
            f"Give {FEWEST} or more: half of them find heads, half test them. `headatlas ask` and `ablate` take a single prompt.",
        )
