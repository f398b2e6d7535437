"""How often is a head called causal that does nothing? Heads of no known kind are made to write where little is read, and judged.

    python examples/planted_nulls.py smollm2-135m --task repeated --heads 60

W_O of these heads is turned to the directions that the rest of the model reads least, its singular values kept
(`headatlas.lab.unread`). Prints how many of them get which verdict, the share that is causal with its 95% interval, and the share
of heads among the real ones of no known kind that stand out as causal ones do: leads. GPT-2s and Llamas.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace

import numpy as np
from scipy.stats import binomtest

import headatlas as ha
from headatlas.lab.unread import silence
from headatlas.mining import plan
from headatlas.mining.scan import scan_task
from headatlas.mining.verdicts import judge_task, observed_in
from headatlas.progress import Silent


def main() -> None:
    """Read the arguments, silence heads, judge them, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", default="repeated")
    parser.add_argument("--heads", type=int, default=60)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = ha.load(given.model)
    chosen = plan(model, None, [given.task], given.n, given.seed)
    ((task, group),) = chosen.by_task.items()
    labelled = observed_in([scan_task(model, task, group, chosen.batches[task])])
    unknown = [head for head in model.heads if head not in labelled]
    order = np.random.default_rng(given.seed).permutation(len(unknown))
    nulls = tuple(sorted(unknown[i] for i in order[: given.heads]))
    silence(model.hf, nulls, given.seed)
    # What heads give on average, and what the model can do, are those of the changed model; the nulls pass for observed.
    detector = next(one for one in group if one.removal is None)
    scan = scan_task(model, task, [detector], chosen.batches[task])
    scan = replace(scan, detectors=(replace(scan.detectors[0], observed=nulls),))
    judged = judge_task(
        model, task, [detector], scan, labelled=labelled, n=given.n, seed=given.seed, progress=Silent()
    ).detectors[detector.name]
    words = Counter(f"{one.verdict}{', marginal' if one.marginal else ''}" for one in judged.heads.values())
    causal = sum(one.verdict == "causal" for one in judged.heads.values())
    ends = binomtest(causal, len(nulls)).proportion_ci(method="wilson")
    print(
        f"{task.name}: of {len(nulls)} heads that nobody reads {', '.join(f'{n} {word}' for word, n in words.items())}"
    )
    print(f"causal: {causal / len(nulls):.3f} [{ends.low:.3f}, {ends.high:.3f}]")
    print(f"leads: {len(judged.leads)} of {judged.free} heads of no known kind ({len(judged.leads) / judged.free:.3f})")


if __name__ == "__main__":
    main()
