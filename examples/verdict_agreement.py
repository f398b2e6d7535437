"""Do verdicts hang on the seed? Mine a model with two seeds and compare the heads that are causal.

    python examples/verdict_agreement.py smollm2-135m --task repeated --task ioi

Prints, for each detector, the causal heads of both seeds and why others are causal with one only: the other seed calls the
verdict marginal, leaves the score undecided, or contradicts. Then the Jaccard index over all (detector, head) pairs with a 95%
interval over heads; the same of those that are causal and not marginal, each by its own seed; and without pairs that either
seed calls undecided.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import headatlas as ha

Pair = tuple[str, str]  # detector, head
DRAWS = 2000


@dataclass(frozen=True)
class Seed:
    """What one run says of (detector, head) pairs: which are causal, and which it leaves undecided, with the reason."""

    causal: frozenset[Pair]
    undecided: dict[Pair, str]

    @classmethod
    def of(cls, atlas: ha.Atlas) -> Seed:
        """Undecided are marginal verdicts, and heads not observed whose score may yet exceed chance by the minimum effect."""
        causal, undecided = set(), {}
        least = {one["name"]: one["minimum_effect"] for one in atlas.data["detectors"]}
        for row in atlas.query("SELECT * FROM scores"):
            pair = row["detector"], f"{row['layer']}.{row['head']}"
            if row["verdict"] == "causal":
                causal.add(pair)
            if row["marginal"]:
                undecided[pair] = f"{row['verdict']}, marginal ({row['effect']:+.2f}, bar {row['random_effect']:.2f})"
            elif (
                row["verdict"] is None
                and None not in (row["high"], row["chance"])
                and row["high"] - row["chance"] >= least[pair[0]]
            ):
                undecided[pair] = f"score undecided ({row['score'] - row['chance']:.2f} above chance, q {row['q']:.2g})"
        return cls(frozenset(causal), undecided)


def jaccard(first: Iterable[Pair], second: Iterable[Pair]) -> tuple[float, float, float]:
    """The share of what is in either that is in both, with its 95% interval over heads drawn anew."""
    first, second = set(first), set(second)
    heads = sorted({head for _, head in first | second})
    both = np.array([sum(pair[1] == head for pair in first & second) for head in heads])
    either = np.array([sum(pair[1] == head for pair in first | second) for head in heads])
    drawn = np.random.default_rng(0).integers(len(heads), size=(DRAWS, len(heads)))
    low, high = np.quantile(both[drawn].sum(1) / either[drawn].sum(1), [0.025, 0.975])
    return both.sum() / either.sum(), low, high


def main() -> None:
    """Read the arguments, mine twice, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", action="append")
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1))
    parser.add_argument("--out", type=Path, default=Path("agreement"))
    given = parser.parse_args()
    model = ha.load(given.model)
    one, two = (
        Seed.of(ha.mine(model, tasks=given.task, seed=seed, checks="none", out=given.out / str(seed)))
        for seed in given.seeds
    )
    told = {id(seed): name for seed, name in zip((one, two), given.seeds, strict=True)}
    for name in sorted({name for name, _ in one.causal | two.causal}):
        both = sorted(head for found, head in one.causal & two.causal if found == name)
        print(f"{name}: both {' '.join(both) or '-'}")
        for mine, other in ((one, two), (two, one)):
            for pair in sorted(pair for pair in mine.causal - other.causal if pair[0] == name):
                reason = other.undecided.get(pair) or f"contradicted; there {mine.undecided.get(pair, 'clear')}"
                print(f"    {pair[1]} with seed {told[id(mine)]} only; seed {told[id(other)]}: {reason}")
    print("Jaccard {:.2f} [{:.2f}, {:.2f}] over detectors and heads".format(*jaccard(one.causal, two.causal)))
    sure = one.causal - one.undecided.keys(), two.causal - two.undecided.keys()
    print("Jaccard {:.2f} [{:.2f}, {:.2f}] of those that are not marginal".format(*jaccard(*sure)))
    open_ = one.undecided.keys() | two.undecided.keys()
    clear = one.causal - open_, two.causal - open_
    print("Jaccard {:.2f} [{:.2f}, {:.2f}] without those that a seed leaves undecided".format(*jaccard(*clear)))


if __name__ == "__main__":
    main()
