"""Colours and signs of all that is drawn, light and dark, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageStyle:
    """How one stage is drawn: colour-blind-safe colours, a filled and a hollow glyph, a letter."""

    id: str
    name: str
    colour: str
    dark: str
    filled: str
    hollow: str
    letter: str


# Four colours that differ in lightness as well as hue, so that they keep apart for colour-blind readers (a test
# simulates three kinds); `none` is for head types without a stage.
STAGES = (
    StageStyle("kr", "Knowledge Recalling", "#dd9a2e", "#eab35f", "◆", "◇", "K"),
    StageStyle("ici", "In-Context Identification", "#2a62b4", "#4a86dd", "●", "○", "I"),
    StageStyle("lr", "Latent Reasoning", "#2fae8f", "#8fe0cc", "▲", "△", "L"),
    StageStyle("ep", "Expression Preparation", "#8a3a76", "#c9578f", "■", "□", "E"),
    StageStyle("none", "No stage", "#525a67", "#dfe3e8", "★", "☆", "N"),
)
STAGE = {stage.id: stage for stage in STAGES}
