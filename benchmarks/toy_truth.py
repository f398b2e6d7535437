"""Over seeds of one toy: do detectors name the heads that do their layer's work, and do these form while the loss falls?

    OMP_NUM_THREADS=1 python benchmarks/toy_truth.py [--toy episodic] [--seeds 10] [--steps N]

A row for each head, and the sums. Half a minute of one core for each seed.
"""

from __future__ import annotations

import argparse

from headatlas.lab.toy.truth import truth_of
from headatlas.progress import PrintedProgress


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", default="episodic")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    agree = heads = within = 0
    print(
        "| seed | head | detector | alone | passes | forms | loss falls |\n| --: | --- | --- | --: | --- | --- | --- |"
    )
    for seed in range(given.seeds):  # one by one, so that what is done is printed
        (found,) = truth_of(given.toy, [seed], steps=given.steps, progress=PrintedProgress())
        fell = f"{found.drop.begins} to {found.drop.ends}" if found.drop else ""
        for one in found.heads:
            formed = "" if one.born is None else f"{one.low} to {'never' if one.high is None else one.high}"
            told = "yes" if one.passes else "no"
            print(
                f"| {seed} | {one.head} | {one.detector} | {one.alone:.2f} | {told} | {formed} | {fell} |", flush=True
            )
            heads += 1
            agree += one.matters == one.passes
        within += bool(found.born_in_drop)
    print(f"\n{agree} of {heads} heads alike by ablation and detector; in {within} of {given.seeds} seeds the first "
          "induction head forms while the loss falls.")  # fmt: skip


if __name__ == "__main__":
    main()
