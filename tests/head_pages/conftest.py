"""Tiny models with a tokenizer for real text, one of each kind of attention, and a small corpus."""

import pytest
import transformers as T

from headatlas.model import Model, load
from tests import toys

TEXT = """He said "we go (soon, I hope) to Paris". The red fox saw the red fox run; the old dog saw it (again).

- apples and pears
- pears and plums 12
- plums

| name | size |
| fox | 12 |
| dog | 30 |

def run(a):
    if a:
        return a + 1
    return run(a - 1)
"""
OTHER = "A second text, which is short. It ends here: after a colon, and a full stop. " * 3
KINDS = ("gqa", "window", "encoder")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """kind -> the folder of a saved toy."""
    found = {}
    for kind in KINDS:
        found[kind] = tmp_path_factory.mktemp(kind)
        toys.with_tokenizer(toys.MAKERS[kind](vocab_size=320), found[kind], encoder=kind == "encoder")
    return found


@pytest.fixture(scope="session")
def opened(folders) -> dict[str, Model]:
    return {kind: load(str(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="session")
def eager(folders):
    """kind -> the same model by transformers alone, with its own eager attention."""
    return {
        kind: (T.AutoModel if kind == "encoder" else T.AutoModelForCausalLM)
        .from_pretrained(folder, attn_implementation="eager")
        .eval()
        for kind, folder in folders.items()
    }
