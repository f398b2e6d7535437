"""How far a cache can be cut by head: plans of several kinds and budgets on needles and prose, as a table and a curve.

    python examples/cache_plans.py smollm2-135m --tokens 2048 --n 100 --keep 0.3 --out results

Gates are learned once, on needles of --task; their order serves all budgets. Beside the plan at --keep stand random groups
and a window for all, of no more bytes. Writes results.json (every row with its intervals), results.svg, and the plan itself, results.plan.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headatlas as ha
from headatlas.apply.kv_cache.measuring import rivals
from headatlas.apply.kv_cache.plan import rebudgeted
from headatlas.progress import Silent
from headatlas.render import plots


class Told(Silent):
    """Progress on one line every ten texts."""

    done = 0

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Say it."""
        self.done += amount
        if self.done % 10 == 0:
            print(f"{step}: {self.done} of {of}", flush=True)


def curve(rows_: Sequence[dict[str, Any]], title: str) -> str:
    """Share of bytes against share of needles found, with 95% intervals, as SVG."""
    rows = {row["plan"]: row for row in rows_}
    full = rows.pop("everything")

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.axhspan(full["accuracy_low"], full["accuracy_high"], alpha=0.15)
        axes.axhline(full["accuracy"], linestyle="--", linewidth=1, label="the whole cache")
        for kind in dict.fromkeys(
            name.split()[0] if "," not in name else name.split(", ")[1].split()[0] for name in rows
        ):
            own = sorted(
                (row["held"], row["accuracy"], row["accuracy_low"], row["accuracy_high"])
                for name, row in rows.items()
                if kind == (name.split()[0] if "," not in name else name.split(", ")[1].split()[0])
            )
            x, y, low, high = zip(*own, strict=True)
            spread = [
                [v - bound for v, bound in zip(y, low, strict=True)],
                [bound - v for v, bound in zip(y, high, strict=True)],
            ]
            axes.errorbar(x, y, spread, marker="o", markersize=4, capsize=2, linewidth=1, label=kind)
        axes.set_xlabel("bytes held, as a share of the whole cache's")
        axes.set_ylabel("needles found")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(fontsize=8)

    return plots.svg(520, 320, title, paint)


def main() -> None:
    """Plan, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--n-prose", type=int, default=6)
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--recent", type=int, default=128)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--task", default="needle-1024", help="needles that gates are learned on")
    parser.add_argument("--settling", type=float, default=0.0)
    parser.add_argument("--budgets", default="0.15,0.2,0.5")
    parser.add_argument("--others", default="razor,retrieval,spans")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--plan", help="a plan by gates that was made before, instead of learning it")
    parser.add_argument("--out", required=True)
    chosen = parser.parse_args()
    model = ha.load(chosen.model)
    options = ha.CacheOptions(
        recent=chosen.recent, n=24, task=chosen.task, steps=chosen.steps, settling=chosen.settling
    )
    budget = {"keep": chosen.keep, "tokens": chosen.tokens}
    if chosen.plan:
        learned = rebudgeted(ha.read_cache_plan(chosen.plan), keep=chosen.keep, n_tokens=chosen.tokens)
    else:
        learned = ha.plan_cache(model, "gates", **budget, options=options, progress=Told())
        ha.save_cache_plan(learned, f"{chosen.out}.plan.json")
    print(learned, " ".join(map(str, learned.whole)), flush=True)
    name = f"gates {chosen.keep:g}"
    plans = {name: learned}
    for keep in filter(None, chosen.budgets.split(",")):
        plans[f"gates {keep}"] = rebudgeted(learned, keep=float(keep), n_tokens=chosen.tokens)
    for by in filter(None, chosen.others.split(",")):
        plans[f"{by} {chosen.keep:g}"] = ha.plan_cache(model, by, **budget, options=options)
    plans |= rivals(name, learned, chosen.tokens, chosen.draws, 0)
    found = ha.compare_cache_plans(
        model, plans, task=f"needle-{chosen.tokens}", n=chosen.n, n_prose=chosen.n_prose, out=f"{chosen.out}.json",
        progress=Told(),
    )  # fmt: skip
    for row in found.rows:
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}))
    title = f"{chosen.model}, needles in {chosen.tokens:,} tokens, n = {chosen.n}"
    Path(f"{chosen.out}.svg").write_text(curve(found.rows, title), encoding="utf-8")


if __name__ == "__main__":
    main()
