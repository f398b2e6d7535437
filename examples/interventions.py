"""What do interventions gain on a model? Each is fitted on a few prompts and measured on others beside random ones of its size.

    python examples/interventions.py smollm2-135m --only ph3

Prints the rows of the table in docs/apply/index.md; the sizes of fits are those of the page. All of them take about half an hour of one
core on SmolLM2-135M.
"""

from __future__ import annotations

import argparse

import headatlas as ha

# name: prompts fitted on, prompts measured on, options
PLAN: dict[str, tuple[int, int, ha.RecipeOptions]] = {
    "iti": (32, 32, ha.RecipeOptions()),
    "function-vector": (16, 40, ha.RecipeOptions()),
    "ph3": (24, 32, ha.RecipeOptions()),
    "concept-scaling": (24, 48, ha.RecipeOptions()),
    "lofit": (48, 48, ha.RecipeOptions(steps=20, draws=3)),
    "copy-suppression-removal": (24, 48, ha.RecipeOptions()),
    "seal": (24, 32, ha.RecipeOptions(steps=10)),
}


def rows(model: ha.Model, name: str, n: int, held_out: int, options: ha.RecipeOptions) -> list[str]:
    """A line for each metric of the intervention; the first has the damage elsewhere, too."""
    fitted = ha.fit_recipe(model, name, options=options, n=n)
    found = ha.measure_recipe(model, fitted.recipe, n=held_out)
    lines = []
    for one in found.gains:
        first = one is found.gains[0]
        gain = f"{one.change:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
        cells = [
            f"`{name}` ({n}, {held_out})" if first else "", one.metric, f"{one.base:.3f}", f"{one.value:.3f}", gain,
            f"{max(one.random):+.3f}", one.verdict,
            "; ".join(f"{part.name} {part.change:+.3f}" for part in found.damage) if first else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Read the arguments, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", action="append", choices=PLAN)
    given = parser.parse_args()
    model = ha.load(given.model)
    print("| name (fitted, measured) | metric | without | with | gain (95% interval) | largest random | verdict | elsewhere |")
    print("|---|---|---|---|---|---|---|---|")
    for name, sizes in PLAN.items():
        if not given.only or name in given.only:
            print("\n".join(rows(model, name, *sizes)), flush=True)


if __name__ == "__main__":
    main()
