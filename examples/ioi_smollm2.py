"""Which heads of a small model name the indirect object? Three measurements side by side, as a page with a figure.

    python examples/ioi_smollm2.py --out docs/methods

Writes ioi-smollm2.md and ioi-smollm2.svg: ablation, direct logit attribution and path patching of every head of SmolLM2 on
prompts of the IOI task (Wang et al. 2022), where they agree and where they do not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import pearsonr, spearmanr

import headatlas as ha
from headatlas.detectors._measures.name_movers import attention_to
from headatlas.methods.direct_logit_attribution import direct_effects
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.sweeps.ablation import ablate
from headatlas.render import plots
from headatlas.render.palette import PICTURE, SERIES
from headatlas.store import write_text
from headatlas.task import find_task

SHOWN = 12
NAMES = ("ablation", "direct attribution", "path patching")


def measure(model: ha.Model, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(share of the logit difference that each head carries [method, head], attention END to io, s1, s2 [head, 3], clean difference)."""
    batch = find_task("ioi")(model.tokenizer, n, 0)
    removed = ablate(model, batch, edit="resample", positions="end")
    direct = direct_effects(model, batch)
    paths = path_patch(model, batch, positions="end")
    clean = float(direct.total.mean())
    carried = [-removed.effects[:, :, 0].mean(0), direct.values.mean(0), -paths.effects[:, :, 0].mean(0)]
    attention = attention_to(model, batch, ("io", "s1", "s2")).mean(0).double().numpy()
    return np.stack(carried) / clean, attention, clean


def figure(shares: np.ndarray, heads: list[str], chosen: list[int]) -> str:
    """Three bars for each of the chosen heads."""

    def paint(sheet: Figure) -> None:
        axes = sheet.subplots(gridspec_kw={"left": 0.09, "right": 0.97, "top": 0.92, "bottom": 0.1})
        rows = np.arange(len(chosen))
        for i, (name, color) in enumerate(zip(NAMES, SERIES, strict=False)):
            axes.barh(rows + 0.27 * (i - 1), shares[i, chosen], height=0.24, label=name, color=color)
        axes.axvline(0, color=PICTURE["soft"].light, linewidth=1)
        axes.grid(axis="x")
        axes.set(yticks=rows, yticklabels=[heads[i] for i in chosen], xlabel="share of the logit difference")
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(ncols=len(NAMES), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)

    return plots.svg(620, 80 + 34 * len(chosen), "Share of the logit difference by head and method", paint)


def page(model: ha.Model, shares: np.ndarray, attention: np.ndarray, clean: float, n: int) -> str:
    """The page: the table of the largest heads and how well the methods agree."""
    heads = [str(head) for head in model.heads]
    chosen = largest(shares)
    lines = [
        "# Three methods on IOI: SmolLM2-135M",
        "",
        f"Each head's share of the clean logit difference ({clean:.2f} logits, {n} prompts of the task `ioi`, seed 0); negative:",
        "the difference would be larger without the head. Made by `python examples/ioi_smollm2.py --out docs/methods`.",
        "",
        "![Share of the logit difference by head and method](ioi-smollm2.svg)",
        "",
        "| head | ablation at the end | direct attribution | path patching to the logits | attention to IO | S1 | S2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for i in chosen:
        numbers = [f"{x:+.1%}" for x in shares[:, i]] + [f"{x:.2f}" for x in attention[i]]
        lines.append(f"| {heads[i]} | {' | '.join(numbers)} |")
    lines += [
        "",
        "## Where they agree",
        "",
        "| methods | Pearson | Spearman | of the ten largest heads in common |",
        "|---|---|---|---|",
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        common = set(np.argsort(-abs(shares[a]))[:10]) & set(np.argsort(-abs(shares[b]))[:10])
        lines.append(
            f"| {NAMES[a]}, {NAMES[b]} | {pearsonr(shares[a], shares[b])[0]:.2f} | "
            f"{spearmanr(shares[a], shares[b])[0]:.2f} | {len(common)} |"
        )
    hidden = [heads[i] for i in chosen if abs(shares[0, i]) > 0.03 and abs(shares[1, i]) < 0.01]
    repaired = [heads[i] for i in chosen if shares[1, i] > 0.02 and shares[0, i] < shares[1, i] / 2]
    lines += [
        "",
        "## Where they do not",
        "",
        f"- Matter when ablated (above 3%) and write next to nothing to the logits themselves (below 1%): {', '.join(hidden) or 'none'}. "
        "They act through later heads; only ablation, or path patching into those heads, shows them.",
        f"- Write towards the answer (above 2%) and are missed by less than half of that when ablated: {', '.join(repaired) or 'none'}. "
        "What comes after them changes with them (others make up for them, opponents oppose less); their direct effect is the fair measure.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def largest(shares: np.ndarray) -> list[int]:
    """The heads with the largest share by any method, in the order of the model."""
    return sorted(np.argsort(-np.abs(shares).max(0))[:SHOWN].tolist())


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/methods"))
    parser.add_argument("--n", type=int, default=32, help="prompts")
    given = parser.parse_args()
    model = ha.load("smollm2-135m")
    shares, attention, clean = measure(model, given.n)
    given.out.mkdir(parents=True, exist_ok=True)
    drawing = figure(shares, [str(head) for head in model.heads], largest(shares))
    write_text(given.out / "ioi-smollm2.svg", drawing)
    write_text(given.out / "ioi-smollm2.md", page(model, shares, attention, clean, given.n))


if __name__ == "__main__":
    main()
