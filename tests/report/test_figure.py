"""The picture, the notebook cell, the palette and the words for numbers."""

from __future__ import annotations

import doctest
import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import headatlas
from headatlas.errors import BadInput
from headatlas.render import numbers
from headatlas.render import svg as svg_helpers
from headatlas.render.palette import STAGES
from headatlas.report import repr_html, svg
from headatlas.report.atlas_view import read
from tests.report import synthetic
from tests.report.synthetic_words import extras, hostile_extras

SVG = "{http://www.w3.org/2000/svg}"
ATLAS = synthetic.atlas()
# How three kinds of colour blindness see linear RGB (Machado, Oliveira and Fernandes 2009, full severity).
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def boxes(root: ElementTree.Element, name: str) -> int:
    """How many cells are drawn with this class."""
    return sum((path.get("d") or "").count("M") for path in root.iter(f"{SVG}path") if path.get("class") == name)


def test_the_picture_has_every_head_and_a_border_for_each_confirmed_one() -> None:
    root = ElementTree.fromstring(svg(ATLAS, extras(ATLAS)))
    best: dict[tuple[int, int], set[str]] = {}
    for entry in ATLAS["detectors"]:
        for line in entry["heads"]:
            best.setdefault((line["layer"], line["head"]), set()).add(line["verdict"])
    assert boxes(root, "ha-cell") == 270
    confirmed = sum(bool(verdicts & {"causal", "group"}) for verdicts in best.values())
    assert boxes(root, "ha-border") == confirmed + 2  # and two in the legend
    assert "42 of 270 heads" in "".join(root.itertext())


@pytest.mark.parametrize(
    "atlas",
    [synthetic.encoder(), synthetic.hybrid(), synthetic.nothing(), synthetic.atlas(1, 1, per_detector=1)],
    ids=["encoder", "hybrid", "nothing", "one-head"],
)
def test_every_shape_of_model_gives_a_whole_picture(atlas: dict[str, Any]) -> None:
    root = ElementTree.fromstring(svg(atlas, extras(atlas)))
    assert boxes(root, "ha-cell") >= read(atlas).n_heads
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for path in root.iter(f"{SVG}path"):
        for x, y, w, h in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)", path.get("d") or ""):
            assert float(x) + float(w) <= width
            assert float(y) + float(h) <= height


def test_heads_of_two_stacks_are_two_maps() -> None:
    atlas = synthetic.atlas(4, 4, per_detector=2)
    atlas["detectors"][0]["heads"][0]["stack"] = "encoder"
    found = read(atlas).stacks
    assert [stack.name for stack in found] == ["decoder", "encoder"]
    assert [stack.count for stack in found] == [16, 16]


def test_hostile_names_stay_text_in_pictures_and_notebooks() -> None:
    atlas = synthetic.hostile()
    words = hostile_extras(atlas)
    ElementTree.fromstring(svg(atlas, words))
    for text in (svg(atlas, words), repr_html(atlas, words)):
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;/script&gt;" in text


def test_control_characters_do_not_break_the_xml() -> None:
    atlas = synthetic.atlas(2, 2, per_detector=1)
    atlas["model"]["name"] = "a\x00b\x1b\ud800c\nd"
    assert "Attention heads of abc" in "".join(ElementTree.fromstring(svg(atlas)).itertext())


def test_a_notebook_cell_lists_the_strongest_heads_first() -> None:
    text = repr_html(ATLAS, extras(ATLAS), top=3)
    rows = re.findall(r"<tr><td[^>]*>([^<]*)</td>.*?</tr>", text)
    assert rows == ["11.1", "18.6", "16.0"]
    assert "and 53 more observations" in text
    assert "<script" not in text
    assert "prefers-color-scheme" not in text  # its sheet is light in dark notebooks too


def test_stages_keep_apart_for_colour_blind_readers() -> None:
    def lab(colour: str, matrix: Any) -> Any:
        value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        linear = np.clip(np.array(matrix) @ linear, 0, 1)
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = to_xyz @ linear / np.array([0.9505, 1, 1.089])
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    four = [stage for stage in STAGES if stage.id != "none"]
    for matrix, (first, second) in itertools.product(BLINDNESS.values(), itertools.combinations(four, 2)):
        for one, other in zip(first.tone, second.tone, strict=True):
            assert np.linalg.norm(lab(one, matrix) - lab(other, matrix)) > 20, (first.id, second.id)


def test_a_head_with_unknown_verdict_is_refused_by_name() -> None:
    atlas = synthetic.atlas(2, 2, per_detector=1)
    atlas["detectors"][0]["heads"][0]["verdict"] = "perhaps"
    with pytest.raises(BadInput, match=r"previous-token.*perhaps"):
        read(atlas)


def test_missing_numbers_are_dashes_and_never_zero() -> None:
    for module in (numbers, svg_helpers):
        found = doctest.testmod(module)
        assert (found.failed, found.attempted > 2) == (0, True)
    assert [numbers.number(value) for value in (None, float("nan"), 0.0, 123.4, -0.004)] == [
        "–",
        "–",
        "0.00",
        "123",
        "−0.004",
    ]
    assert numbers.probability(0.0002) == "< 0.001"
    assert [numbers.signed(value) for value in (-0.5, 0.5, 0.0001)] == ["−0.50", "+0.50", "0.000"]


def test_no_colour_of_the_palette_is_written_down_twice() -> None:
    named = {tone.lower() for stage in STAGES for pair in (stage.tone, stage.tint) for tone in pair}
    house = Path(headatlas.__file__).parent
    for folder in ("report", "render", "catalogue/site"):
        for file in [
            *(house / folder).rglob("*.css"),
            *(house / folder).rglob("*.py"),
            *(house / folder).rglob("*.js"),
        ]:
            text = file.read_text(encoding="utf-8").lower()
            assert not {tone for tone in named if tone in text} or file.name == "palette.py", file
