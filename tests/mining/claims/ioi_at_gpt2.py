"""The circuit of indirect objects, planted at the addresses that it has in GPT-2 small: twelve layers of twelve heads, narrow."""

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table

# Addresses of Wang et al. 2022, who name 26 heads in seven classes, and how each class is planted: at all addresses of a class,
# but for four backups, which would have to come after a mover's layer and before one another's, and for two inhibition heads,
# so that each of those that are there carries enough.
CLASSES = {
    "previous-token": ("2.2 4.11", "previous", {"write": 1 / 2}),
    "duplicate-token": ("0.1 0.10 3.0", "duplicate", {"write": 1 / 3}),
    "induction": ("5.5 5.8 5.9 6.9", "induction", {"to": "duplicate", "write": 1 / 4}),
    # Weak, so that they ask for both marks of a repeat, that of duplicate and that of induction heads.
    "s-inhibition": ("8.6", "inhibition", {"strength": 0.85}),
    "name-mover": ("9.6 9.9 10.0", "mover", {"write": 0.4}),
    "negative-name-mover": ("10.7 11.10", "copy-suppression", {"write": 0.12}),
    "backup-name-mover": ("10.1 10.2 10.6 10.10", "backup-mover", {"write": 0.25}),
}


def ioi_at_gpt2(seed: int = 0) -> PlantedModel:
    """The model; all other heads attend and write at random, a little."""
    # A hundred and twenty random heads as loud as in smaller models would drown what the others write.
    heads = {(layer, head): Head(layer, head, "noise", write=0.15) for layer in range(12) for head in range(12)}
    for names, kind, options in CLASSES.values():
        for name in names.split():
            layer, head = map(int, name.split("."))
            heads[layer, head] = Head(layer, head, kind, **options)
    names = [name for half in table("ioi")["names"].values() for name in half]
    return plant(
        PlantSpec(tuple(heads.values())), n_layers=12, n_heads=12, width=384,
        vocab=words_of(texts_of("ioi"), classes={"names": names}), context=128, seed=seed,
    )  # fmt: skip
