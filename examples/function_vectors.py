"""Does the summed vector of a model's function-vector heads make it do tasks without examples? A table, one line per task.

    python examples/function_vectors.py atlas/smollm2-135m/<run-id>

Takes a run that has the detector function-vector, and its ten heads with the highest scores unless told otherwise. The
layer is the one at which the vector helps most on the words that heads were found with; the table is of words held out.
"""

from __future__ import annotations

import argparse

import numpy as np

import headatlas as ha
from headatlas.atlas import Atlas
from headatlas.detectors.function_vector import MAPPINGS
from headatlas.heads import HeadId
from headatlas.methods.function_vectors import gain_by_layer, transfer


def main() -> None:
    """Read the arguments and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder of headatlas mine")
    parser.add_argument("--top", type=int, default=10, help="how many heads")
    parser.add_argument("--layer", type=int, help="block whose input gets the vector; left out: chosen")
    parser.add_argument("--n", type=int, default=24, help="prompts for the averages, and to test on")
    parser.add_argument("--draws", type=int, default=10, help="sets of random heads")
    given = parser.parse_args()
    atlas = Atlas(given.run)
    model = ha.load(atlas.data["model"]["name"])
    scores = atlas.detectors("function-vector")[0]["scores"]
    known = [(value, HeadId(i, j)) for i, row in enumerate(scores) for j, value in enumerate(row) if value is not None]
    heads = [head for _, head in sorted(known, key=lambda pair: -pair[0])[: given.top]]
    layer = given.layer
    if layer is None:
        found = [gain_by_layer(model, name, heads, n=given.n) for name in MAPPINGS]
        gains = {layer: float(np.mean([one[layer] for one in found])) for layer in found[0]}
        layer = max(gains, key=lambda one: gains[one])
        print("mean gain by layer on the finding words:", " ".join(f"{i}:{gain:+.2f}" for i, gain in gains.items()))
    print(f"heads {', '.join(map(str, heads))}; layer {layer}; {given.n} held-out prompts without examples a task")
    print(
        "| task | accuracy | with the vector | gain, 95% interval | random heads: mean, largest |\n|---|---|---|---|---|"
    )
    for name in MAPPINGS:
        row = transfer(model, name, heads, layer, n=given.n, draws=given.draws)
        mean = sum(row.random_gains) / len(row.random_gains)
        print(
            f"| {name} | {row.accuracy:.2f} | {row.with_vector:.2f} | {row.gain:+.2f} ({row.low:+.2f} to {row.high:+.2f}) "
            f"| {mean:+.2f}, {max(row.random_gains):+.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
