"""How often documents are ordered right by heads that find the ones that matter, beside random heads and all heads.

    python examples/rerank.py smollm2-135m --n 40

Heads are found on bundled facts about cities (16 examples of 12 documents), and order facts about other cities with other answers.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import binomtest

import headatlas as ha
from headatlas.apply.kv_cache.reranking import document_attention, recall_examples


def main() -> None:
    """Find heads, order documents, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--pick", type=int, default=8)
    chosen = parser.parse_args()
    model = ha.load(chosen.model)
    found = ha.query_heads(model, recall_examples(model, 16))
    best = found.best(chosen.pick)
    print("heads:", " ".join(map(str, best)))
    rng = np.random.default_rng(0)
    every = list(model.heads)
    sets = {"query heads": list(best), "all heads": every}
    for draw in range(3):
        sets[f"random {draw + 1}"] = [every[i] for i in rng.choice(len(every), chosen.pick, replace=False)]
    ranks: dict[str, list[int]] = {name: [] for name in sets}
    for question, documents, place in recall_examples(model, chosen.n, seed=1, half="test"):
        by_head = document_attention(model, question, documents)
        for name, heads in sets.items():
            score = by_head[:, [every.index(head) for head in heads]].sum(1)
            ranks[name].append(1 + int((score > score[place]).sum()))
    for name, row in ranks.items():
        first = sum(rank == 1 for rank in row)
        ends = binomtest(first, len(row)).proportion_ci(method="wilson")
        reciprocal = np.mean([1 / rank for rank in row])
        print(
            f"{name}: first in {first / len(row):.2f} ({ends.low:.2f} to {ends.high:.2f}), mean reciprocal rank {reciprocal:.2f}"
        )


if __name__ == "__main__":
    main()
