"""A planted model that is written otherwise and computes the same gets the same verdicts, effects and bars."""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from torch import nn

import headatlas as ha
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec
from headatlas.model import Tokenizer, attach
from tests.metamorphic import transformations as change
from tests.metamorphic.renumbered import renumber
from tests.metamorphic.scoring import SINGLE
from tests.metamorphic.transformations import Moved

CONTEXT = 128
DETECTORS = ("duplicate-token", "induction", "previous-token")
PLANTED = (Head(0, 0, "previous"), Head(1, 1, "induction"), Head(1, 2, "duplicate"), Head(2, 3, "fake-induction"))
NUMBERS = ("score", "low", "high", "chance", "effect", "effect_low", "effect_high")
STILL = tuple(name for name in SINGLE if not name.startswith(("layer", "heads")))


@functools.cache
def planted() -> tuple[nn.Module, Tokenizer]:
    """The model in double precision, and its tokenizer."""
    made = plant(
        PlantSpec(PLANTED, noise=0.1),
        architecture="llama",
        n_layers=3,
        n_heads=6,
        n_kv_heads=3,
        width=192,
        context=CONTEXT,
    )
    with TemporaryDirectory() as folder:
        place = made.save(Path(folder) / "model")
        size = made.model.config.vocab_size
        tokenizer = Tokenizer.load(place, causal=True, context=CONTEXT, vocab_size=size)
    return made.model.double(), tokenizer


def mined(hf: nn.Module, tokenizer: Tokenizer) -> dict[tuple[str, HeadId], dict[str, Any]]:
    """(detector, head) -> its line of atlas.json."""
    with TemporaryDirectory() as folder:
        atlas = ha.mine(attach(hf, tokenizer=tokenizer), list(DETECTORS), n=12, out=Path(folder) / "run").data
    return {
        (found["name"], HeadId(line["layer"], line["head"], line["stack"])): line
        for found in atlas["detectors"]
        for line in found["heads"]
    }


@functools.cache
def before() -> dict[tuple[str, HeadId], dict[str, Any]]:
    return mined(*planted())


def assert_same(after: dict[tuple[str, HeadId], dict[str, Any]], moved: Moved, *names: str) -> None:
    expected = {(name, moved[head]): line for (name, head), line in before().items()}
    assert set(after) == set(expected)
    for place, line in expected.items():
        for name in names:
            assert after[place][name] == pytest.approx(line[name], abs=2e-4, rel=2e-3), (place, name)


def test_the_planted_model_has_verdicts_of_several_kinds() -> None:
    assert {"causal", "refuted"} <= {line["verdict"] for line in before().values()}
    assert len(before()) >= 4


def _still(hf: nn.Module, names: tuple[str, ...]) -> nn.Module:
    return change.all_of(*(SINGLE[name] for name in names))(hf)[0]


def test_verdicts_effects_and_bars_stay_under_everything_that_moves_no_head() -> None:
    hf, tokenizer = planted()
    other, renamed, _ = renumber(_still(hf, STILL), tokenizer)
    after = mined(other, renamed)
    assert_same(after, {head: head for _, head in after}, *NUMBERS, "random_effect")
    assert {place: line["verdict"] for place, line in after.items()} == {
        place: line["verdict"] for place, line in before().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("what", STILL)
def test_verdicts_effects_and_bars_stay(what: str) -> None:
    hf, tokenizer = planted()
    after = mined(_still(hf, (what,)), tokenizer)
    assert_same(after, {head: head for _, head in after}, *NUMBERS, "random_effect")
    assert [line["verdict"] for line in after.values()] == [line["verdict"] for line in before().values()]


MOVING = ("heads and groups permuted", "layer inserted first", "layer inserted between")


@functools.cache
def moving(what: str) -> tuple[dict[tuple[str, HeadId], dict[str, Any]], Moved]:
    """The lines of the model's own heads after a change that moves them, and where they are then."""
    hf, tokenizer = planted()
    other, moved = SINGLE[what](hf)
    own = set(moved.values())
    return {place: line for place, line in mined(other, tokenizer).items() if place[1] in own}, moved


@pytest.mark.parametrize("what", MOVING)
def test_scores_and_effects_move_with_the_heads(what: str) -> None:
    after, moved = moving(what)
    assert_same(after, moved, *NUMBERS)


@pytest.mark.parametrize("what", MOVING)
def test_bars_and_verdicts_move_with_the_heads(what: str) -> None:
    after, moved = moving(what)
    assert_same(after, moved, "random_effect")
    assert {place: line["verdict"] for place, line in after.items()} == {
        (name, moved[head]): line["verdict"] for (name, head), line in before().items()
    }


def test_heads_that_write_nothing_are_refuted() -> None:
    hf, tokenizer = planted()
    other, moved = SINGLE["layer inserted between"](hf)
    silent = [line for place, line in mined(other, tokenizer).items() if place[1] not in moved.values()]
    assert silent
    assert {line["verdict"] for line in silent} == {"refuted"}
