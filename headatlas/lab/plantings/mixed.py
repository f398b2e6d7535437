"""Heads that recall a fact from its subject and from what is asked, and heads that use one of the two."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from headatlas.lab.construct.words import Words, words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table

COMMON = 4  # relations from which on a word of their questions asks for nothing
OF_KIND = 0.5  # how much of each possible object a word of the question carries


def _facts() -> Words:
    """The words of all facts; the block "recall" holds a subject's objects, and all objects that a question could have."""
    recalled: dict[str, dict[str, float]] = defaultdict(dict)
    asking: dict[str, set[str]] = defaultdict(set)
    relations = table("facts")["relations"]
    for name, relation in relations.items():
        for subject, value in relation["pairs"].items():
            recalled[subject.split()[-1]][value.split()[0]] = 1.0
        for template in relation["templates"]:
            for word in template.partition("{subject}")[2].replace(",", " ").split():
                asking[word].add(name)
    subjects = sorted(recalled)
    asked = sorted(word for word, names in asking.items() if len(names) < COMMON and word not in recalled)
    for word in asked:
        for name in sorted(asking[word]):
            recalled[word] |= {value.split()[0]: OF_KIND for value in relations[name]["pairs"].values()}
    classes = {"subjects": subjects, "asked": asked, "both": [*subjects, *asked]}
    return words_of(texts_of("facts"), classes=classes, features={"recall": recalled})


@planting("mixed", examples=96)
def mixed(seed: int) -> Sown:
    """A head that reads subject and question and raises what both say; beside it one that reads the subject alone, one that reads the question alone, and one that reads both and writes garbage."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d = (places[int(i)] for i in rng.permutation(len(places))[:4])
    both = Head(*a, "copier", tokens="both", reads="recall")
    others = [
        Head(*b, "copier", tokens="subjects", reads="recall", write=0.5),
        Head(*c, "copier", tokens="asked", reads="recall", write=0.5),
        Head(*d, "copier", tokens="both", to="junk"),
    ]
    planted = plant(
        PlantSpec((both, *others), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=320, vocab=_facts(), context=128, seed=seed,
    )  # fmt: skip
    return sown(planted, [both], others)
