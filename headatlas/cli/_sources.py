"""What says on which texts and prompts a command measures: checked without a model, and handed to the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headatlas.errors import BadInput

if TYPE_CHECKING:
    from headatlas.methods.prompts import Prompts


def answers(path: str) -> None:
    """Raise BadInput where a file holds no prompts with answers."""
    measurable(path)
    if not {"answer"} & _rows(path)[0].keys():
        raise BadInput(f"{path} has prompts, and no answers to measure.", 'Rows need "prompt", "answer", "wrong".')


def measurable(path: str) -> None:
    """Raise BadInput where a file holds no prompts, or labelled texts."""
    first = _rows(path)[0]
    if "label" in first and "answer" not in first:
        raise BadInput(
            f"{path} has labelled texts, and no answers to measure.", 'Lines need "prompt", and "answer" if wanted.'
        )


def pairs(path: str) -> None:
    """Raise BadInput where a file holds no prompts with counterfactuals."""
    measurable(path)
    if not {"corrupted", "counterfactual"} & _rows(path)[0].keys():
        raise BadInput(
            f"{path} has no counterfactual prompts to take values from.", 'Each row needs a "counterfactual".'
        )


def corpus(name: str) -> None:
    """Raise BadInput where a name leads to no corpus, as far as no network is asked."""
    from headatlas.pages.sources import demand_corpus

    demand_corpus(name)


def labelled(path: str) -> None:
    """Raise BadInput where a file holds no labelled texts."""
    if "label" not in _rows(path)[0]:
        raise BadInput(f"{path} has no labelled texts.", 'Lines need "text" and "label".')


def _rows(path: str) -> list[dict[str, Any]]:
    """The rows of a file of prompts of either form, each held against the rules that need no tokenizer. Raises BadInput."""
    from headatlas.reading.prompt_lines import is_former, prompt_lines

    if is_former(path):
        return [value for _, value in prompt_lines(path)]
    from headatlas.own_prompts.written import Columns, rows_written

    return [{**one.row.values, "spans": one.spans} for one in rows_written(path, Columns())]


def prompts(path: str) -> None:
    """Raise BadInput where a file of prompts of either form cannot be read."""
    _rows(path)


def text(given: str) -> None:
    """Raise BadInput for an empty text."""
    if not given:
        raise BadInput("A text is empty.", "Write at least one word.")


def chats(path: str) -> None:
    """Raise BadInput where a file holds no chat."""
    from headatlas.reading.chats import read_chats

    read_chats(path)


# ---- of several options -----------------------------------------------------------------------------------------------
def one_source(**given: Any) -> None:
    """Raise BadInput unless exactly one of the options that say what is read was given."""
    names = [f"--{name}" for name, value in given.items() if value]
    if len(names) != 1:
        said = f"Both {' and '.join(names)} are given." if names else "Say what is read."
        forms = {"text": "--text TEXT", "task": "--task NAME (headatlas list tasks)", "prompts": "--prompts FILE.jsonl",
                 "chat": "--chat FILE.json"}  # fmt: skip
        known = [forms[name] for name in given]
        raise BadInput(said, f"Give either {', '.join(known[:-1])} or {known[-1]}.")


def demand_enough(text: list[str] | None, path_of_chats: str | None, path: str | None) -> None:
    """Raise BadInput where prompts of one's own are too few for a task."""
    from headatlas.own_prompts import sources
    from headatlas.reading.chats import read_chats

    if text or path_of_chats or path:
        given = text or (_rows(path) if path else read_chats(str(path_of_chats)))
        sources.demand_enough(len(given))


@dataclass(frozen=True)
class Measured:
    """The options that say on which prompts a method measures, as they were given."""

    task: str | None
    prompts: str | None
    text: list[str] | None
    chat: str | None
    counterfactual: list[str] | None = None

    def given(self, n: int, seed: int, metric: str | None, *, force: bool) -> Prompts:
        """The same for the library."""
        from headatlas.methods.prompts import Prompts

        return Prompts(
            self.task, self.prompts, n, seed, force, metric=metric, text=self.text or (), chat=self.chat,
            counterfactual=self.counterfactual or (),
        )  # fmt: skip

    def demand(self, positions: str | None = None, *, paired: bool = False) -> None:
        """Raise BadInput unless they name one source, with counterfactuals where `paired`, in which `positions` stand."""
        from headatlas.own_prompts.sources import demand_counterfactuals

        one_source(task=self.task, prompts=self.prompts, text=self.text, chat=self.chat)
        demand_counterfactuals(self.text, self.chat, self.counterfactual)
        if self.chat is not None:
            for path in self.counterfactual or ():
                chats(path)
        if paired and self.prompts is not None:
            pairs(self.prompts)
        if paired and (self.text or self.chat) and not self.counterfactual:
            own = "the same text" if self.text else "a file of the same chats"
            raise BadInput(
                "Values are carried from one prompt to another, and there is one.",
                f"Add --counterfactual with {own}, the deciding words changed.",
            )
        if self.task is None:
            for name in (positions or "").replace(",", " ").split():
                self.demand_position(name)

    def demand_position(self, name: str, *, one: bool = False) -> None:
        """Raise BadInput where prompts of one's own have no position of this name. one: a place of its own, not all or each."""
        known = ["end"] if one else ["all", "each", "end"]
        if self.prompts is not None:
            rows = _rows(self.prompts)
            known += [*dict.fromkeys(span for row in rows for span in row.get("spans", ()))]
            known += ["predict"] if any("answer" in row for row in rows) else []
        if name not in known:
            hint = f"Choose one of {', '.join(known)}{', or a number' if one else ''}."
            spans = ' Named words come from the column "spans" of --prompts FILE.'
            raise BadInput(f"These prompts have no position '{name}'.", hint + ("" if self.prompts else spans))


def demand_token(position: str | None, task: str | None, prompts: str | None) -> None:
    """Raise BadInput where a position is neither a token's number nor a name that prompts which need no model have."""
    if position is None or number_of(position) is not None or task is not None:
        return
    Measured(None, prompts, None, None).demand_position(position, one=True)


def number_of(position: str) -> int | None:
    """The whole number that a position is, None for a name."""
    return int(position) if position.removeprefix("-").isdecimal() else None


# What commands that measure on prompts ask before they run, by the names of their options.
def before_measuring(
    task: str | None,
    prompts: str | None,
    text: list[str] | None,
    chat: str | None,
    counterfactual: list[str] | None,
    positions: str | None,
) -> None:
    """Raise BadInput unless one source of prompts is named, in which the positions stand."""
    Measured(task, prompts, text, chat, counterfactual).demand(positions)


def before_pairs(
    task: str | None,
    prompts: str | None,
    text: list[str] | None,
    chat: str | None,
    counterfactual: list[str] | None,
    positions: str | None,
) -> None:
    """The same, with a counterfactual."""
    Measured(task, prompts, text, chat, counterfactual).demand(positions, paired=True)
