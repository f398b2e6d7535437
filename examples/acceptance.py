"""May one believe the detectors on this model? Heads observed with two seeds, and on the same model without its knowledge.

    python examples/acceptance.py smollm2-135m --out atlas/acceptance

mines the model twice without verdicts, and once with its attention weights shuffled and once untrained: there every
observation is a false discovery. Prints a line per detector; runs are kept in --out and go on where they stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import headatlas as ha
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.model import Model, attach


def controls(model: Model) -> dict[str, Model]:
    """The model with shuffled attention weights, and one of its shape from random initialisation; they read the same tokens."""
    return {
        "shuffled": attach(weight_shuffled(model.hf, seed=0), tokenizer=model.tokenizer),
        "untrained": attach(untrained(model.hf.config, seed=0), tokenizer=model.tokenizer),
    }


def heads(found: dict[str, Any]) -> set[tuple[str, int, int]]:
    """The heads that a detector observed."""
    return {(head["stack"], head["layer"], head["head"]) for head in found["heads"]}


def jaccard(one: set[Any], other: set[Any]) -> float | None:
    """Share of heads in both among those in either; None where there are none at all."""
    return len(one & other) / len(one | other) if one | other else None


def main() -> None:
    """Read the arguments, mine four times, print the table and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n", type=int, default=32, help="examples per task")
    parser.add_argument("--out", type=Path, default=Path("atlas/acceptance"), help="where the runs are kept")
    given = parser.parse_args()
    model = ha.load(given.model)
    runs = {"seed 0": (model, 0), "seed 1": (model, 1)} | {name: (one, 0) for name, one in controls(model).items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (one, seed) in runs.items():
        place = given.out / given.model.replace("/", "-") / name.replace(" ", "-")
        atlas = ha.mine(one, n=given.n, seed=seed, verdict=False, out=place)
        found[name] = {entry["name"]: entry for entry in atlas.data["detectors"]}
    print("| detector | seed 0 | seed 1 | in both / in either | shuffled | untrained |\n|---|---|---|---|---|---|")
    false = {name: 0 for name in ("shuffled", "untrained")}
    for detector in found["seed 0"]:
        sets = {name: heads(entries[detector]) for name, entries in found.items() if detector in entries}
        both = jaccard(sets["seed 0"], sets.get("seed 1", set()))
        counts = [str(len(sets[name])) if name in sets else "skipped" for name in found]
        print(
            f"| {detector} | {counts[0]} | {counts[1]} | {'' if both is None else f'{both:.2f}'} | {' | '.join(counts[2:])} |"
        )
        for name in false:
            false[name] += len(sets.get(name, set()))
    for name, count in false.items():
        asked = len(found[name]) * len(model.heads)
        print(f"\n{name}: {count} of {asked} pairs of detector and head observed, {count / asked:.2%}")


if __name__ == "__main__":
    main()
