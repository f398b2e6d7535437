"""Where the site is written: whole or not at all, and never over anything of somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headatlas.catalogue.site import write
from headatlas.errors import BadInput, StoreError

OLD = {"index.html": "old", "papers/gone.html": "old"}
NEW = {"index.html": "new ö", "heads/here.html": "new"}


def tree(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in sorted(folder.rglob("*")) if p.is_file()}


def written(folder: Path) -> dict[str, str]:
    found = tree(folder)
    assert found.pop(write.MARKER).startswith("headatlas site 1\n")
    return found


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_is_filled(tmp_path: Path, exists: bool):
    out = tmp_path / "site"
    if exists:
        out.mkdir()
    write.write_site(out, NEW)
    assert written(out) == NEW
    assert os.listdir(tmp_path) == ["site"]
    assert out.stat().st_mode & 0o055 == 0o055


def test_an_earlier_site_is_replaced_whole(tmp_path: Path):
    write.write_site(tmp_path / "site", OLD)
    write.write_site(tmp_path / "site", NEW)
    assert written(tmp_path / "site") == NEW
    assert os.listdir(tmp_path) == ["site"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="is not empty and holds no site of ours"):
        write.write_site(tmp_path, NEW)
    assert tree(tmp_path) == {"thesis.tex": "mine"}


def test_a_file_added_to_a_site_is_not_swept_away(tmp_path: Path):
    out = tmp_path / "site"
    write.write_site(out, OLD)
    (out / "CNAME").write_text("example.org")
    (out / "papers" / ".git").mkdir()
    (out / "papers" / ".git" / "HEAD").write_text("x")
    with pytest.raises(StoreError, match=r"not of the site: CNAME, papers/\.git/HEAD"):
        write.write_site(out, NEW)
    assert (out / "index.html").read_text() == "old"


def test_a_marker_alone_does_not_make_a_site(tmp_path: Path):
    (tmp_path / write.MARKER).write_text("something else")
    with pytest.raises(StoreError, match="holds no site of ours"):
        write.write_site(tmp_path, NEW)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b""])
def test_a_broken_marker_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / write.MARKER).write_bytes(content)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(StoreError):
        write.write_site(tmp_path, NEW)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_file_and_a_missing_parent_are_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        write.write_site(tmp_path / "file", NEW)
    with pytest.raises(StoreError, match="There is no folder"):
        write.write_site(tmp_path / "no" / "site", NEW)
    assert tree(tmp_path) == {"file": "x"}


def test_a_link_to_a_folder_keeps_pointing_there(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write.write_site(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert written(tmp_path / "real") == NEW


@pytest.mark.parametrize("path", ["../out.html", "/etc/x.html", "a/../../x", "a/b/c.html", "A.html", "a\\b.html", ".x"])
def test_paths_that_could_lead_out_are_refused(tmp_path: Path, path: str):
    with pytest.raises(BadInput, match="is no address of a page"):
        write.write_site(tmp_path / "site", {"index.html": "x", path: "x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails_at", [1, 2])
def test_when_the_swap_fails_the_old_site_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int):
    out = tmp_path / "site"
    write.write_site(out, OLD)
    real, calls = os.replace, []

    def replace(source: Path, goal: Path) -> None:
        calls.append(source)
        if len(calls) == fails_at:
            raise OSError(16, "Device or resource busy")
        real(source, goal)

    monkeypatch.setattr(write.os, "replace", replace)
    with pytest.raises(StoreError, match="cannot be written: Device or resource busy"):
        write.write_site(out, NEW)
    assert written(out) == OLD
    assert os.listdir(tmp_path) == ["site"]
