"""A campaign mines every model of a list, tells those that fail, goes on, and writes one page that opens offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import headatlas as ha
from headatlas.campaigns.model_list import read_models
from headatlas.errors import HeadAtlasError
from headatlas.mining.campaign import run as running
from headatlas.mining.campaign.result import Campaign
from tests import toys
from tests.pages import run as command

OPTIONS = {"n": 4, "tasks": ["repeated"], "detectors": ["induction", "previous-token"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A model, and one that no transformers knows."""
    home = tmp_path_factory.mktemp("models")
    good, bad = home / "good model", home / "bad"
    good.mkdir()
    toys.with_tokenizer(toys.llama(vocab_size=300), good)
    shutil.copytree(good, bad)
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
    return good, bad


@pytest.fixture(scope="module")
def found(folders, tmp_path_factory) -> Campaign:
    good, bad = map(str, folders)
    models = [
        {"name": good, **OPTIONS},
        {"name": bad, **OPTIONS},
        {"name": good, **OPTIONS, "seed": 1, "verdict": False},
    ]
    return ha.campaign(models, tmp_path_factory.mktemp("campaigns") / "one")


def test_a_model_that_fails_is_told_and_the_others_go_on(found: Campaign):
    assert [one.label for one in found.models] == ["good-model", "bad", "good-model-2"]
    assert [one.label for one in found.failed] == ["bad"]
    assert "NoSuchForCausalLM" in found.failed[0].error


def test_counts_are_those_of_the_runs(found: Campaign):
    for one in (found.models[0], found.models[2]):
        atlas = ha.Atlas(found.folder / one.run)
        heads = {(row["layer"], row["head"]) for part in atlas.data["detectors"] for row in part["heads"]}
        assert one.observed == len(heads)
        for part in atlas.data["detectors"]:  # one detector a kind here
            assert sum(one.kinds[part["head_type"]].values()) == len(part["heads"])


def test_the_page_links_to_reports_and_asks_nothing_of_the_network(found: Campaign, browser: Browser):
    asked = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((found.folder / "index.html").as_uri())
    links = {link.get_attribute("href") for link in page.get_by_role("link").all()}
    assert all((found.folder / link.replace("%20", " ")).is_file() for link in links)
    assert len(links) == 2
    assert page.get_by_text("NoSuchForCausalLM").is_visible()
    page.close()
    assert [url.partition(":")[0] for url in asked] == ["file"]
    assert json.loads((found.folder / "campaign.json").read_text())["schema"] == "headatlas/campaign/1"


def test_the_same_call_opens_no_model_that_is_mined(found: Campaign, folders, monkeypatch: pytest.MonkeyPatch):
    opened = []
    real = running.load
    monkeypatch.setattr(running, "load", lambda name, **options: opened.append(name) or real(name, **options))
    good, bad = map(str, folders)
    models = [
        {"name": good, **OPTIONS},
        {"name": bad, **OPTIONS},
        {"name": good, **OPTIONS, "seed": 1, "verdict": False},
    ]
    again = ha.campaign(models, found.folder)
    assert opened == [bad]
    assert again.data == found.data


def test_whatever_a_model_raises_the_others_go_on(folders, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def mine(model: ha.Model, *_: object, seed: int, **__: object) -> None:
        raise MemoryError(f"no room for seed {seed}")

    monkeypatch.setattr(running, "mine", mine)
    name = str(folders[0])
    found = ha.campaign([{"name": name, **OPTIONS}, {"name": name, **OPTIONS, "seed": 1}], tmp_path / "out")
    assert [one.error for one in found.models] == ["MemoryError: no room for seed 0", "MemoryError: no room for seed 1"]


WRONG = {
    "an option that there is not": ("models: [{name: smollm2-135m, seeds: 3}]", "seeds"),
    "a model that there is not": ("models: [smollm2-135m, smolm2-135m]", r"Model 2 of the list \(smolm2-135m\)"),
    "no models": ("n: 3", "n is 3"),
    "an empty list": ("models: []", "models"),
    "a dtype": ("dtype: float8\nmodels: [smollm2-135m]", "'float8' is not a dtype"),
    "a detector": ("models: [{name: smollm2-135m, detectors: [inducton]}]", "inducton"),
    "a check": ("models: [smollm2-135m]\nchecks: [remvals]", "remvals"),
    "a task": ("models: [smollm2-135m]\ntasks: [no-such-task]", "no-such-task"),
    "too few examples": ("models: [{name: smollm2-135m, n: 2}]", r"models\[0\].n is 2"),
    "no YAML": ("models: [", "this is not YAML"),
    "a list alone": ("- smollm2-135m", "a list of 1"),
    "a number for a name": ("models: [3]", r"models\[0\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_list_is_told_before_anything_is_opened(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    text, said = WRONG[case]
    file = tmp_path / "models.yaml"
    file.write_text(text)
    monkeypatch.setattr(running, "load", lambda *_, **__: pytest.fail("a model was opened"))
    with pytest.raises(HeadAtlasError, match=said):
        ha.campaign(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    code, _, err = command(capsys, "campaign", str(file), "--out", str(tmp_path / "out"))
    assert code == 1
    assert len(err.strip().splitlines()) == 1


def test_options_of_one_model_stand_before_those_for_all(tmp_path: Path):
    file = tmp_path / "models.yaml"
    file.write_text("n: 8\ndtype: float32\nmodels:\n  - smollm2-135m\n  - {name: smollm2-135m, dtype: bfloat16}\n")
    first, second = read_models(file)
    assert (first.n, first.dtype, second.n, second.dtype) == (8, "float32", 8, "bfloat16")


def test_the_command_ends_with_1_where_a_model_failed(folders, tmp_path, capsys):
    file = tmp_path / "models.yaml"
    file.write_text(f"models: ['{folders[1]}']")
    code, out, err = command(capsys, "campaign", str(file), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "0 models of 1 mined, 1 failed" in out
    assert err.strip().splitlines()[-1].startswith("headatlas: 1 of 1 models failed: bad.")
