"""Which model a name means: the one place where names of models are compared.

Papers, the Hub and users write one model in many ways ("GPT-2 small", "gpt2", "openai-community/gpt2"; "Pythia-2.8B",
"EleutherAI/pythia-2.8b"). A checkpoint of the catalogue (`data/models.yaml`) is meant by each of its names and Hub ids. What is a
checkpoint of its own is another model: a chat version, a deduped one, a step of training (`pythia-1b@step1000`), and a repository
of the same name in another organisation.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping

from headatlas.catalogue.load import load
from headatlas.catalogue.schema import Claim, ModelShape
from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean

_PARTS = re.compile(r"[a-z]+|\d+(?:\.\d+)*")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def model_key(name: str) -> str:
    """A name without case, accents and signs, numbers kept apart; with its organisation and its named revision, where given.

    A commit says which bytes were meant and no other model; main is what is meant anyway.

    >>> model_key("Pythia-2.8B"), model_key("pythia 2.8b"), model_key("EleutherAI/pythia-2.8b@step1000")
    ('pythia 2.8 b', 'pythia 2.8 b', 'eleutherai/pythia 2.8 b@step1000')
    """
    plain, _, revision = unicodedata.normalize("NFKD", name).casefold().strip().partition("@")
    owner, slash, base = plain.rpartition("/")
    merged: list[str] = []
    for part in _PARTS.findall(base):
        if merged and part.isalpha() and merged[-1].isalpha():
            merged[-1] += part
        else:
            merged.append(part)
    named = "" if revision in ("", "main") or _COMMIT.fullmatch(revision) else f"@{revision}"
    return f"{owner}{slash}{' '.join(merged)}{named}"


@functools.cache
def _table() -> Mapping[str, ModelShape]:
    return table_of(load().shapes.values())


def table_of(shapes: Iterable[ModelShape]) -> Mapping[str, ModelShape]:
    """Key -> the checkpoint, for every way in which it is written. Where two would share one, the first keeps it."""
    shapes, found = list(shapes), dict[str, ModelShape]()
    for shape in shapes:
        for name in (shape.id, *shape.names, *shape.hub_ids):
            found.setdefault(model_key(name), shape)
    for shape in shapes:
        for name in shape.hub_ids:  # a Hub id without its organisation, unless something else is called so
            found.setdefault(model_key(name.rpartition("/")[2]), shape)
    return found


def find_model(name: str) -> ModelShape | None:
    """The catalogue's checkpoint that a name means, None where it means none that is known."""
    return _table().get(model_key(name))


def find_weights(sha256: str) -> ModelShape | None:
    """The catalogue's checkpoint whose published weight file has this sha256; None where none is known to."""
    return next((shape for shape in load().shapes.values() if sha256 in shape.sha256), None)


def demand_model(name: str) -> ModelShape:
    """The catalogue's checkpoint that a name means. Raises UnknownName."""
    found = find_model(name)
    if found is None:
        known = [one for shape in load().shapes.values() for one in (*shape.names, *shape.hub_ids)]
        hint = did_you_mean(name, known) or "Write a model as its paper or the Hub calls it, such as gpt2."
        raise UnknownName(f"The catalogue knows no model called '{name}'.", hint)
    return found


def identity_key(name: str) -> str:
    """What two names have in common if and only if they are known to mean one model."""
    found = find_model(name)
    return model_key(name) if found is None else f"catalogue:{found.id}"


def same_model(first: str, second: str) -> bool:
    """Whether two names are known to mean one model, such as gpt2 and GPT-2 small."""
    return identity_key(first) == identity_key(second)


def model_of(claim: Claim) -> str:
    """The `identity_key` of the model that a claim is about: its Hub id where it gives one, else as the paper writes it."""
    return identity_key(f"{claim.hub_id}@{claim.revision or 'main'}" if claim.hub_id else claim.model)


def repository(name: str) -> str | None:
    """The Hub id org/name of the checkpoint that a name means; None where the catalogue knows none."""
    found = find_model(name)
    if found is None:
        plain = name.partition("@")[0]
        return plain if "/" in plain else None
    return next((one for one in found.hub_ids if "/" in one), None)
