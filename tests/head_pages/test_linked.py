"""The report of a mined run links the pages of heads that lie in its folder or were made for it elsewhere."""

import json
from pathlib import Path
from urllib.parse import unquote

import pytest

from headatlas.atlas import Atlas
from headatlas.errors import BadInput, StoreError
from headatlas.pages.run import PageOptions, head_pages
from headatlas.report.text_pages import linked
from tests.head_pages.conftest import OTHER, TEXT
from tests.report import synthetic
from tests.report.conftest import unpack

OPTIONS = PageOptions(length=64, every=3, sample=64)


@pytest.fixture
def mined(opened, tmp_path) -> Path:
    """A run folder about the toy."""
    atlas = synthetic.atlas()
    atlas["model"]["sha256"] = opened["gqa"].sha256()
    run = tmp_path / "run"
    run.mkdir()
    for name, content in (("atlas", atlas), ("attention", {}), ("run", {"id": "x", "created": "2026-01-01"})):
        (run / f"{name}.json").write_text(json.dumps(content))
    return run


def shown(run: Path) -> list[dict]:
    """What the report hands to its script of pages; every link in it must lead to a file."""
    page = (run / "report.html").read_text()
    found = unpack(page)["pages"]
    for folder in found:
        for one in folder["heads"].values():
            assert (run / unquote(one["href"])).is_file()
    return found


def test_pages_made_for_a_run_are_linked_wherever_they_lie_and_stay_linked(opened, mined, tmp_path):
    ask = {"causal": False, "options": OPTIONS, "atlas": mined}
    head_pages(opened["gqa"], [TEXT], "1.1", out=mined / "pages", **ask)
    (inside,) = shown(mined)
    assert set(inside["heads"]) == {"1.1"}
    assert inside["heads"]["1.1"]["href"] == "pages/pages/1.1.html"
    assert inside["heads"]["1.1"]["told"].startswith("rests ")
    head_pages(opened["gqa"], [OTHER], "0.2", out=tmp_path / "to the side: #2", **ask)
    assert {head for one in shown(mined) for head in one["heads"]} == {"1.1", "0.2"}
    Atlas(mined).link_pages()  # once more, nothing given
    assert len(shown(mined)) == 2
    assert 'href="../to%20the%20side%3A%20%232/index.html"' in (mined / "report.html").read_text()
    (tmp_path / "to the side: #2").rename(tmp_path / "gone")
    Atlas(mined).link_pages()
    assert len(shown(mined)) == 1


def test_a_run_of_other_weights_is_refused_before_anything_is_read(opened, mined, tmp_path):
    atlas = json.loads((mined / "atlas.json").read_text())
    head_pages(opened["gqa"], [TEXT], "1.1", causal=False, options=OPTIONS, out=tmp_path / "pages")
    atlas["model"]["sha256"] = "0" * 64
    (mined / "atlas.json").write_text(json.dumps(atlas))
    with pytest.raises(BadInput, match=r"other weights than .* has"):
        head_pages(opened["gqa"], [TEXT], "1.1", options=OPTIONS, atlas=mined, out=tmp_path / "p")
    assert not list(tmp_path.glob("p.*"))
    with pytest.raises(BadInput, match=r"other weights than .* of .*pages has"):
        Atlas(mined).link_pages(tmp_path / "pages")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "headatlas/atlas/1"}, "not a headatlas/pages/1 file"),
        ({"pages": {"one": {}}}, "'one' is not a head"),
        ({"heads": [{"head": 3}]}, "head"),
        ({"facts": {}}, "corpus"),
    ],
)
def test_a_bad_file_of_pages_is_one_line(change, match, tmp_path):
    good = {
        "schema": "headatlas/pages/1", "model": "m", "facts": {"corpus": "c", "tokens": 1}, "heads": [], "pages": {},
    }  # fmt: skip
    (tmp_path / "pages.json").write_text(json.dumps(good))
    assert linked(tmp_path, tmp_path, {"model": {"name": "m"}})["heads"] == {}
    (tmp_path / "pages.json").write_text(json.dumps(good | change))
    with pytest.raises((StoreError, BadInput), match=match):
        linked(tmp_path, tmp_path, {"model": {"name": "m"}})
