"""Makes the report of an atlas: one HTML file that opens offline, with a map to click through and a card a head."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headatlas.render.numbers import change, finite, number, percent, probability
from headatlas.render.palette import STAGE, STAGES
from headatlas.render.style import base, joined
from headatlas.render.templates import environment
from headatlas.report.atlas_view import VERDICT_WORDS, VERDICTS, AtlasView, best_of, read, summary
from headatlas.report.figure import stylesheet, svg
from headatlas.report.head_line import receipt_of, twins_of
from headatlas.report.leads import leads_of

if TYPE_CHECKING:
    from jinja2 import Environment

# Attention links of all examples together, and the fewest that a head is shown with; packed, a link takes about 5 bytes.
_LINKS = 120_000
_LINKS_OF_A_HEAD = 40
_FAINTEST = 0.02
_GROUP = ("effect", "effect_low", "effect_high", "random_effect", "p", "metric", "rest", "examples")


def html(atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None) -> str:
    """The report as one self-contained page. Raises BadInput where the atlas has another schema."""
    view = read(atlas, extras)
    style = Markup(f"{base()}{joined(__package__, '.css')}")
    # The files share one scope, which waits for the numbers to be unpacked.
    script = Markup(f'(async () => {{\n"use strict";\n{joined(__package__, ".js")}}})();')
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            style=style,
            script=script,
            policy=_policy(script, style, stylesheet("auto")),
            data=packed(payload(view)),
            figure=Markup(svg(atlas, extras)),
            stages=[
                stage for stage in STAGES if stage.id != "none" or any(s.stage == "none" for s in view.observations)
            ],
            stage_counts=Counter(
                stage for stage, _, _, _ in {(s.stage, s.stack, s.layer, s.head) for s in view.observations}
            ),
            verdict_counts=Counter(
                verdict for verdict, *_ in {(s.verdict, s.stack, s.layer, s.head) for s in view.observations}
            ),
            verdict_words=VERDICT_WORDS,
            types=sorted({(seen.type_name, seen.head_type) for seen in view.observations}),
            facts=_facts(view),
            details=_details(view),
            lead=summary(view),
            leads=list(map(str, leads_of(view.detectors))),
            receipt=receipt_of(view.atlas, view.detectors),
            model_rows=list(_flat(view.model)),
            run_rows=list(_flat(view.atlas.get("run") or {})),
        )
    )


@cache
def _environment() -> Environment:
    made = environment("headatlas.report")
    made.filters |= {"number": number, "change": change, "percent": percent, "probability": probability}
    return made


def _policy(script: str, *styles: str) -> str:
    """What the browser may run: our own script and styles, known by their hashes; no network at all."""

    def sources(texts: Iterable[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts
        )

    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {sources([script])}; style-src {sources(styles)}; {rest}"


def packed(value: Any) -> str:
    """JSON, deflated, in base64: a tenth of its size, and nothing in it can end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode())).decode()


def payload(view: AtlasView) -> dict[str, Any]:
    """What the page's script needs, with numbers cut to a few significant digits."""
    index = {entry["name"]: i for i, entry in enumerate(view.detectors)}
    types = {kind: _type(view, kind) for kind in dict.fromkeys(entry["head_type"] for entry in view.detectors)}
    return {
        "stages": [{"id": s.id, "name": view.stage_name(s.id), "filled": s.filled} for s in STAGES],
        "verdict_words": VERDICT_WORDS,
        "stacks": [
            {"name": stack.name, "exists": ["".join("01"[there] for there in row) for row in stack.exists]}
            for stack in view.stacks
        ],
        "types": types,
        "detectors": [_detector(view, entry) for entry in view.detectors],
        "seen": _columns(
            {
                "d": index[s.detector],
                "stack": s.stack,
                "layer": s.layer,
                "head": s.head,
                "verdict": s.verdict,
                "shown": s.shown,
                "marginal": s.marginal,
                "checks": s.checks.replace("  ", "; "),
            }
            | {name: _short(value, 7) for name, value in s.numbers.items()}
            for s in view.observations
        ),
        "examples": _examples(view.extras.get("examples") or {}),
        "pages": [{"told": one["told"], "heads": one["heads"]} for one in view.pages],
    }


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows' values by name: like numbers side by side pack best."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _type(view: AtlasView, kind: str) -> dict[str, Any]:
    about = (view.extras.get("head_types") or {}).get(kind) or {}
    return {
        "name": view.type_name(kind),
        "role": about.get("role") or "",
        "papers": [{key: paper.get(key) for key in ("title", "year", "url")} for paper in about.get("papers") or []],
    }


def _detector(view: AtlasView, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "type": entry["head_type"],
        "stage": view.stage_of(entry),
        "stack": view.stack_of(entry).name,
        "minimum_effect": _short(entry.get("minimum_effect")),
        "baseline": {"metric": (entry.get("baseline") or {}).get("metric")},
        "untested": entry.get("untested"),
        "group": {
            "effect": _short((entry.get("group") or {}).get("effect")),
            "metric": (entry.get("group") or {}).get("metric"),
        },
        "heads": len(entry["heads"]),
        "scores": [[_short(value) for value in row or []] for row in entry["scores"]],
        "chance": [[_short(value) for value in row or []] for row in entry["chance"]],
    }


def _short(value: Any, digits: int = 5) -> float | None:
    known = finite(value)
    return None if known is None else float(f"{known:.{digits}g}")


def _examples(examples: Mapping[str, Any]) -> dict[str, Any]:
    """Attention links as flat lists query, key, weight x 1000; the faintest go where a file would grow too large.

    Where there would still be too many, the weakest heads of each detector go, and are counted as left out.
    """
    n_heads = max(1, _LINKS // (_LINKS_OF_A_HEAD * max(1, len(examples))))
    n_shown = sum(min(n_heads, len(example["heads"])) for example in examples.values())
    most = max(_LINKS_OF_A_HEAD, _LINKS // max(1, n_shown))
    shown = {}
    for name, example in examples.items():
        heads = {}
        for key, links in list(example["heads"].items())[:n_heads]:
            strong = sorted((link for link in links if (finite(link[2]) or 0) >= _FAINTEST), key=lambda link: -link[2])[
                :most
            ]
            heads[key] = [
                n for query, at, weight in sorted(strong) for n in (int(query), int(at), round(weight * 1000))
            ]
        left_out = example.get("left_out", 0) + len(example["heads"]) - len(heads)
        shown[name] = {"tokens": [str(token) for token in example["tokens"]], "heads": heads, "left_out": left_out}
    return shown


def _facts(view: AtlasView) -> list[tuple[str, str]]:
    model = view.model
    grouped = model.get("n_kv_heads") not in (None, model.get("n_heads"))
    heads = f"{model.get('n_heads')} a layer" + (f", {model['n_kv_heads']} for keys and values" if grouped else "")
    facts = [
        ("Architecture", model.get("architecture")),
        ("Layers", model.get("n_layers")),
        ("Heads", heads if model.get("n_heads") else None),
        ("Width", f"{model['d_model']} ({model.get('d_head')} a head)" if model.get("d_model") else None),
        ("Precision", model.get("dtype")),
        ("Adapters", ", ".join(f"{one['name']} ({one['type']})" for one in model.get("adapters") or ()) or None),
        ("Measured", str((view.atlas.get("run") or {}).get("created") or "").split("T")[0] or None),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _details(view: AtlasView) -> list[dict[str, Any]]:
    """One entry a detector for the section that explains them."""
    about = view.extras.get("detectors") or {}
    details: list[dict[str, Any]] = []
    for index, entry in enumerate(view.detectors):
        own = [seen for seen in view.observations if seen.detector == entry["name"]]
        counts = Counter(seen.verdict for seen in own)
        details.append(
            {
                "index": index,
                "entry": entry,
                "stage": STAGE[view.stage_of(entry)],
                "type_name": view.type_name(entry["head_type"]),
                "about": {"doc": "", "formula": "", "range": ""} | dict(about.get(entry["name"]) or {}),
                "baseline": {"metric": None, "value": None, "floor": None} | dict(entry.get("baseline") or {}),
                "untested": entry.get("untested"),
                "twins": twins_of(entry),
                "best": best_of(entry),
                "group": dict.fromkeys(_GROUP) | dict(entry.get("group") or {}),
                "counts": [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]],
                "heads": own[:5],
                "more": max(0, len(own) - 5),
            }
        )
    return details


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a nested dict with its value as text: `versions.torch`, `seconds.load`."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, Sequence) and not isinstance(item, str):
            yield f"{prefix}{key}", ", ".join(map(str, item)) or "none"
        else:
            yield f"{prefix}{key}", "none" if item is None else str(item)
