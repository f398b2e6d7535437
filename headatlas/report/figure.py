"""Draws an atlas as one SVG picture for a README or a paper: layers from left to right, heads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal
from xml.sax.saxutils import escape

from headatlas.render.palette import STAGE, STAGES
from headatlas.report.atlas_view import CONFIRMED, AtlasView, Observation, Stack, read, stages_of

_LEFT, _RIGHT, _PROFILE, _AXIS = 34, 12, 40, 22
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_LIGHT = {"paper": "#ffffff", "ink": "#1b2430", "soft": "#58616e", "cell": "#eae6dc"}
_DARK = {"paper": "#0d1117", "ink": "#e9ebef", "soft": "#a6b0bd", "cell": "#252c36"}


def svg(
    atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None, *, theme: Literal["auto", "light"] = "auto"
) -> str:
    """The picture of an atlas; `auto` follows the reader's light or dark setting. Raises BadInput."""
    reading = read(atlas, extras)
    body: list[str] = []
    top = 58.0
    width = 420.0
    for stack in reading.stacks:
        cell = max(5.0, min(26.0, 900 / max(1, stack.n_layers)))
        tall = max(5.0, min(cell, 640 / max(1, stack.n_heads)))
        if len(reading.stacks) > 1:
            body.append(_text(_LEFT, top + 4, stack.name, "soft"))
        top += _PROFILE + 8
        body += _map(reading, stack, cell, tall, top)
        width = max(width, _LEFT + stack.n_layers * cell + _RIGHT)
        top += stack.n_heads * tall + _AXIS + 14
    legend, top = _legend(reading, width, top + 4)
    name = str(reading.model.get("name") or "model")
    n_seen = len({(seen.stack, seen.layer, seen.head) for seen in reading.observations})
    title = f"Attention heads of {name}"
    said = f"{n_seen} of {reading.n_heads} heads observed by {len(reading.detectors)} detectors"
    head = [_text(_LEFT, 24, title, "ink", size=17, weight=600), _text(_LEFT, 44, said, "soft", size=12.5)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top:.0f}" width="{width:.0f}" '
            f'height="{top:.0f}" font-family="{_FONT}" font-size="11" role="img" class="headatlas-figure">',
            f"<title>{_safe(title)}</title><desc>{_safe(said)}: {_safe(_counts(reading))}.</desc>",
            f"<style>{stylesheet(theme)}</style>",
            f'<rect class="ha-paper" width="{width:.0f}" height="{top:.0f}"/>',
            *head,
            *body,
            *legend,
            "</svg>",
        ]
    )


def stylesheet(theme: str) -> str:
    """Class rules; every name starts with `ha-`, since a picture inside a page shares the page's names."""

    def rules(colours: Mapping[str, str], stages: Mapping[str, str]) -> str:
        lines = [f".ha-{name}{{fill:{value}}}" for name, value in {**colours, **stages}.items()]
        lines.append(f".ha-border{{fill:none;stroke:{colours['ink']}}}")
        return "".join(lines)

    light = rules(_LIGHT, {stage.id: stage.colour for stage in STAGES})
    dark = rules(_DARK, {stage.id: stage.dark for stage in STAGES})
    return light + (f"@media(prefers-color-scheme:dark){{{dark}}}" if theme == "auto" else "")


def _map(reading: AtlasView, stack: Stack, cell: float, tall: float, top: float) -> list[str]:
    gap = 1.0 if cell < 11 else 2.4
    heads = reading.by_head(stack.name)
    base: list[str] = []
    causal: list[str] = []
    group: list[str] = []
    fills: dict[tuple[str, bool], list[str]] = {}
    counts: list[dict[str, int]] = [{} for _ in range(stack.n_layers)]
    for layer, row in enumerate(stack.exists):
        for head in (index for index, there in enumerate(row) if there):
            x, y = _LEFT + layer * cell + gap / 2, top + head * tall + gap / 2
            w, h = cell - gap, tall - gap
            base.append(_box(x, y, w, h))
            found = heads.get((layer, head), [])
            parts = stages_of(found)
            for index, (stage, confirmed) in enumerate(parts):
                fills.setdefault((stage, confirmed), []).append(_box(x + w * index / len(parts), y, w / len(parts), h))
                counts[layer][stage] = counts[layer].get(stage, 0) + 1
            if found and found[0].verdict in CONFIRMED:
                (causal if found[0].verdict == "causal" else group).append(_box(x, y, w, h))
    dash = "1.5 1.5" if cell < 16 else "3 2.4"
    return [
        _path("ha-cell", base),
        *(
            _path(f"ha-{stage}", boxes, "" if sure else ' fill-opacity="0.34"')
            for (stage, sure), boxes in fills.items()
        ),
        _path("ha-border", causal, ' stroke-width="1.7"'),
        _path("ha-border", group, f' stroke-width="1.5" stroke-dasharray="{dash}"'),
        *_profile(counts, cell, top),
        *_ticks(stack, cell, tall, top),
    ]


def _profile(counts: list[dict[str, int]], cell: float, top: float) -> list[str]:
    """How many heads of each layer show each stage, as stacked bars above the map."""
    most = max([sum(layer.values()) for layer in counts] + [1])
    bars: dict[str, list[str]] = {}
    for layer, found in enumerate(counts):
        bottom = top - 6
        for stage in (stage.id for stage in STAGES if stage.id in found):
            height = found[stage] / most * _PROFILE
            bottom -= height
            bars.setdefault(stage, []).append(_box(_LEFT + layer * cell + 1.5, bottom, cell - 3, height))
    return [_path(f"ha-{stage}", boxes) for stage, boxes in bars.items()]


def _ticks(stack: Stack, cell: float, tall: float, top: float) -> Iterable[str]:
    below = top + stack.n_heads * tall + 15
    for layer in range(0, stack.n_layers, _step(cell, 20)):
        yield _text(_LEFT + (layer + 0.5) * cell, below, str(layer), "soft", anchor="middle")
    for head in range(0, stack.n_heads, _step(tall, 13)):
        yield _text(_LEFT - 6, top + (head + 0.5) * tall + 4, str(head), "soft", anchor="end")


def _step(cell: float, size: float) -> int:
    return next((step for step in (1, 2, 5, 10, 20) if step * cell >= size), 20)


def _legend(reading: AtlasView, width: float, top: float) -> tuple[list[str], float]:
    """Stages that occur and what the borders mean, wrapped to the width; with the height it ends at."""
    seen = {item.stage for item in reading.observations}
    entries = [(stage.id, reading.stage_name(stage.id)) for stage in STAGES if stage.id in seen]
    entries += (
        [("causal", "causal alone"), ("group", "causal as a group"), ("faded", "refuted or untested")] if seen else []
    )
    entries = entries or [("cell", "no head was observed")]
    made, x = [], float(_LEFT)
    for kind, words in entries:
        needed = 34 + 6.7 * len(words)
        if x > _LEFT and x + needed > width:
            x, top = float(_LEFT), top + 20
        made.append(_swatch(kind, x, top))
        made.append(_text(x + 18, top + 10, words, "soft", size=12))
        x += needed
    return made, top + 28


def _swatch(kind: str, x: float, y: float) -> str:
    if kind in STAGE or kind == "cell":
        return _path(f"ha-{kind}", [_box(x, y, 12, 12)])
    if kind == "faded":
        return _path("ha-soft", [_box(x, y, 12, 12)], ' fill-opacity="0.34"')
    dash = ' stroke-dasharray="3 2.4"' if kind == "group" else ""
    return _path("ha-border", [_box(x + 1, y + 1, 10, 10)], f' stroke-width="1.7"{dash}')


def _counts(reading: AtlasView) -> str:
    def of(stage: str, found: Iterable[Observation]) -> int:
        return len({(seen.stack, seen.layer, seen.head) for seen in found if seen.stage == stage})

    present = [stage.id for stage in STAGES if any(seen.stage == stage.id for seen in reading.observations)]
    return ", ".join(f"{reading.stage_name(s)} {of(s, reading.observations)}" for s in present) or "none"


def _box(x: float, y: float, w: float, h: float) -> str:
    return f"M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h{-w:.1f}z"


def _path(name: str, boxes: list[str], more: str = "") -> str:
    return f'<path class="{name}"{more} d="{"".join(boxes)}"/>' if boxes else ""


def _safe(text: str) -> str:
    """Text for XML: escaped, without the control characters that XML does not allow."""
    return escape(
        "".join(
            c for c in text if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff")
        )
    )


def _text(
    x: float, y: float, text: str, tone: str, *, size: float = 11, weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text class="ha-{tone}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{_safe(text)}</text>'
    )
