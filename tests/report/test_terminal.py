"""The terminal view: fits the screen, reads without colour, and says what was not measured."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from headatlas.errors import BadInput, UnknownName
from headatlas.render.numbers import number
from headatlas.report import render
from headatlas.report.atlas_view import read
from tests.report import synthetic
from tests.report.synthetic_words import extras


def printed(atlas: dict[str, Any], *, width: int = 80, encoding: str = "utf-8", **options: Any) -> str:
    """What a terminal of this width and encoding would get."""
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=width)
    console.print(render(atlas, extras(atlas), **options))
    console.file.flush()
    return raw.getvalue().decode(encoding)


def map_rows(text: str, n_heads: int) -> list[str]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("L   0")) + 1
    return lines[start : start + n_heads]


@pytest.mark.parametrize(
    "atlas",
    [
        synthetic.atlas(),
        synthetic.encoder(),
        synthetic.hybrid(),
        synthetic.nothing(),
        synthetic.atlas(1, 1, per_detector=1),
        synthetic.atlas(80, 64, per_detector=20),
    ],
    ids=["30x9", "encoder", "hybrid", "nothing", "one-head", "80x64"],
)
@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_screen_and_pipes_get_plain_text(atlas: dict[str, Any], width: int) -> None:
    text = printed(atlas, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert atlas["model"]["name"] in text


def test_the_map_shows_verdicts_and_several_stages_by_glyph_alone() -> None:
    rows = map_rows(printed(synthetic.atlas()), 9)
    cells = {
        (layer, head): rows[head][4 + 2 * layer : 6 + 2 * layer].strip() for layer in range(30) for head in range(9)
    }
    assert cells[11, 1] == "●"  # causal, in-context identification
    assert cells[1, 2] == "○"  # as a group only
    assert cells[19, 3] == "·"  # refuted
    assert cells[18, 6] == "●▲"  # two stages
    assert cells[23, 0] == "◆+"  # three
    assert cells[0, 0] == "-"
    assert sum(cell != "-" for cell in cells.values()) == 42


def test_a_hybrid_leaves_layers_without_attention_empty() -> None:
    rows = map_rows(printed(synthetic.hybrid()), 8)
    assert all(row[4 : 4 + 6].strip() == "" for row in rows)
    assert all(row[4 + 6 : 4 + 8].strip() != "" for row in rows)


def test_the_map_of_a_large_model_fits_a_screen_and_says_what_is_folded() -> None:
    atlas = synthetic.atlas(80, 64, per_detector=0)
    atlas["detectors"][0]["heads"] = [
        synthetic._line(np.random.default_rng(0), planted, np.zeros((80, 64)), tested=True)
        for planted in ((10, 20, 0.9, "refuted"), (11, 21, 0.3, "causal"), (79, 63, 0.5, "group"))
    ]
    atlas["detectors"][0]["group"] = {"heads": []}
    lines = printed(atlas).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("L   0"))
    end = next(i for i, line in enumerate(lines) if line.startswith("folded"))
    assert lines[end] == "folded to fit the screen: each sign is the strongest of 2 layers x 2 heads"
    assert end < 45
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line[4:] for line in lines[start + 1 : end]}
    assert list(rows) == [str(head) for head in range(0, 64, 2)]
    assert rows["20"][5] == "●"  # the causal one of the four heads, not the one with the higher score
    assert rows["62"][39] == "○"
    assert sum(sign not in " -" for row in rows.values() for sign in row) == 2
    assert "folded" not in printed(synthetic.atlas(32, 32, per_detector=2))


def test_scores_of_a_large_model_are_folded_to_the_highest() -> None:
    atlas = synthetic.atlas(80, 64, per_detector=0)
    entry = next(entry for entry in atlas["detectors"] if entry["name"] == "induction")
    entry["scores"] = [[0.0] * 64 for _ in range(80)]
    entry["scores"][11][20], entry["scores"][10][21] = 0.4, 0.9
    rows = [line for line in printed(atlas, detector="induction").splitlines() if line.startswith("20  ")]
    assert [row[4 + 5] for row in rows] == ["█"]


def test_the_best_heads_of_each_type_stand_with_score_chance_and_verdict() -> None:
    atlas = synthetic.atlas()
    text = printed(atlas, top=2)
    lines = [line.split() for line in text.splitlines()]
    start = next(i for i, words in enumerate(lines) if "Induction" in words)
    best = next(entry for entry in atlas["detectors"] if entry["name"] == "induction")["heads"][0]
    assert lines[start][:5] == ["▲", "Induction", "Head", "(10)", "18.6"]
    assert lines[start][5:7] == ["0.92", f"{best['chance']:.2f}"]
    assert lines[start][-1] == "causal"
    assert lines[start + 1][0] == "17.3"
    assert "skipped syntactic: Made for encoders, this model reads one way." in text


def test_screens_that_know_only_ascii_get_letters() -> None:
    text = printed(synthetic.atlas(), encoding="ascii")
    rows = map_rows(text, 9)
    assert rows[6][4 + 2 * 18 : 6 + 2 * 18] == "IL"
    assert rows[2][4 + 2 * 1] == "i"
    assert "capital: causal alone" in text


def test_one_detector_shows_the_model_on_the_task_and_all_scores() -> None:
    text = printed(synthetic.atlas(), detector="induction-head")
    assert "next-token loss 2.10, without the ability 9.40" in text
    assert "observed: 10 heads (4 causal, 5 group, 1 refuted)" in text
    assert map_rows(text, 9)[6][4 + 2 * 18 : 6 + 2 * 18] == "██"
    assert "and 5 more heads" in text


def test_a_detector_that_could_not_be_tested_says_why() -> None:
    text = printed(synthetic.atlas(), detector="correct-letter")
    assert "not tested: the model cannot do the task" in text
    assert "observed: 0 heads" in text


def test_what_the_model_can_do_and_who_was_found_nowhere_stand_below_the_heads() -> None:
    text = printed(synthetic.atlas(), width=120)
    lines = [line.split() for line in text.splitlines()]
    entry = synthetic.atlas()["detectors"][-1]
    row = next(words for words in lines if words[:1] == [entry["task"]])
    assert row[1] == "no"
    assert row[-4:] == ["0.04", "0.02", "28%", "25%"]
    assert [words[1] for words in lines if words[:1] == ["repeated"]] == ["yes"]
    rows = enumerate(zip(entry["scores"], entry["chance"], strict=True))
    best = max((s, f"{i}.{j}", s, c) for i, row in rows for j, (s, c) in enumerate(zip(*row, strict=True)))
    nothing = next(words for words in lines if words[:2] == ["none", f"{entry['name']}:"])
    assert " ".join(nothing[2:9]) == "the model cannot do the task; best"
    assert nothing[8:13] == ["best", best[1], number(best[2]), "(chance", f"{number(best[3])});"]


def test_each_stack_is_shown_in_its_own_size_and_scores_in_their_own_stack() -> None:
    atlas = synthetic.atlas(4, 4, seed=4, per_detector=3)
    atlas["model"] |= {"stacks": ["encoder", "cross"], "stack_heads": {"encoder": [4, 4, 4, 4], "cross": [2, 0, 1]}}
    for index, entry in enumerate(atlas["detectors"]):
        for row in entry["heads"]:
            row["stack"] = "encoder"
        if index == 0:
            entry |= {
                "stack": "cross",
                "scores": [[0.1, 0.7], None, [0.2]],
                "chance": [[0.0, 0.1], None, [0.0]],
                "heads": [],
            }
    name = atlas["detectors"][0]["name"]
    text = printed(atlas)
    across = text.split("\ncross\n")[1].splitlines()
    assert [line.split() for line in across[1:3]] == [["0", "-", "-"], ["1", "-"]]
    assert f"of {16 + 3} heads" in text
    assert f"{name}: best cross:0.1 0.70 (chance 0.10)" in " ".join(text.split())
    shown = printed(atlas, detector=name)
    assert [len(line.split()) for line in map_rows(shown, 2)] == [3, 2], "a row for each head of that stack"


def test_an_empty_atlas_says_so() -> None:
    assert "None of the 16 heads passed any of 11 detectors." in printed(synthetic.nothing())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("inductoin", "Did you mean 'induction'?"), ("syntactic", "was skipped: Made for encoders"), ("zzz", "It has ")],
)
def test_an_unknown_detector_is_an_error_with_a_way_out(name: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=name) as caught:
        render(synthetic.atlas(), {}, detector=name)
    assert hint in str(caught.value)


def test_markup_in_names_is_printed_as_it_is() -> None:
    atlas = synthetic.atlas(2, 2, per_detector=1)
    atlas["skipped"] = [{"detector": "[bold]x[/bold]", "reason": "[red]no[/red]"}]
    atlas["model"]["name"] = "[link=file:///]m[/link]"
    text = printed(atlas)
    assert "skipped [bold]x[/bold]: [red]no[/red]" in text
    assert "[link=file:///]m[/link]" in text


@pytest.mark.parametrize("bad", [{}, {"schema": "headatlas/atlas/2"}, []])
def test_another_schema_is_refused_by_name(bad: Any) -> None:
    with pytest.raises(BadInput, match="headatlas/atlas/1"):
        render(bad)


def test_the_longest_verdict_is_folded_and_no_name_of_a_type():
    atlas = synthetic.atlas(4, 4, per_detector=2)
    row = atlas["detectors"][0]["heads"][0]
    row |= {"verdict": "causal", "works": "against", "marginal": True}
    lines = printed(atlas).splitlines()
    at = next(i for i, line in enumerate(lines) if "causal, works" in line)
    assert lines[at + 1].strip() == "against, marginal"
    kinds = {kind for kind, _ in read(atlas, extras(atlas)).by_type()}
    assert all(any(kind in line for line in lines) for kind in kinds)
    wide = printed(atlas, width=140)
    assert "causal, works against, marginal" in wide
