"""What do interventions gain on a model? Each is fitted on a few prompts and measured on others beside random ones of its size.

    python examples/interventions.py smollm2-135m --only ph3

Prints the rows of the table in docs/apply/index.md; the sizes of fits are those of the page. All of them take about half an hour of one
core on SmolLM2-135M.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import headatlas as ha

# name: prompts fitted on, prompts measured on, options
PLAN: dict[str, tuple[int, int, ha.RecipeOptions]] = {
    "iti": (32, 32, ha.RecipeOptions()),
    "attention-tracker": (24, 40, ha.RecipeOptions()),
    "style": (24, 24, ha.RecipeOptions(draws=3)),
    "semantic-consistency": (64, 64, ha.RecipeOptions(alpha="2,5", draws=3)),
    "nl-iti": (32, 32, ha.RecipeOptions(draws=3)),
    "sycophancy": (32, 32, ha.RecipeOptions(draws=3)),
    "evaluator-compression": (12, 24, ha.RecipeOptions(draws=3)),
    "faithful-cot": (32, 32, ha.RecipeOptions(draws=3)),
    "attention-surgery": (9, 24, ha.RecipeOptions(draws=3)),
    "nasa": (12, 16, ha.RecipeOptions(steps=6, rate=5e-3, pick=2, draws=1)),
    "safety-heads": (3, 12, ha.RecipeOptions(draws=3)),
    "asmr": (48, 32, ha.RecipeOptions(draws=3)),
    "function-vector": (16, 40, ha.RecipeOptions()),
    "ph3": (24, 32, ha.RecipeOptions()),
    "concept-scaling": (24, 48, ha.RecipeOptions()),
    "lofit": (48, 48, ha.RecipeOptions(steps=20, draws=3)),
    "copy-suppression-removal": (24, 48, ha.RecipeOptions()),
    "seal": (24, 32, ha.RecipeOptions(steps=10)),
}

# What of a fit is printed above its rows.
SAID = (
    "heads", "alpha", "direction", "accuracy", "k", "score", "ships", "degrees", "accurate", "coherent", "accurate_probes",
    "coherent_probes", "tried", "loss_on_prose",
)  # fmt: skip


def rows(model: ha.Model, name: str, n: int, held_out: int, options: ha.RecipeOptions) -> list[str]:
    """A line for each metric of the intervention; the first has the damage elsewhere, too."""
    fitted = ha.fit_recipe(model, name, options=options, n=n)
    found = ha.measure_recipe(model, fitted.recipe, n=held_out, draws=options.draws, seed=options.seed)
    said = {key: value for key, value in fitted.recipe.facts.items() if key in SAID}
    print(f"<!-- {name}, seed {options.seed}: {said} -->")
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


def gates(model: ha.Model, seed: int) -> list[str]:
    """What `head_gates` says of the heads that names (ioi) need: roles, beside what removal alone says, and whether the sufficient sets do suffice."""
    options = ha.GateOptions(steps=20, rate=0.5, seeds=3, draws=5)
    prompts = (ha.Prompts(name, n=n, seed=seed) for name, n in (("ioi", 32), ("ioi-held-out", 16)))
    found = ha.head_gates(model, *prompts, options=options, seed=seed)
    verdicts = list(next(iter(found.agreement.values())))
    lines = [
        f"| role by gates, {options.seeds} seeds | heads | {' | '.join(f'{one} alone' for one in verdicts)} |",
        "|---" * (2 + len(verdicts)) + "|",
    ]
    lines += [
        f"| {role} | {sum(row.values())} | {' | '.join(map(str, row.values()))} |"
        for role, row in found.agreement.items()
    ]
    lines += [
        f"| seed | facilitating | interfering | irrelevant | set that suffices | {found.facts['metric_name']} with it alone | random sets alone |",
        "|---" * 7 + "|",
    ]
    for number, (roles, kept) in enumerate(zip(found.roles, found.sufficient, strict=True)):
        low, high = found.facts["alone_low"][number], found.facts["alone_high"][number]
        counts = " | ".join(str(roles.count(one)) for one in list(found.agreement)[:3])
        drawn = ", ".join(f"{one:.2f}" for one in found.random[number])
        lines.append(
            f"| {seed + number} | {counts} | {len(kept)} | {found.alone[number]:.2f} ({low:.2f} to {high:.2f}) | {drawn} |"
        )
    for role in ("facilitating", "interfering"):
        named = [
            f"{head} ({effect:+.2f})"
            for head, one, effect in zip(found.heads, found.role, found.effect, strict=True)
            if one == role
        ]
        lines.append(f"{role} in all seeds: {', '.join(named) or 'none'}")
    return [
        *lines,
        f"whole model {found.metric:.2f}, no heads {found.none:.2f}, Jaccard index of the sets {found.overlap:.2f}",
    ]


def main() -> None:
    """Read the arguments, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", action="append", choices=[*PLAN, "gates"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = ha.load(given.model)
    print(
        "| name (fitted, measured) | metric | without | with | gain (95% interval) | largest random | verdict | elsewhere |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (n, held_out, options) in PLAN.items():
        if not given.only or name in given.only:
            lines = rows(model, name, n, held_out, replace(options, seed=given.seed))
            print("\n".join(lines), flush=True)
    if given.only and "gates" in given.only:
        print("\n".join(gates(model, given.seed)), flush=True)


if __name__ == "__main__":
    main()
