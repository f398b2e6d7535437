"""Where a run lies and which run it is: what --out may be, what is taken up again, which one is the newest."""

import json
import os
import shutil
from pathlib import Path

import pytest

import headatlas as ha
from headatlas.errors import StoreError
from headatlas.mining import run as mining
from tests.mining import record
from tests.mining.miner import Miner, kept
from tests.recorder import Recorder


# ---- what --out may be ------------------------------------------------------------------------------------------------
def test_a_link_as_out_is_followed(miner: Miner, tmp_path: Path):
    expected = miner.mine(tmp_path / "undisturbed")
    for name, target in (("to-empty", tmp_path / "other" / "empty"), ("dangling", tmp_path / "other" / "new")):
        (tmp_path / "other" / "empty").mkdir(parents=True, exist_ok=True)
        link = tmp_path / name
        link.symlink_to(target)
        assert miner.mine(link) == expected
        assert link.is_symlink()
        assert (target / "atlas.json").is_file()
        assert not list(tmp_path.glob("*.partial*"))
        miner.asked.clear()
        assert miner.mine(link) == miner.mine(target) == expected
        assert miner.asked == []


def test_a_link_in_a_circle_and_a_file_are_refused_before_work(miner: Miner, tmp_path: Path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "to-file").symlink_to(tmp_path / "file")
    for out, words in (("a", "cannot"), ("file", "is a file"), ("to-file", "is a file")):
        with pytest.raises(StoreError, match=words):
            miner.mine(tmp_path / out)
    with pytest.raises(StoreError, match=r"/proc cannot become a folder|exists and is not a run folder"):
        miner.mine(Path("/proc"))
    assert miner.asked == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_a_target_that_is_taken_meanwhile_keeps_what_it_holds_and_the_work_is_kept(miner, tmp_path, monkeypatch, what):
    expected, out = miner.mine(tmp_path / "undisturbed"), tmp_path / "run"
    real = mining.publish

    def taken(partial: Path, final: Path) -> None:
        if what == "folder":
            out.mkdir()
            (out / "letter.txt").write_text("mine")
        elif what == "file":
            out.write_text("mine")
        else:
            out.symlink_to(tmp_path / "undisturbed")
        real(partial, final)

    with monkeypatch.context() as once:
        once.setattr(mining, "publish", taken)
        with pytest.raises(StoreError, match=r"cannot be written.*kept in .*run\.partial"):
            miner.mine(out)
    assert kept(out) >= {("scan", "echo"), ("verdict", "echo")}
    if what == "folder":
        assert (out / "letter.txt").read_text() == "mine"
        shutil.rmtree(out)
    elif what == "file":
        assert out.read_text() == "mine"
        out.unlink()
    else:
        assert (tmp_path / "undisturbed" / "atlas.json").is_file()
        out.unlink()
    miner.asked.clear()
    assert miner.mine(out) == expected
    assert miner.asked == []


# ---- which run it is --------------------------------------------------------------------------------------------------
def test_another_model_does_not_take_up_what_was_kept(miner: Miner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, progress = tmp_path / "run", Recorder()
    with monkeypatch.context() as once:
        once.setattr(mining, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            miner.mine(out)
    assert kept(out)
    miner.model.hf.model.rotary_emb.inv_freq.mul_(0.5)
    miner.asked.clear()
    ha.mine(miner.model, out=out, progress=progress, **record.SETTINGS)
    assert ("scan", "echo") in miner.asked
    assert progress.lines[0] == f"An unfinished run in {out}.partial was dropped; it differs in buffers."
    miner.model.hf.config.rope_parameters["rope_theta"] = 1e4
    with pytest.raises(StoreError, match=r"holds another run \(\w+\), which differs in configuration\. Choose"):
        miner.mine(out)


def test_at_the_default_place_the_unfinished_run_beside_it_is_told_of(miner: Miner, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as once:
        once.setattr(mining, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ha.mine(miner.model, **record.SETTINGS)
    (left,) = tmp_path.glob("atlas/*/*.partial")
    miner.model.hf.model.layers[0].self_attn.scaling *= 2
    progress = Recorder()
    ha.mine(miner.model, progress=progress, **record.SETTINGS)
    told = f"The unfinished run in {left.relative_to(tmp_path)} is another one: it differs in modules."
    assert progress.lines[0] == told


def test_the_newest_run_is_newest_by_its_own_date(miner: Miner, tmp_path: Path):
    miner.mine(tmp_path / "atlas" / "b-first")
    miner.mine(tmp_path / "atlas" / "a-second")
    os.utime(tmp_path / "atlas" / "b-first" / "atlas.json", (4e9, 4e9))  # copied, or unpacked, later
    assert ha.Atlas(tmp_path / "atlas").run.name == "a-second"
    first = tmp_path / "atlas" / "b-first"
    facts, data = json.loads((first / "run.json").read_text()), json.loads((first / "atlas.json").read_text())
    del facts["created"]  # as runs of before have it
    data["run"]["created"] = "2999-01-01T00:00:00+02:00"
    (first / "run.json").write_text(json.dumps(facts))
    (first / "atlas.json").write_text(json.dumps(data))
    assert ha.Atlas(tmp_path / "atlas").run.name == "b-first"
    (first / "run.json").write_text(json.dumps({**facts, "created": "some day"}))
    with pytest.raises(StoreError, match="does not say when it was made"):
        _ = ha.Atlas(tmp_path / "atlas").run
