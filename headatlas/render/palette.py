"""Colours and signs of all that is drawn, light and dark, in one place; pages get them as CSS variables.

A colour that means something (a stage, a curve) is named here once; style sheets say `var(--kr)` and never a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Tone(NamedTuple):
    """One colour on light paper and in the dark, as #rrggbb."""

    light: str
    dark: str


@dataclass(frozen=True)
class StageStyle:
    """How one stage is drawn: colour-blind-safe colours, a filled and a hollow glyph, a letter.

    tint: lies behind text: light on paper and deep in the dark, so that ink stays readable at full strength.
    terminal: one of the colour names that every terminal theme has.
    """

    id: str
    name: str
    tone: Tone
    tint: Tone
    terminal: str
    filled: str
    hollow: str
    letter: str


# Four colours that differ in lightness as well as hue, so that they keep apart for colour-blind readers (a test
# simulates three kinds); `none` is for head types without a stage.
STAGES = (
    StageStyle(
        "kr", "Knowledge Recalling", Tone("#dd9a2e", "#eab35f"), Tone("#f0bd68", "#7d5517"), "yellow", "◆", "◇", "K"
    ),
    StageStyle(
        "ici",
        "In-Context Identification",
        Tone("#2a62b4", "#4a86dd"),
        Tone("#8db1e6", "#2c5aa6"),
        "blue",
        "●",
        "○",
        "I",
    ),
    StageStyle(
        "lr", "Latent Reasoning", Tone("#2fae8f", "#8fe0cc"), Tone("#6fd0b6", "#17695a"), "green", "▲", "△", "L"
    ),
    StageStyle(
        "ep", "Expression Preparation", Tone("#8a3a76", "#c9578f"), Tone("#d79cc9", "#8d3566"), "magenta", "■", "□", "E"
    ),
    StageStyle("none", "No stage", Tone("#525a67", "#dfe3e8"), Tone("#b9c0cb", "#525b69"), "white", "★", "☆", "N"),
)
STAGE = {stage.id: stage for stage in STAGES}

# Paper, ink and what lies between them, on our own pages.
PAGE: Mapping[str, Tone] = {
    "paper": Tone("#faf8f3", "#11151b"),
    "panel": Tone("#ffffff", "#181e26"),
    "line": Tone("#e2ddd1", "#2e3743"),
    "ink": Tone("#1b2430", "#e9ebef"),
    "soft": Tone("#58616e", "#a6b0bd"),
    "cell": Tone("#edeae1", "#232a34"),
    "accent": Tone("#1f5fb4", "#8ab8f5"),
}
# What a head reads: lines of drawn circuits that end at a head's queries, keys or values.
INPUTS: Mapping[str, Tone] = {
    "q": Tone("#b3362b", "#f0897d"),
    "k": Tone("#7a5a00", "#d9b84a"),
    "v": Tone("#3d5578", "#a9bedd"),
}
# Paper and ink on the white or black page of somebody else, where pictures of our own stand.
PICTURE: Mapping[str, Tone] = {
    "paper": Tone("#ffffff", "#0d1117"),
    "ink": PAGE["ink"],
    "soft": PAGE["soft"],
    "cell": Tone("#eae6dc", "#252c36"),
}
# Curves, bars and dots of the figures in docs/, in the order in which they are used up.
SERIES = (STAGE["ici"].tone.light, "#c2571a", STAGE["lr"].tone.light, STAGE["ep"].tone.light)


def css_variables() -> str:
    """The colours as variables of `:root`, both schemes at once by light-dark(), and the classes that give stages theirs.

    A class `stage-kr` or `fill-kr` sets `--tone`, `tint-kr` sets `--tint` as well.
    """
    tones = {**PAGE, **{stage.id: stage.tone for stage in STAGES}, **INPUTS}
    variables = "".join(f"  --{name}: {light_dark(tone)};\n" for name, tone in tones.items())
    classes = "".join(
        f".stage-{s.id}, .fill-{s.id}, .tint-{s.id} {{ --tone: var(--{s.id}); }}\n"
        f".tint-{s.id} {{ --tint: {light_dark(s.tint)}; }}\n"
        for s in STAGES
    )
    return f":root {{\n  color-scheme: light dark;\n{variables}}}\n{classes}"


def light_dark(tone: Tone) -> str:
    """The colour as CSS takes it from the reader's scheme."""
    return f"light-dark({tone.light}, {tone.dark})"
