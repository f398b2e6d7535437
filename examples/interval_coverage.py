"""How often the 95% intervals of headatlas hold the true mean, by simulation: `python examples/interval_coverage.py`.

Prints the table of docs/method.md: effects that are normal, or skewed (lognormal with sigma 1), for several numbers of examples.
"""

import numpy as np

from headatlas.ops import stats

MEANS = 20_000  # intervals per entry: a share of 0.95 is known to 0.0015
SHAPES = {
    "normal": (lambda rng, size: rng.normal(1.0, 1.0, size), 1.0),
    "lognormal": (lambda rng, size: rng.lognormal(0.0, 1.0, size), float(np.exp(0.5))),
}


def main() -> None:
    """Print a row for each number of examples."""
    print("| examples | " + " | ".join(SHAPES) + " |")
    print("|---|" + "---|" * len(SHAPES))
    for n in (4, 6, 8, 12, 16, 24, 32, 48, 64):
        shares = []
        for draw, truth in SHAPES.values():
            low, high = stats.interval(draw(np.random.default_rng(n), (n, MEANS)))
            shares.append(float(np.mean((low <= truth) & (truth <= high))))
        print(f"| {n} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
