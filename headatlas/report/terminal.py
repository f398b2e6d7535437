"""Shows an atlas in a terminal: the map of heads, the best heads of each type, and what was skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean
from headatlas.render.console import as_text, written_out
from headatlas.render.numbers import change, count, finite, number, percent, signed
from headatlas.render.palette import STAGE, STAGES
from headatlas.report.atlas_view import CONFIRMED, VERDICTS, AtlasView, Observation, best_of, read, stages_of, summary
from headatlas.report.head_line import receipt_of, twins_of
from headatlas.report.leads import leads_of
from headatlas.report.terminal_map import Mark, grid

_SHADES = " ░▒▓█"
_ASCII_SHADES = " .:+#"
_WIDE = 120  # columns from which on the map's table has room for what the checks say
_NAME = 22  # letters of a head type that a screen of 80 columns shows whole, with its mark and count


def render(
    atlas: Mapping[str, Any],
    extras: Mapping[str, Any] | None = None,
    *,
    detector: str | None = None,
    top: int = 5,
    width: int | None = None,
) -> RenderableType:
    """The atlas for `rich.print`, or one of its detectors (by name or head type). Raises BadInput, UnknownName."""
    view = read(atlas, extras)
    chosen = None if detector is None else _find(view, detector)
    return Screen(view, chosen, top, width)


def _find(view: AtlasView, name: str) -> Sequence[Mapping[str, Any]]:
    found = [entry for entry in view.detectors if name in (entry["name"], entry["head_type"])]
    if found:
        return found
    reasons = [item["reason"] for item in view.skipped if item["detector"] == name]
    if reasons:
        raise UnknownName(f"Detector '{name}' was skipped: {reasons[0]}")
    known = {entry["name"] for entry in view.detectors} | {entry["head_type"] for entry in view.detectors}
    hint = did_you_mean(name, known) or f"It has {', '.join(sorted(known)) or 'none'}."
    raise UnknownName(f"This atlas has no detector or head type '{name}'.", hint)


@dataclass(frozen=True)
class Screen:
    """An atlas that draws itself to the width and the characters of the terminal."""

    view: AtlasView
    chosen: Sequence[Mapping[str, Any]] | None
    top: int
    width: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        options = options.update(width=min(self.width or options.max_width, options.max_width))
        plain = options.ascii_only
        for segment in written_out(console.render(Group(*self._parts(options.max_width, plain)), options)):
            yield Segment(_ascii(segment.text), segment.style) if plain else segment

    def _parts(self, width: int, plain: bool) -> Iterator[RenderableType]:
        view = self.view
        if self.chosen is not None:
            for entry in self.chosen:
                yield from _detector(view, entry, self.top, width, plain)
            return
        yield Text(str(view.model.get("name") or "model"), style="bold")
        yield Text(summary(view))
        for stack in view.stacks:
            yield Text(f"\n{stack.name}" if len(view.stacks) > 1 else "")
            marks = {
                place: Mark(_mark(found, plain), _rank(found)) for place, found in view.by_head(stack.name).items()
            }
            yield grid(stack, width, marks)
        if view.observations:
            yield _legend(view, plain)
            yield Text()
            yield _types(view, self.top, plain, checks=width >= _WIDE)
            yield _receipt(view, view.detectors)
        yield from _told(view)
        yield from _leads(view)
        yield from _nothing(view)
        yield from _twins(view)
        yield from _abilities(view)
        yield from _skipped(view)


@dataclass(frozen=True)
class ScanScreen(Screen):
    """The heads of one task's scan, before anything was removed: how many, where, and the best of each type."""

    def _parts(self, width: int, plain: bool) -> Iterator[RenderableType]:
        view = self.view
        for stack in view.stacks:
            found = view.by_head(stack.name)
            where = f" ({stack.name})" if len(view.stacks) > 1 else ""
            yield Text(f"{count(len(found), 'head')} of {stack.count} observed{where}")
            if found:
                yield grid(
                    stack, width, {place: Mark(_mark(seen, plain), _rank(seen)) for place, seen in found.items()}
                )
        if view.observations:
            yield _types(view, self.top, plain, checks=False)


def scan_text(
    atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None, *, top: int = 3, width: int = 80
) -> str:
    """The map and the best heads of a scan as plain text, for those who follow a run. Raises BadInput."""
    return as_text(ScanScreen(read(atlas, extras), None, top, width), width)


def _ascii(text: str) -> str:
    """For screens that know no other characters; what has no counterpart becomes a question mark."""
    return text.translate({0x2212: "-", 0x2013: "-", 0xA0: " "}).encode("ascii", "replace").decode()


def _mark(found: Sequence[Observation], plain: bool) -> Text:
    """Two characters: the head's first stage, and its second or a plus for more; full glyphs are causal."""
    parts = stages_of(found)
    text = Text()
    for stage, confirmed in parts[:2] if len(parts) < 3 else parts[:1]:
        text.append(
            _glyph(stage, found[0].verdict if confirmed else "untested", plain),
            _style(stage, confirmed, found[0]),
        )
    if len(parts) > 2:
        text.append("+", "bold")
    return text


def _rank(found: Sequence[Observation]) -> tuple[float, ...]:
    """A head's strongest verdict, then its highest score: greater is stronger."""
    return (-min(VERDICTS.index(seen.verdict) for seen in found), max(seen.numbers["score"] or 0 for seen in found))


def _glyph(stage: str, verdict: str, plain: bool) -> str:
    style = STAGE[stage]
    if verdict not in CONFIRMED:
        return "." if plain else "·"
    if plain:
        return style.letter if verdict == "causal" else style.letter.lower()
    return style.filled if verdict == "causal" else style.hollow


def _style(stage: str, confirmed: bool, first: Observation) -> str:
    bold = "bold " if first.verdict == "causal" and confirmed else ""
    return f"{bold}{'underline ' if first.works == 'against' and confirmed else ''}{STAGE[stage].terminal}"


def _legend(view: AtlasView, plain: bool) -> Text:
    present = [stage.id for stage in STAGES if any(seen.stage == stage.id for seen in view.observations)]
    text = Text("\nacross: layers (L), down: heads\n", style="default")
    for stage in present:
        both = f"{_glyph(stage, 'causal', plain)}{_glyph(stage, 'group', plain)}"
        text.append(both, f"bold {STAGE[stage].terminal}").append(
            f" {view.stage_name(stage)}".replace(" ", "\u00a0")
        ).append("   ")
    first, second = ("capital", "small") if plain else ("full", "hollow")
    text.append(
        f"\n{first}: causal alone   {second}: causal beside others   {_glyph('none', '', plain)}: refuted or untested"
        "\n-: nothing observed   +: further stages   underlined: works against the task"
        "\neffect: how much worse it goes without the head",
        "dim",
    )
    return text


def _receipt(view: AtlasView, entries: Sequence[Mapping[str, Any]]) -> Text:
    return Text(receipt_of(view.atlas, entries), style="dim")


def _types(view: AtlasView, top: int, plain: bool, *, checks: bool) -> Table:
    checks = checks and any(seen.checks for seen in view.observations)
    table = _table("head type", "head", "score", "chance", "effect", "verdict", *(["checks"] if checks else []))
    for kind, found in view.by_type():
        for index, seen in enumerate(found[:top]):
            glyph = (_glyph(seen.stage, "causal", plain), STAGE[seen.stage].terminal)
            name = Text.assemble(glyph, f" {kind}", (f" ({len(found)})", "dim")) if index == 0 else Text()
            table.add_row(name, *_cells(seen, view), *([seen.checks] if checks else []))
    # The longest verdicts have three parts, which read well on two lines; names of types do not, unless they fill the screen.
    whole = all(len(kind) <= _NAME for kind, _ in view.by_type())
    table.columns[0].no_wrap, table.columns[5].no_wrap = whole, not whole
    return table


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        right = name in ("score", "chance", "effect", "value", "floor", "right", "by chance")
        # Words are what a narrow screen may fold; numbers and addresses stay whole.
        whole = name in ("head", "score", "chance", "effect", "verdict", "done", "value", "floor", "right", "by chance")
        table.add_column(name, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    return table


def _cells(seen: Observation, view: AtlasView) -> tuple[str | Text, ...]:
    style = {"causal": "bold", "group": "", "refuted": "dim", "untested": "dim"}[seen.verdict]
    address = seen.address if len(view.stacks) > 1 else f"{seen.layer}.{seen.head}"
    numbers = seen.numbers
    return (
        Text(address, style="bold"),
        number(numbers["score"]),
        number(numbers["chance"]),
        signed(numbers["effect"]),
        Text(seen.shown, style=style),
    )


def _told(view: AtlasView) -> Iterator[RenderableType]:
    """What detectors say of heads in words, such as which relations of syntax each follows, head by head."""
    for entry in view.detectors:
        if rows := [row for row in entry["heads"] if row.get("told")]:
            table = _table("head", "verdict", entry["name"])
            for row in sorted(rows, key=lambda one: (one["layer"], one["head"])):
                stack = f"{row['stack']}:" if len(view.stacks) > 1 else ""
                table.add_row(f"{stack}{row['layer']}.{row['head']}", row["verdict"], row["told"])
            yield Group(Text("\nShare found, beside it in brackets the level of chance", style="dim"), table)


def _leads(view: AtlasView) -> Iterator[RenderableType]:
    """What of the heads that no detector knows matters as much as causal ones do, task by task."""
    found = leads_of(view.detectors)
    if found:
        yield Group(Text(), *(Text.assemble(("leads  ", "dim"), str(one)) for one in found))
    if any(one.heads for one in found):
        yield Text("They change the result as a causal head does, and nothing known explains them", "dim")


def _nothing(view: AtlasView) -> Iterator[RenderableType]:
    """Detectors that observed no head, each with its best score and what would have counted."""
    lines = []
    for entry in view.detectors:
        if not entry["heads"]:
            best, least = best_of(entry), number(entry.get("minimum_effect"))
            known = "undefined here"
            if best:
                known = f"best {best[0]} {number(best[1])} (chance {number(best[2])}); counts: +{least}, q < 0.01"
            needs = (entry.get("about") or {}).get("examples")
            known += f"; needs {needs}" if needs else ""
            # A model that cannot do a task shows nothing of what the task asks for: that, and not the heads, is the reason.
            reason = f"{entry['untested']}; " if (entry.get("baseline") or {}).get("able") is False else ""
            lines.append(Text.assemble(("none  ", "dim"), f"{entry['name']}: ", reason, (known, "dim")))
    if lines:
        yield Group(Text(), *lines)


def _twins(view: AtlasView) -> Iterator[RenderableType]:
    """What each detector found in models that have learned nothing, where these were asked."""
    asked = [(entry, told) for entry in view.detectors if (told := twins_of(entry))]
    if asked:
        said = (f"{one['name']}: {len(one['heads'])} here; {told}" for one, told in asked)
        yield Group(Text(), *(Text.assemble(("control  ", "dim"), one) for one in said))


def _abilities(view: AtlasView) -> Iterator[RenderableType]:
    if not view.detectors:
        return
    table = _table("task", "done", "metric", "value", "floor", "right", "by chance")
    for one in view.abilities:
        done = {True: Text("yes"), False: Text("no", style="bold"), None: Text("-", style="dim")}[one.able]
        shares = (percent(one.accuracy), percent(one.chance))
        table.add_row(one.task, done, one.metric or "none", number(one.value), number(one.floor), *shares)
    yield Group(Text("\nWhat the model can do; heads of a task that it does not do are untested", style="dim"), table)


def _skipped(view: AtlasView) -> Sequence[RenderableType]:
    if not view.skipped:
        return []
    lines = [Text.assemble(("skipped", "dim"), f" {item['detector']}: {item['reason']}") for item in view.skipped]
    return [Text(), Text("\n").join(lines)]


def _detector(view: AtlasView, entry: Mapping[str, Any], top: int, width: int, plain: bool) -> Sequence[RenderableType]:
    """One detector: what it measures, how able the model is, its scores as shades, its best heads."""
    about = (view.extras.get("detectors") or {}).get(entry["name"]) or {}
    baseline, group = entry.get("baseline") or {}, entry.get("group") or {}
    found = [seen for seen in view.observations if seen.detector == entry["name"]]
    counts = ", ".join(f"{n} {v}" for v in VERDICTS if (n := sum(seen.verdict == v for seen in found)))
    lines = [Text.assemble((entry["name"], "bold"), f"  {view.type_name(entry['head_type'])}, task {entry['task']}")]
    lines += [Text(str(about["doc"]))] if about.get("doc") else []
    if baseline.get("metric"):
        able = (
            f"{baseline['metric']} {number(baseline.get('value'))}, without the ability {number(baseline.get('floor'))}"
        )
        lines.append(Text(f"model on the task: {able}"))
    if entry.get("untested"):
        lines.append(Text(f"not tested: {entry['untested']}"))
    lines.append(Text(f"observed: {count(len(found), 'head')}{f' ({counts})' if counts else ''}"))
    if group.get("effect") is not None:
        effect = change(group["effect"], group.get("effect_low"), group.get("effect_high"))
        other = group.get("metric") if group.get("metric") != baseline.get("metric") else None
        random = f", random sets {number(group['random_effect'])}" if group.get("random_effect") is not None else ""
        lines.append(Text(f"all of them off: {effect}{f' in {other}' if other else ''}{random}"))
    rest = group.get("rest") or {}
    if rest.get("effect") is not None:
        effect = change(rest["effect"], rest.get("effect_low"), rest.get("effect_high"))
        random = f", random sets {number(rest['random_effect'])}" if rest.get("random_effect") is not None else ""
        lines.append(Text(f"those that are not causal alone off: {effect}{random}"))
    if group.get("examples"):
        lines.append(
            Text(f"verdicts on {count(group['examples'], 'held-out example')}, more where an effect is unclear")
        )
    if twins := twins_of(entry):
        lines.append(Text(twins))
    shades = _ASCII_SHADES if plain else _SHADES
    parts: list[RenderableType] = [*lines, Text(), _shaded(view, entry, width, shades)]
    if found:
        checks = any(seen.checks for seen in found)
        table = _table("head", "score", "chance", "effect", "verdict", *(["checks"] if checks else []))
        for seen in found[:top]:
            table.add_row(*_cells(seen, view), *([seen.checks] if checks else []))
        parts += [Text(), table]
        parts += [Text(f"and {count(len(found) - top, 'more head')}", style="dim")] if len(found) > top else []
    return [*parts, _receipt(view, [entry]), Text()]


def _shaded(view: AtlasView, entry: Mapping[str, Any], width: int, shades: str) -> RenderableType:
    values = {
        (i, j): known
        for i, row in enumerate(entry["scores"])
        for j, value in enumerate(row or [])
        if (known := finite(value)) is not None
    }
    most = max([abs(value) for value in values.values()] + [float(entry.get("minimum_effect") or 0)]) or 1.0
    marks = {}
    for place, value in values.items():
        shade = shades[min(len(shades) - 1, round(abs(value) / most * (len(shades) - 1)))]
        style = "red" if value < 0 else "cyan" if shade != " " else "dim"
        marks[place] = Mark(Text((shade if shade != " " else "-") * 2, style=style), (abs(value),))
    legend = Text(f"{shades[1]} to {shades[-1]}: score up to {number(most)}, -: near 0", style="dim")
    return Group(grid(view.stack_of(entry), width, marks), legend)
