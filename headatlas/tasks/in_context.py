"""Tasks that only examples explain: pairs such as "hot -> cold", and a new word to be treated alike. Todd et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Task, Vocabulary, halves, logit_lead
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, first_id, forever, halved, pick, table

SHOTS = 10
FORM = ("Q:", "\nA:", "\n\n")  # before the input, before the output, and behind it


def _mapping(name: str) -> Mapping[str, str]:
    """The pairs of an in-context task: input -> output."""
    data = table(f"icl/{name}")
    found: Mapping[str, str]
    found = data["pairs"] if "pairs" in data else table("facts")["relations"][data["relation"]]["pairs"]
    return found


def _build(
    name: str, shots: int, tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str
) -> Batch:
    """A batch of prompts of `shots` pairs and a query, all from one half of the pairs.

    The answer's first token counts. Wrong, for those who want a difference, are the first tokens of the outputs shown (without shots: of ten others).
    """
    form = FORM if family == FIRST else table("second")["icl"]["shot"]
    pairs = dict(halved(_mapping(name).items(), half))
    ids = {given: first_id(tokenizer, value) for given, value in pairs.items()}
    size = {given: len(tokenizer.encode(f" {given}")) for given in pairs}
    words = list(pairs)
    if len(words) < SHOTS + 2:
        raise UnfitTask(f"icl-{name} needs {SHOTS + 2} pairs; it has {len(words)}.")

    def prompt(query: str, inputs: list[str], outputs: list[str]) -> list[Piece]:
        pieces = [piece for a, b in zip(inputs, outputs, strict=True) for piece in _shot(form, a, b)]
        return [*pieces, Piece(form[0]), Piece(f" {query}", "query"), Piece(form[1])]

    def draw() -> Example:
        query, *others = pick(words, rng, SHOTS + 1)
        inputs, outputs = others[:shots], [pairs[other] for other in others[:shots]]
        free = [w for w in words if w != query and w not in inputs and size[w] == size[query] and ids[w] != ids[query]]
        stranger = str(rng.choice(free)) if free else query
        turn = int(rng.integers(1, shots)) if shots else 0  # so that no output stays in its place
        mixed = [*outputs[turn:], *outputs[:turn]]
        labels_changed = prompt(query, inputs, mixed) if shots else prompt(stranger, inputs, mixed)
        third = str(rng.choice([w for w in free if w != stranger] or [query]))
        control = prompt(stranger if shots else third, inputs, mixed)
        wrong = list(dict.fromkeys(ids[other] for other in others if ids[other] != ids[query]))
        return Example([prompt(query, inputs, outputs), labels_changed, control], [ids[query]], wrong)

    spans = ("query", "input", "output") if shots else ("query",)
    what = f"icl-{name}" + ("" if shots else "-zero-shot")
    return collect(what, tokenizer, n, [forever(draw)], spans=spans, half=half, shots=shots)


def _shot(form: Sequence[str], given: str, wanted: str) -> list[Piece]:
    front, middle, end = form
    return [Piece(front), Piece(f" {given}", "input"), Piece(middle), Piece(f" {wanted}", "output"), Piece(end)]


def _tasks(name: str, about: str, shots: int) -> tuple[Task, Task]:
    def made(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
        return _build(name, shots, tokenizer, n, rng, half, family)

    full = f"icl-{name}" + ("" if shots else "-zero-shot")
    if shots:
        doc = f"""{about} {shots} times "Q: x, A: y", then a new x.

        Positions: query, input, output (all tokens; query_last the last one), end. Metric: logit of the answer's first token
        minus the highest of all other tokens. Counterfactual: the outputs have moved to other examples. Control: the
        same, and another query, whose answer is another.
        """
    else:
        doc = f"""{about} Only "Q: x, A:", without an example.

        Positions: query, query_last, end. Metric: logit of the answer's first token minus the highest of all other
        tokens. Counterfactual and control: another query, whose answer is another.
        """
    return halves(
        full,
        made,
        metric=logit_lead,
        version=1,
        margin=1.0,
        doc=doc,
        second="Input: and Output: in place of Q: and A:.",
    )


def _names() -> list[tuple[str, str]]:
    """Each file of tasks/data/icl with the sentence in its first line; the pairs are read when a task is built."""
    folder = resources.files("headatlas.tasks") / "data" / "icl"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = []
    for file in files:
        with file.open(encoding="utf-8") as lines:
            found.append((file.name.removesuffix(".yaml"), lines.readline().removeprefix("#").strip()))
    return found


TASKS = tuple(one for name, about in _names() for shots in (SHOTS, 0) for one in _tasks(name, about, shots))
