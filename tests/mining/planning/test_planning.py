"""Which detectors fit a model, and what is said of the others."""

from pathlib import Path

import pytest

import headatlas as ha
from headatlas.detector import detectors
from headatlas.errors import BadInput, UnknownName
from headatlas.mining import plan
from headatlas.model import attach
from tests import toys


def test_a_vocabulary_too_small_skips_the_detector_with_the_reason(tmp_path: Path):
    model = ha.load(toys.llama(vocab_size=24, max_position_embeddings=160))
    atlas = ha.mine(model, n=4, out=tmp_path / "run")
    reasons = {row["detector"]: row["reason"] for row in atlas.data["skipped"]}
    assert "ordinary tokens" in reasons["induction"]
    assert "no tokenizer" in reasons["punctuation"]


def test_encoders_get_the_detectors_that_make_sense(tmp_path: Path):
    place = tmp_path / "bert"
    toys.with_tokenizer(toys.bert(vocab_size=400), place, encoder=True)
    atlas = ha.mine(ha.load(str(place)), n=4, out=tmp_path / "run")
    names = {found["name"] for found in atlas.data["detectors"]}
    assert {"previous-token", "positional", "punctuation", "subword-merge"} <= names
    assert "induction" not in names
    skipped = {row["detector"] for row in atlas.data["skipped"]}
    assert {"induction", "induction-copy"} <= skipped
    assert skipped == {name for name, detector in detectors().items() if not detector.encoder}
    assert all(found["untested"] for found in atlas.data["detectors"])


def test_a_run_may_be_held_to_a_task(tmp_path: Path):
    model = toys.model("gqa")
    atlas = ha.mine(model, tasks=["repeated"], n=4, verdict=False, out=tmp_path / "run")
    assert {found["task"] for found in atlas.data["detectors"]} == {"repeated"}
    assert len(atlas.data["detectors"]) >= 5
    with pytest.raises(UnknownName, match="reapeted"):
        ha.mine(model, tasks=["reapeted"], n=4, out=tmp_path / "other")
    with pytest.raises(BadInput, match="uses the task ioi"):
        ha.mine(model, ["induction"], tasks=["ioi"], n=4, out=tmp_path / "other")


def test_a_detector_may_be_asked_on_a_longer_task_of_the_same_form():
    hf = toys.llama(vocab_size=49152, num_hidden_layers=1, max_position_embeddings=2048)
    model = attach(hf, tokenizer=toys.smollm2_vocabulary())
    chosen = plan(model, ["retrieval", "induction"], ["needle-1024"], 4, 0)
    (task,), (group,) = zip(*chosen.by_task.items(), strict=True)
    assert (task.name, [d.name for d in group], chosen.skipped) == ("needle-1024", ["retrieval"], [])
    assert 900 < chosen.batches[task].mask.sum(1).max() <= 1024
    with pytest.raises(BadInput, match=r"retrieval can be asked on one task at a time, not on needle, needle-1024"):
        plan(model, ["retrieval"], ["needle", "needle-1024"], 4, 0)
