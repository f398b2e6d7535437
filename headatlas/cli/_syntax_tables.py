"""The tables of `headatlas syntax`: one a measure, 80 columns wide, each number beside its chance level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from headatlas.render.console import console

Data = Mapping[str, Any]


def print_syntax(data: Data, treebank: str | None, top: int) -> None:
    """Print what `headatlas.treebanks.as_data.data_of` gives; `top` heads of those measures that rank heads."""
    _say(
        f"{data['model']} on {data['n']} sentences ({treebank or data['sentences']}). Start and end tokens: {data['start_end']}."
    )
    if left := data["left_out"]:
        _say(
            f"{len(left)} left out, too long for the model or with a word that has no token: {', '.join(left[:3])} ..."
        )
    tables: dict[str, Callable[[Data, int], None]] = {
        "dependencies": _dependencies, "trees": _trees, "constituents": _constituents, "coreference": _coreference,
        "sieve": _sieve, "probe": _probe, "surface": _surface, "likeness": _likeness,
    }  # fmt: skip
    for name, show in tables.items():
        if name in data:
            _say("")
            show(data[name], top)


def _say(text: str) -> None:
    console().print(text, soft_wrap=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _short(head: str) -> str:
    """The head without its stack: all heads of a table are of one."""
    return head.rpartition(":")[2]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _best(rows: Mapping[str, Any], key: Callable[[Any], float], top: int) -> list[tuple[str, Any]]:
    return sorted(rows.items(), key=lambda one: -key(one[1]))[:top]


def _dependencies(data: Data, top: int) -> None:
    _say("Dependencies: % of edges found by the best head; > marks 10 points above the best fixed offset at q < 0.01")
    rows = []
    for name, one in data["relations"].items():
        cells = [name, str(one["edges"])]
        for way in ("to head", "from head"):
            found = one[way]
            passed = found["rate"] - found["chance"] >= 0.1 and found["q"] < 0.01 and name != "all"
            cells += [
                f"{'>' if passed else ''} {_short(found['head'])} {_percent(found['rate'])}",
                _percent(found["held_out"]),
            ]
        offset = one["to head"]
        chance = f"{_percent(offset['chance'])} {offset['offset']:+d}"
        rows.append([*cells, chance, _percent(one["either"]["rate"])])
    _table(["relation", "edges", "to head", "held out", "from head", "held out", "offset", "either"], rows)
    _say(
        "To head: the word a dependent attends to most is its head. From head: the word that attends to it most is. Held out: "
        "the head is chosen on every other sentence and counted on the rest. Either: Htut's MAX. Offset: always so many words "
        "away, the chance level."
    )


def _trees(data: Data, top: int) -> None:
    best = _best(data["uuas"], lambda row: max(row.values()), top)
    _say(
        f"Trees: % of {data['edges']} edges in the maximum spanning tree; neighbours alone find {_percent(data['chance'])}"
    )
    _table(
        ["head", "parent attends", "child attends"],
        [[_short(head), _percent(row["parent attends"]), _percent(row["child attends"])] for head, row in best],
    )


def _constituents(data: Data, top: int) -> None:
    chance = ", ".join(f"{name} {_percent(value)}" for name, value in data["chance"].items())
    _say(f"Constituents: sentence F1 in % over {data['sentences']} sentences; without a model: {chance}")
    rows = []
    for head, row in _best(data["heads"], lambda row: row["f1"], top):
        recall = [_percent(row["recall"][label]) for label in ("NP", "VP", "PP", "SBAR")]
        rows.append([_short(head), _percent(row["f1"]), f"{_percent(row['low'])} to {_percent(row['high'])}", *recall])
    _table(["head", "F1", "95% interval", "NP", "VP", "PP", "SBAR"], rows)


def _coreference(data: Data, top: int) -> None:
    _say(
        f"Coreference: % of {data['mentions']} mentions; the nearest earlier mention is right in {_percent(data['chance'])}"
    )
    best = _best(data["heads"], lambda row: row["accuracy"], top)
    _table(
        ["head", "%", "95% interval"],
        [
            [_short(head), _percent(row["accuracy"]), f"{_percent(row['low'])} to {_percent(row['high'])}"]
            for head, row in best
        ],
    )


def _sieve(data: Data, top: int) -> None:
    heads = data["heads"]
    roles = list(next(iter(heads.values())))
    _say(
        "Roles by sieve bias score (uniform attention: 1); heads whose mean exceeds 3 (one-sided t-test, p < 0.05, as published)"
    )
    rows = []
    for role in roles:
        passed = [
            head
            for head, row in heads.items()
            if row[role]["p_at_most_3"] is not None and row[role]["p_at_most_3"] < 0.05
        ]
        best = _best(heads, lambda row, role=role: row[role]["mean"], 3)  # type: ignore[misc]
        named = ", ".join(f"{_short(head)} {row[role]['mean']:.1f}" for head, row in best)
        rows.append([role, f"{len(passed)} of {len(heads)}", named])
    _table(["role", "heads", "highest scores"], rows)


def _probe(data: Data, top: int) -> None:
    _say(
        f"Probe: a classifier on the attention of all heads finds the head of {_percent(data['uas'])}% of {data['words']} words in "
        f"{data['sentences']} held-out sentences; on distances alone {_percent(data['chance'])}%"
    )
    best = _best(data["weights"], lambda row: max(abs(row["to"]), abs(row["from"])), top)
    _table(
        ["head", "weight to", "weight from"],
        [[_short(head), f"{row['to']:.2f}", f"{row['from']:.2f}"] for head, row in best],
    )


def _surface(data: Data, top: int) -> None:
    heads = data["heads"]
    _say(f"Surface: mean entropy of uniform attention would be {data['uniform_entropy']:.2f} nats")
    rows = []
    for what, key in (
        ("queries at one offset", "offset_share"), ("mass on the start token", "start"), ("mass on the end token", "end"),
        ("mass on a word's other pieces", "pieces"),
    ):  # fmt: skip
        known = {head: row for head, row in heads.items() if row[key] == row[key] and row[key] is not None}
        if not known:
            continue
        best = _best(known, lambda row, key=key: row[key], 3)  # type: ignore[misc]
        extra = (lambda row: f" ({row['offset']:+d})") if key == "offset_share" else (lambda row: "")
        rows.append([what, ", ".join(f"{_short(head)} {row[key]:.2f}{extra(row)}" for head, row in best)])
    lowest = sorted(heads.items(), key=lambda one: one[1]["entropy"])[:3]
    rows.append(["lowest entropy, nats", ", ".join(f"{_short(head)} {row['entropy']:.2f}" for head, row in lowest)])
    _table(["", "heads"], rows)


def _likeness(data: Data, top: int) -> None:
    names, apart = data["heads"], data["divergence"]
    pairs = [(apart[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    _say(
        f"Likeness: Jensen-Shannon divergence of rows, mean {sum(p[0] for p in pairs) / max(len(pairs), 1):.3f} of at most 0.693 nats"
    )
    _table(
        ["pair", "divergence"],
        [[f"{_short(b)} and {_short(a)}", f"{value:.3f}"] for value, a, b in sorted(pairs)[:top]],
    )
