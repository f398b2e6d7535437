"""How exact planted heads are: what was asked for against what the finished model does, over sizes and strengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headatlas.lab.head import Head
from headatlas.lab.measure import Reading, read, read_all
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec
from headatlas.progress import Progress

STRENGTHS = (0.2, 0.5, 0.8, 1.0)
NOISES = (0.0, 0.01, 0.03, 0.1, 0.3)

# Between them, these three models hold every kind that has a target.
COPYING = (
    Head(0, 0, "previous"),
    Head(0, 1, "duplicate"),
    Head(0, 2, "positional", offset=7),
    Head(0, 3, "current"),
    Head(1, 0, "induction"),
    Head(1, 1, "fake-induction"),
    Head(1, 2, "window", width=6),
    Head(1, 3, "sink"),
    Head(2, 0, "copy-suppression", write=0.5),
    Head(2, 1, "delimiter"),
    Head(2, 2, "dormant"),
)
FETCHING = (
    Head(0, 0, "previous"),
    Head(0, 1, "repeat-suppression"),
    Head(1, 1, "retrieval"),
    Head(1, 2, "successor"),
)
NAMES = (Head(0, 0, "duplicate"), Head(1, 0, "inhibition"), Head(2, 2, "mover"))
MODELS = (COPYING, FETCHING, NAMES)

SIZES: tuple[dict[str, Any], ...] = (
    {"architecture": "gpt2", "width": 128},
    {"architecture": "llama", "width": 128},
    {"architecture": "gpt2", "width": 64, "vocab": 128},
    {"architecture": "llama", "width": 64, "vocab": 128},
    {"architecture": "gpt2", "width": 512, "n_heads": 8},
    {"architecture": "llama", "width": 512, "n_heads": 8, "n_kv_heads": 4},
)


@dataclass(frozen=True)
class Row:
    """One head of one model of the grid. `size` counts SIZES."""

    size: int
    strength: float
    reading: Reading


def weakened(heads: Sequence[Head], strength: float) -> tuple[Head, ...]:
    """The heads at this strength; partners that others build on (previous, duplicate) stay whole."""
    partners = {"previous", "duplicate"} if strength < 1.0 else set()
    return tuple(head if head.kind in partners else replace(head, strength=strength) for head in heads)


def alone(heads: Sequence[Head], strength: float) -> Iterator[Head]:
    """The partners by themselves, which `weakened` leaves whole."""
    for head in heads:
        if head.kind in ("previous", "duplicate"):
            yield replace(head, strength=strength)


def measured(progress: Progress | None = None) -> list[Row]:
    """Every kind at every strength in every size; several minutes on two cores."""
    rows = []
    for size, sizes in enumerate(SIZES):
        for strength in STRENGTHS:
            if progress is not None:
                progress.say(f"{sizes} at strength {strength}")
            for heads in MODELS:
                spec = PlantSpec(weakened(heads, strength))
                readings = read_all(plant(spec, n_layers=3, **sizes))
                rows += [Row(size, strength, r) for r in readings.values() if r.head.strength == strength]
            if strength < 1.0:
                planted = plant(PlantSpec(tuple(alone(COPYING, strength))), n_layers=1, **sizes)
                rows += [Row(size, strength, r) for r in read_all(planted).values()]
    return rows


def accuracy_table(rows: Sequence[Row]) -> str:
    """Markdown: the attention measured at each strength in the first two sizes, its worst error and the effects.

    spread: over queries, at strength 0.5. worst error: of the mean, over all sizes. logit, loss: at full strength.
    """
    head = ["kind", *(f"{strength:g}" for strength in STRENGTHS), "spread", "worst error", "logit", "loss"]
    lines = [_line(head), _line(["---", *["--:"] * (len(head) - 1)])]
    for kind in dict.fromkeys(row.reading.head.kind for row in rows):
        own = [row for row in rows if row.reading.head.kind == kind]
        cells = [kind]
        for strength in STRENGTHS:
            pair = [row.reading.attention for row in own if row.strength == strength and row.size < 2]
            cells.append(" / ".join(f"{value:.2f}" for value in pair[:2]))
        half = [row.reading.deviation for row in own if row.strength == 0.5 and row.size < 2]
        cells.append(" / ".join(f"{value:.2f}" for value in half))
        cells.append(f"{max(abs(row.reading.attention - row.strength) for row in own):.2f}")
        full = next(row.reading for row in own if row.strength == 1.0)
        cells += [f"{full.logit:+.1f}", "" if full.loss is None else f"{full.loss:+.2f}"]
        lines.append(_line(cells))
    return "\n".join(lines)


def noise_table() -> str:
    """Markdown: attention of heads planted at strength 0.8 in a GPT-2 of width 256, by superposition noise."""
    kinds = ("previous", "current", "induction", "window", "sink")
    lines = [_line(["noise", *kinds]), _line(["--:"] * (len(kinds) + 1))]
    for noise in NOISES:
        planted = plant(PlantSpec(weakened(COPYING, 0.8), noise=noise), n_layers=3, width=256)
        shown = [head for kind in kinds for head in planted.planted if head.kind == kind]
        lines.append(_line([f"{noise:g}", *(f"{read(planted, head).attention:.2f}" for head in shown)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
