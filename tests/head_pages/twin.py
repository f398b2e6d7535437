"""The same counts by loops over pairs of tokens, on the attention that transformers itself gives: the oracle of the scan."""

import math

import numpy as np
import torch

from headatlas.pages.kinds import ELSEWHERE, OFFSETS, PAIRS
from headatlas.pages.scan import batches, sampled
from headatlas.pages.structure import CLASSES

BUCKETS = [(-(10**9), -1), (0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 10**9)]


def pairs_of(text, ids, i, j):
    """Names of the kinds of a pair of tokens of a text, by rules written out one by one; i, j count from the window's start."""
    c = {name: column for name, column in text.items() if name != "ids"}
    found = set()
    if i == j:
        found.add("self")
    if j == i - 1:
        found.add("previous")
    if j == i + 1:
        found.add("next")
    if 2 <= abs(i - j) <= 4:
        found.add("near")
    if i != j and ids[i] == ids[j]:
        found.add("same-token")
    if i != j and j >= 1 and j - 1 != i and ids[j - 1] == ids[i]:
        found.add("follows-same")
    if c["bracket"][i] == j:
        found.add("bracket")
    if c["quote"][i] == j:
        found.add("quote")
    if i != j and c["word"][i] == c["word"][j]:
        found.add("sub-word")
    if c["item"][i] >= 0 and c["item"][i] == c["marker"][j]:
        found.add("list")
    if (
        c["table"][i] >= 0
        and c["table"][i] == c["table"][j]
        and c["cell"][i] == c["cell"][j]
        and c["line"][i] != c["line"][j]
    ):
        found.add("table")
    if c["header"][i] >= 0 and c["header"][i] == c["line"][j]:
        found.add("code")
    if c["first"][i] == j:
        found.add("line")
    if CLASSES[c["kind"][j]] in ("punctuation", "line break"):
        found.add("delimiter")
    return found


def attentions(hf, ids):
    """([layer, head, query, key] of one text, by the model's own eager code; [layer, head, key] the length of what each value would write)."""
    values, outs, handles = [], [], []
    for name, module in hf.named_modules():
        if name.endswith((".v_proj", ".self.value")):
            handles.append(module.register_forward_hook(lambda _, __, output: values.append(output[0].double())))
        elif name.endswith((".o_proj", "attention.output.dense")):
            outs.append(module.weight.double())
    with torch.no_grad():
        out = hf(input_ids=torch.tensor([ids]), output_attentions=True)
    for handle in handles:
        handle.remove()
    rows = torch.stack([layer[0] for layer in out.attentions]).double()
    heads = rows.shape[1]
    lengths = []
    for v, weight in zip(values, outs, strict=True):
        d = weight.shape[1] // heads
        groups = v.shape[1] // d
        lengths.append(
            [
                (
                    v[:, d * (h * groups // heads) : d * (h * groups // heads + 1)] @ weight[:, d * h : d * (h + 1)].T
                ).norm(dim=-1)
                for h in range(heads)
            ]
        )
    return rows.numpy(), np.array([[one.detach().numpy() for one in layer] for layer in lengths])


def counted(hf, corpus, settings, causal, window=None):
    """(n, sums by name) over all heads in the order of the layers; window: layer -> keys that a query sees, None for all."""
    total: dict[str, np.ndarray] = {}
    n = 0
    for number, numbers in enumerate(batches(corpus)):
        longest = corpus.batch(numbers).tokens.shape[1]
        queries = sampled(longest, number, settings).tolist()
        for one in numbers:
            document, start, stop = corpus.windows[one]
            text = corpus.texts[document]
            front = len(corpus.front)
            ids = text.ids[start:stop].tolist()
            c = {name: column[start:stop].copy() for name, column in text.structure.columns.items()}
            for name in ("bracket", "quote", "first"):
                c[name] = np.where(c[name] >= start, c[name] - start, -1)
            rows, lengths = attentions(hf, [*corpus.front, *ids, *corpus.back])
            size = rows.shape[-1]
            for q in queries:
                i = q - front
                if not 0 <= i < len(ids) or q == 0:
                    continue
                n += 1
                for layer in range(len(rows)):
                    reach = (window or {}).get(layer)
                    keys = [k for k in range(size) if (not causal or k <= q) and (reach is None or abs(q - k) < reach)]
                    plain = [k for k in keys if 0 <= k - front < len(ids) and k != 0]
                    what = {k: pairs_of(c, ids, i, k - front) for k in plain}
                    for head in range(rows.shape[1]):
                        least = 0.25 * lower_median(lengths[layer, head][front : front + len(ids)])
                        free = [k for k in plain if lengths[layer, head][k] >= least]
                        add(total, layer * rows.shape[1] + head, rows[layer, head, q], keys, free, what, c, q, front)
    return n, total


def lower_median(values):
    return sorted(values)[(len(values) - 1) // 2]


def add(total, head, row, keys, free, what, c, q, front):
    """One event's part of the sums."""

    def plus(name, value):
        total.setdefault(name, {}).setdefault(head, 0.0)
        total[name][head] += value

    rest = 1 - sum(row[k] for k in free)
    plus("rest", rest)
    plus("start", sum(row[k] for k in range(len(row)) if not 0 <= k - front < len(c["kind"]) or k == 0))
    plus("entropy", -sum(row[k] * math.log(row[k]) for k in range(len(row)) if row[k] > 0))
    plus("uniform", math.log(len(keys)))
    names = {
        k: next((name for name in PAIRS if name in what[k]), f"elsewhere: {CLASSES[c['kind'][k - front]]}")
        for k in free
    }
    for name in (*PAIRS, *ELSEWHERE):
        plus(f"partition {name}", sum(row[k] for k in free if names[k] == name))
    for name in PAIRS:
        mass = sum(row[k] for k in free if name in what[k])
        plus(f"pairs {name}", mass)
        able = [k for k in free if name in what[k]]
        plus(f"chance {name}", (1 - rest) * len(able) / max(len(free), 1))
        plus(f"met {name}", bool(able))
        plus(f"hit {name}", bool(able) and mass >= 0.5)
        plus(f"rests {name}", bool(able) and rest >= 0.5)
    plus("known", sum(row[k] for k in free if what[k]))
    for name, (low, high) in zip(OFFSETS, BUCKETS, strict=True):
        plus(f"offset {name}", sum(row[k] for k in free if low <= q - k <= high))
    for number, name in enumerate(CLASSES):
        plus(f"class {name}", sum(row[k] for k in free if c["kind"][k - front] == number))


def as_array(total, name, heads):
    return np.array([total[name][head] for head in range(heads)])
