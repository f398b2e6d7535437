"""The calibration as a page: a table, curves of score against real strength, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headatlas.render import plots
from headatlas.render.palette import PAGE, PICTURE, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _FOOT = 200, 48  # pixels of a panel with its title, and of what stands below all of them
_TICKS = (0, 0.5, 1)
_COLUMNS = (
    ("auc", "AUC"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("verdict_precision", "verdict precision"),
    ("verdict_recall", "verdict recall"),
    ("refuted_precision", "refuted rightly"),
    ("false_discovery", "false discoveries"),
)

_SOWN_COLUMNS = (
    ("auc", "AUC"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("look_alikes_observed", "look-alikes observed"),
    ("causal_precision", "causal"),
    ("group_precision", "group"),
    ("refuted_precision", "refuted"),
    ("verdict_recall", "verdict recall"),
    ("false_discovery", "false discoveries"),
)


def number(value: float | None) -> str:
    """Three digits, or a dash where nothing was counted."""
    return "-" if value is None else f"{value:.3f}"


def titles() -> list[str]:
    """The columns of the table of the grid."""
    return ["detector", "minimum effect", *(title for _, title in _COLUMNS), "heads: found / not / controls"]


def rows(result: dict[str, Any], half: str | None = None) -> list[list[str]]:
    """Table rows of the reported seeds, or of the seeds for tuning (half="tuning")."""
    table = []
    for found in result["detectors"]:
        numbers = found[half] if half else found
        counts = f"{numbers['positives']} / {numbers['negatives']} / {numbers['control_heads']}"
        table.append(
            [found["name"], f"{found['minimum_effect']:.2f}", *(number(numbers[key]) for key, _ in _COLUMNS), counts]
        )
    return table


def sown_titles() -> list[str]:
    """The columns of the table of plantings."""
    return ["detector", *(title for _, title in _SOWN_COLUMNS), "heads: found / not / judged"]


def sown_rows(result: dict[str, Any], half: str | None = None) -> list[list[str]]:
    """Rows of the table of plantings, of the reported seeds, or of the seeds for tuning (half="tuning")."""
    table = []
    for found in result["plantings"]:
        numbers = found[half] if half else found
        counts = f"{numbers['positives']} / {numbers['negatives']} / {numbers['verdicts']}"
        table.append([found["detector"], *(number(numbers[key]) for key, _ in _SOWN_COLUMNS), counts])
    return table


def seeds(result: dict[str, Any], half: str) -> str:
    """The seeds of one part of the grid, such as `0 and 1`."""
    return " and ".join(map(str, result["seeds"][half]))


def markdown(result: dict[str, Any], command: str, figure: str) -> str:
    """docs/calibration.md."""
    lines = ["# Calibration: how often the detectors are right", "", f"Written by `{command}`.", ""]
    if result["detectors"]:
        lines += [*_grid(result, figure), "", *_chance(result), ""]
    if result["plantings"]:
        lines += [*_plantings(result), ""]
    if result["toys"]:
        lines += [*toys_section(result["toys"]), ""]
    lines += [f"Uncalibrated (no planted model tests them): {', '.join(result['uncalibrated']) or 'none'}.", ""]
    return "\n".join(lines)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]


def _grid(result: dict[str, Any], figure: str) -> list[str]:
    """Detectors of attention on the grid of planted models."""
    head = titles()
    fake = {found["name"]: found for found in result["detectors"]}
    lines = [
        "## Detectors of attention, on a grid of planted models",
        "",
        f"{result['cells']} models with planted heads (GPT-2 and Llama, MHA and GQA, graded strength, superposition "
        f"noise) and {result['controls']} controls, {result['examples']} examples per task.",
        "",
        f"A head counts as a positive where at least {result['weakest']:.0%} of its attention really is on its targets, measured from the model's "
        "own eager attention without any detector; weaker ones are in the curves only. It counts as a negative where at least "
        f"{result['settled']:.0%} of its attention is where its own, other kind looks, or where nothing was planted (noise heads). "
        f"Thresholds may be chosen on the seeds {seeds(result, 'tuning')} only; this table is from the seeds {seeds(result, 'reported')}.",
        "",
        *_table(head, rows(result)),
        "",
        "- **AUC, precision, recall**: of score above chance, and of `observed`, against the planted truth. A detector of attention alone must "
        "find every head that attends so: the fake induction head and the copy-suppression head attend like induction heads.",
        "- **verdict**: of `causal` against what switching the head off with a plain hook costs on fresh text, in models that do the task `repeated`, judged as `headatlas mine` does. A head matters where that "
        f"is at least {result['sown']['matters']:.0%} of what the model's ability is worth and more than 95% of the noise heads of the same model cost. It does not where it is at most "
        f"{result['sown']['nothing']:.0%}, or less than such a noise head costs; heads in between are not counted. **verdict recall**: the share of observed heads that matter that is `causal`. "
        "**refuted rightly**: the share of `refuted` heads that do not matter.",
        "- **false discoveries**: share of heads observed in untrained models, models of noise heads only, weight-shuffled real models (full grid), "
        "and on texts whose structure is destroyed. The stated bound is 1%.",
    ]
    if "induction" in fake and "induction-copy" in fake:
        a, b = fake["induction"], fake["induction-copy"]
        lines += [
            "",
            f"The fake induction head (attends right, copies nothing) is observed by `induction` in {number(a['fake_observed'])} of the cases and by "
            f"`induction-copy` in {number(b['fake_observed'])}; the verdict calls it causal in {number(a['fake_causal'])}, of a group in {number(a['fake_group'])}.",
        ]
    return [
        *lines,
        "",
        f"![Score against real strength]({figure})",
        "",
        "### The seeds on which thresholds were chosen",
        "",
        *_table(head, rows(result, "tuning")),
    ]


def _plantings(result: dict[str, Any]) -> list[str]:
    """Detectors on models that were made for them."""
    head, tuning = sown_titles(), sown_rows(result, "tuning")
    return [
        "## Plantings: models made for one detector each",
        "",
        "Each has a few heads that the detector must find, look-alikes that do part of the same, and noise heads. What they are is in "
        "`headatlas/lab/plantings`. The task is the detector's own, as `headatlas mine` runs it. "
        f"{result['sown']['reported']} models each, on seeds that no threshold was chosen on:",
        "",
        *_table(head, sown_rows(result)),
        "",
        "- **look-alikes observed**: the share of look-alikes that were taken for the real thing.",
        "- **causal, group, refuted**: the share of these verdicts that hold, against what switching the head off with a plain hook costs on other examples: at least "
        f"{result['sown']['matters']:.0%} of what the model's ability is worth for `causal` and `group`, at most {result['sown']['nothing']:.0%} for `refuted`; heads in between are not counted. "
        "A dash: no such verdict, or the model does not do the task (prose, which no written model reads), so that none is given.",
        "- **verdict recall**: of observed heads that matter, the share that is not refuted.",
        "- **false discoveries**: the share of heads observed in the same shape with random weights, and with the weights in random order.",
        "",
        f"### The same on {result['sown']['tuning']} models of the seeds on which thresholds were chosen",
        "",
        *_table(head, tuning),
    ]


def toy_titles() -> list[str]:
    """The columns of the table of trained toys."""
    return [
        "detector",
        "toys",
        "heads: named / matter / judged",
        "precision",
        "recall",
        "first forms while the loss falls",
    ]


def toy_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of the table of trained toys, of `headatlas.lab.toy.truth.rates`."""
    return [
        [one["detector"], str(one["toys"]), f"{one['named']} / {one['matter']} / {one['heads']}",
         *(number(one[key]) for key in ("precision", "recall", "in_drop"))]
        for one in found
    ]  # fmt: skip


def toys_section(found: Sequence[dict[str, Any]]) -> list[str]:
    """Detectors on small models that were trained, not written."""
    return [
        "## Trained toys: heads that formed by training",
        "",
        "What is true of these heads is told by ablation: a head matters where it does at least half of its layer's work with "
        "all others of the layer switched off. **precision**: the share of named heads that matter; **recall**: the share of "
        "heads that matter that are named. Heads of a layer stand in for each other, so that a head may attend as its type "
        "does and yet do less than half alone. The last column: in which share of toys the first induction head forms, by its interval, "
        "while the loss of repeats falls.",
        "",
        *_table(toy_titles(), toy_rows(found)),
    ]


def _chance(result: dict[str, Any]) -> list[str]:
    """How often p is small where there is nothing to find."""
    kinds = list(result["detectors"][0]["chance"])
    levels = [key for key in result["detectors"][0]["chance"][kinds[0]] if key != "heads"]
    heads = max(found["chance"][kind]["heads"] for found in result["detectors"] for kind in kinds)
    lines = [
        "## Chance",
        "",
        "p is that of the hypothesis that a head's score exceeds its chance level by at most the minimum effect. In models of "
        f"random weights ({heads} heads of each kind; sharp: queries and keys eight times as large, so that attention goes to few "
        "tokens, whichever they are) these shares of p-values are below a level. Shares under the level mean that the test is "
        "conservative, as one is whose hypothesis grants a head the whole minimum effect:",
        "",
        "| detector | " + " | ".join(f"{kind}, {level}" for kind in kinds for level in levels) + " |",
        "| --- |" + " --- |" * (len(kinds) * len(levels)),
    ]
    return lines + [
        f"| {found['name']} | "
        + " | ".join(number(found["chance"][kind].get(level)) for kind in kinds for level in levels)
        + " |"
        for found in result["detectors"]
    ]


def svg(result: dict[str, Any]) -> str:
    """Small multiples: mean score (dots; bars from lowest to highest) against the real share of attention on target.

    Raises HeadAtlasError where matplotlib is missing.
    """
    found, columns = result["detectors"], 4
    n_rows = max(1, -(-len(found) // columns))  # detectors with plantings alone have no panel

    def paint(figure: Figure) -> None:
        tall = n_rows * _ROW + _FOOT
        room = {
            "left": 0.045,
            "right": 0.985,
            "top": 1 - 30 / tall,
            "bottom": _FOOT / tall,
            "wspace": 0.16,
            "hspace": 0.3,
        }
        panels = figure.subplots(n_rows, columns, squeeze=False, gridspec_kw=room).flat
        for axes, one in zip(panels, found, strict=False):
            axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_TICKS, yticks=_TICKS, aspect="equal")
            axes.set_title(one["name"], weight="bold")
            axes.plot((0, 1), (0, 1), color=PAGE["line"].light, linewidth=1, linestyle="--")
            axes.axhline(one["minimum_effect"], color=SERIES[1], linewidth=1)
            share, mean, low, high = zip(*one["curve"], strict=True) if one["curve"] else ((), (), (), ())
            axes.vlines(share, low, high, color=SERIES[0], clip_on=False)
            axes.plot(share, mean, "o", color=SERIES[0], markersize=6, clip_on=False, gid=f"scores-{one['name']}")
        for axes in panels:  # places of the last row without a detector
            axes.remove()
        said = "Across: real share of attention on target. Up: mean score, with a bar from lowest to highest. Orange: minimum effect."
        figure.text(0.045, 12 / tall, said, color=PICTURE["soft"].light)

    title = "Detector score against the real share of attention on target"
    return plots.svg(columns * _ROW, n_rows * _ROW + _FOOT, title, paint)
