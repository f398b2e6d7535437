"""Draws an atlas as one SVG picture for a README or a paper: layers from left to right, heads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from markupsafe import Markup

from headatlas.render.palette import PICTURE, STAGE, STAGES
from headatlas.render.svg import box, tag
from headatlas.report.atlas_view import CONFIRMED, AtlasView, Observation, Stack, read, stages_of

_LEFT, _RIGHT, _PROFILE, _AXIS = 34, 12, 40, 22
_FAINT = "0.34"  # how strong the colour of heads is that were not confirmed
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def svg(
    atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None, *, theme: Literal["auto", "light"] = "auto"
) -> str:
    """The picture of an atlas; `auto` follows the reader's light or dark setting. Raises BadInput."""
    view = read(atlas, extras)
    body: list[Markup] = []
    top = 58.0
    width = 420.0
    for stack in view.stacks:
        cell = max(5.0, min(26.0, 900 / max(1, stack.n_layers)))
        tall = max(5.0, min(cell, 640 / max(1, stack.n_heads)))
        if len(view.stacks) > 1:
            body.append(_text(_LEFT, top + 4, stack.name, "soft"))
        top += _PROFILE + 8
        body += _map(view, stack, cell, tall, top)
        width = max(width, _LEFT + stack.n_layers * cell + _RIGHT)
        top += stack.n_heads * tall + _AXIS + 14
    legend, top = _legend(view, width, top + 4)
    name = str(view.model.get("name") or "model")
    n_seen = len({(seen.stack, seen.layer, seen.head) for seen in view.observations})
    title = f"Attention heads of {name}"
    said = f"{n_seen} of {view.n_heads} heads observed by {len(view.detectors)} detectors"
    head = [_text(_LEFT, 24, title, "ink", size=17, weight=600), _text(_LEFT, 44, said, "soft", size=12.5)]
    size = {"viewBox": f"0 0 {width:.0f} {top:.0f}", "width": f"{width:.0f}", "height": f"{top:.0f}"}
    parts = [
        tag("title", title),
        tag("desc", f"{said}: {_counts(view)}."),
        tag("style", Markup(stylesheet(theme))),
        tag("rect", class_="ha-paper", width=size["width"], height=size["height"]),
        *head,
        *body,
        *legend,
    ]
    lines = Markup("\n").join([Markup(), *parts, Markup()])
    look = {"font_family": _FONT, "font_size": 11, "role": "img", "class_": "headatlas-figure"}
    return str(tag("svg", lines, xmlns="http://www.w3.org/2000/svg", **size, **look))


def stylesheet(theme: str) -> str:
    """Class rules; every name starts with `ha-`, since a picture inside a page shares the page's names."""

    def rules(scheme: Literal["light", "dark"]) -> str:
        tones = {**PICTURE, **{stage.id: stage.tone for stage in STAGES}}
        lines = [f".ha-{name}{{fill:{getattr(tone, scheme)}}}" for name, tone in tones.items()]
        return "".join([*lines, f".ha-border{{fill:none;stroke:{getattr(PICTURE['ink'], scheme)}}}"])

    return rules("light") + (f"@media(prefers-color-scheme:dark){{{rules('dark')}}}" if theme == "auto" else "")


def _map(view: AtlasView, stack: Stack, cell: float, tall: float, top: float) -> list[Markup]:
    gap = 1.0 if cell < 11 else 2.4
    heads = view.by_head(stack.name)
    base: list[str] = []
    causal: list[str] = []
    group: list[str] = []
    fills: dict[tuple[str, bool], list[str]] = {}
    counts: list[dict[str, int]] = [{} for _ in range(stack.n_layers)]
    for layer, row in enumerate(stack.exists):
        for head in (index for index, there in enumerate(row) if there):
            x, y = _LEFT + layer * cell + gap / 2, top + head * tall + gap / 2
            w, h = cell - gap, tall - gap
            base.append(box(x, y, w, h))
            found = heads.get((layer, head), [])
            parts = stages_of(found)
            for index, (stage, confirmed) in enumerate(parts):
                fills.setdefault((stage, confirmed), []).append(box(x + w * index / len(parts), y, w / len(parts), h))
                counts[layer][stage] = counts[layer].get(stage, 0) + 1
            if found and found[0].verdict in CONFIRMED:
                (causal if found[0].verdict == "causal" else group).append(box(x, y, w, h))
    dash = "1.5 1.5" if cell < 16 else "3 2.4"
    return [
        _path("ha-cell", base),
        *(_path(f"ha-{stage}", boxes, fill_opacity=None if sure else _FAINT) for (stage, sure), boxes in fills.items()),
        _path("ha-border", causal, stroke_width=1.7),
        _path("ha-border", group, stroke_width=1.5, stroke_dasharray=dash),
        *_profile(counts, cell, top),
        *_ticks(stack, cell, tall, top),
    ]


def _profile(counts: list[dict[str, int]], cell: float, top: float) -> list[Markup]:
    """How many heads of each layer show each stage, as stacked bars above the map."""
    most = max([sum(layer.values()) for layer in counts] + [1])
    bars: dict[str, list[str]] = {}
    for layer, found in enumerate(counts):
        bottom = top - 6
        for stage in (stage.id for stage in STAGES if stage.id in found):
            height = found[stage] / most * _PROFILE
            bottom -= height
            bars.setdefault(stage, []).append(box(_LEFT + layer * cell + 1.5, bottom, cell - 3, height))
    return [_path(f"ha-{stage}", boxes) for stage, boxes in bars.items()]


def _ticks(stack: Stack, cell: float, tall: float, top: float) -> Iterable[Markup]:
    below = top + stack.n_heads * tall + 15
    for layer in range(0, stack.n_layers, _step(cell, 20)):
        yield _text(_LEFT + (layer + 0.5) * cell, below, str(layer), "soft", anchor="middle")
    for head in range(0, stack.n_heads, _step(tall, 13)):
        yield _text(_LEFT - 6, top + (head + 0.5) * tall + 4, str(head), "soft", anchor="end")


def _step(cell: float, size: float) -> int:
    return next((step for step in (1, 2, 5, 10, 20) if step * cell >= size), 20)


def _legend(view: AtlasView, width: float, top: float) -> tuple[list[Markup], float]:
    """Stages that occur and what the borders mean, wrapped to the width; with the height it ends at."""
    seen = {item.stage for item in view.observations}
    entries = [(stage.id, view.stage_name(stage.id)) for stage in STAGES if stage.id in seen]
    entries += (
        [("causal", "causal alone"), ("group", "causal beside others"), ("faded", "refuted or untested")]
        if seen
        else []
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


def _swatch(kind: str, x: float, y: float) -> Markup:
    if kind in STAGE or kind == "cell":
        return _path(f"ha-{kind}", [box(x, y, 12, 12)])
    if kind == "faded":
        return _path("ha-soft", [box(x, y, 12, 12)], fill_opacity=_FAINT)
    dash = "3 2.4" if kind == "group" else None
    return _path("ha-border", [box(x + 1, y + 1, 10, 10)], stroke_width=1.7, stroke_dasharray=dash)


def _counts(view: AtlasView) -> str:
    def of(stage: str, found: Iterable[Observation]) -> int:
        return len({(seen.stack, seen.layer, seen.head) for seen in found if seen.stage == stage})

    present = [stage.id for stage in STAGES if any(seen.stage == stage.id for seen in view.observations)]
    return ", ".join(f"{view.stage_name(s)} {of(s, view.observations)}" for s in present) or "none"


def _path(name: str, boxes: Sequence[str], **more: str | float | None) -> Markup:
    return tag("path", class_=name, **more, d="".join(boxes)) if boxes else Markup()


def _text(
    x: float, y: float, text: str, tone: str, *, size: float = 11, weight: int = 400, anchor: str = "start"
) -> Markup:
    return tag(
        "text", text, class_=f"ha-{tone}", x=x, y=y, font_size=f"{size:g}", font_weight=weight, text_anchor=anchor
    )
