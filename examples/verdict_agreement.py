"""Do verdicts hang on the seed? Mine a model with two seeds and compare the heads that are causal.

    python examples/verdict_agreement.py smollm2-135m --task repeated --task ioi

Prints, for each detector, the causal heads of both seeds, and the Jaccard index over all (detector, head) pairs and all heads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import headatlas as ha
from headatlas.heads import HeadId

Pairs = set[tuple[str, HeadId]]


def causal(atlas: ha.Atlas) -> Pairs:
    """The (detector, head) pairs with the verdict causal."""
    return {
        (found["name"], HeadId(row["layer"], row["head"], row["stack"]))
        for found in atlas.data["detectors"]
        for row in found["heads"]
        if row["verdict"] == "causal"
    }


def jaccard(first: set, second: set) -> float:
    """The share of what is in either that is in both."""
    return len(first & second) / len(first | second) if first | second else float("nan")


def main() -> None:
    """Read the arguments, mine twice, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", action="append")
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1))
    parser.add_argument("--out", type=Path, default=Path("agreement"))
    given = parser.parse_args()
    model = ha.load(given.model)
    first, second = (
        causal(ha.mine(model, tasks=given.task, seed=seed, out=given.out / str(seed))) for seed in given.seeds
    )
    for name in sorted({name for name, _ in first | second}):
        mine, theirs = ({head for other, head in pairs if other == name} for pairs in (first, second))
        print(f"{name}: both {' '.join(map(str, sorted(mine & theirs))) or '-'}", end="")
        print(f"; one {' '.join(map(str, sorted(mine ^ theirs))) or '-'}")
    heads = ({head for _, head in pairs} for pairs in (first, second))
    print(f"Jaccard: {jaccard(first, second):.2f} over detectors and heads, {jaccard(*heads):.2f} over heads")


if __name__ == "__main__":
    main()
