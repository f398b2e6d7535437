"""The calibration as a page: a table, curves of score against real strength, and how to read them."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_COLUMNS = (
    ("auc", "AUC"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("verdict_precision", "verdict precision"),
    ("verdict_recall", "verdict recall"),
    ("false_discovery", "false discoveries"),
)


def number(value: float | None) -> str:
    """Three digits, or a dash where nothing was counted."""
    return "-" if value is None else f"{value:.3f}"


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


def seeds(result: dict[str, Any], half: str) -> str:
    """The seeds of one part of the grid, such as `0 and 1`."""
    return " and ".join(map(str, result["seeds"][half]))


def markdown(result: dict[str, Any], command: str, figure: str) -> str:
    """docs/calibration.md."""
    head = ["detector", "minimum effect", *(title for _, title in _COLUMNS), "heads: found / not / controls"]

    def table(body: list[list[str]]) -> list[str]:
        return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]

    fake = {found["name"]: found for found in result["detectors"]}
    lines = [
        "# Calibration: how often the detectors are right",
        "",
        f"Written by `{command}`. {result['cells']} models with planted heads (GPT-2 and Llama, MHA and GQA, graded strength, superposition "
        f"noise) and {result['controls']} controls, {result['examples']} examples per task.",
        "",
        f"A head counts as a positive where at least {result['weakest']:.0%} of its attention really is on its targets, measured from the model's "
        "own eager attention without any detector; weaker ones are in the curves only. It counts as a negative where at least "
        f"{result['settled']:.0%} of its attention is where its own, other kind looks, or where nothing was planted (noise heads). "
        f"Thresholds may be chosen on the seeds {seeds(result, 'tuning')} only; this table is from the seeds {seeds(result, 'reported')}.",
        "",
        *table(rows(result)),
        "",
        "- **AUC, precision, recall**: of score above chance, and of `observed`, against the planted truth. A detector of attention alone must "
        "find every head that attends so: the fake induction head and the copy-suppression head attend like induction heads.",
        "- **verdict**: of `causal` against what switching the head off with a plain hook costs on fresh text; tasks with a loss only.",
        "- **false discoveries**: share of heads observed in untrained models, models of noise heads only, weight-shuffled real models (full grid), "
        "and on texts whose structure is destroyed. The stated bound is 1%.",
    ]
    if "induction" in fake and "induction-copy" in fake:
        a, b = fake["induction"], fake["induction-copy"]
        lines += [
            "",
            f"The fake induction head (attends right, copies nothing) is observed by `induction` in {number(a['fake_observed'])} of the cases and by "
            f"`induction-copy` in {number(b['fake_observed'])}; the verdict calls it causal in {number(a['fake_causal'])}.",
        ]
    lines += [
        "",
        f"![Score against real strength]({figure})",
        "",
        "## The seeds on which thresholds were chosen",
        "",
        *table(rows(result, "tuning")),
        "",
    ]
    lines += [f"Uncalibrated (no planted model tests them): {', '.join(result['uncalibrated']) or 'none'}.", ""]
    return "\n".join(lines)


def svg(result: dict[str, Any]) -> str:
    """Small multiples: mean score (dots; bars from lowest to highest) against the real share of attention on target."""
    found, size, gap = result["detectors"], 170, 26
    width = 4 * (size + gap) + gap
    height = -(-len(found) // 4) * (size + 2 * gap) + gap
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" role="img">',
        "<title>Detector score against the real share of attention on target</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, one in enumerate(found):
        left, top = gap + i % 4 * (size + gap), 2 * gap + i // 4 * (size + 2 * gap)

        def x(value: float, left: float = left) -> float:
            return left + value * size

        def y(value: float, top: float = top) -> float:
            return top + (1 - value) * size

        parts.append(f'<text x="{left}" y="{top - 7}" font-weight="600" fill="#1a2330">{escape(one["name"])}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="#c9ced6"/>')
        parts.append(f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#c9ced6" stroke-dasharray="3 3"/>')
        level = y(one["minimum_effect"])
        parts.append(f'<line x1="{x(0)}" y1="{level}" x2="{x(1)}" y2="{level}" stroke="#c2571a"/>')
        for share, mean, low, high in one["curve"]:
            parts.append(
                f'<line x1="{x(share):.1f}" y1="{y(low):.1f}" x2="{x(share):.1f}" y2="{y(high):.1f}" stroke="#2b6cb0" stroke-width="2"/>'
            )
            parts.append(f'<circle cx="{x(share):.1f}" cy="{y(mean):.1f}" r="3.5" fill="#2b6cb0"/>')
        parts.append(
            f'<text x="{left}" y="{top + size + 14}" fill="#5b6675">share on target 0 to 1; line: minimum effect</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
