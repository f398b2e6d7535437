"""Old names of version 0.1 still work, each with a warning that says the new one."""

import importlib
import json
import subprocess
import sys
import warnings
from importlib import resources

import pytest
import torch

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.edits import Zero
from headatlas.edits.collect import collect
from headatlas.renamed import current_arguments
from headatlas.task import Batch, logit_margin
from tests import toys

TABLES = json.loads(resources.files("headatlas").joinpath("renamed.json").read_text("utf-8"))


@pytest.mark.parametrize("old", sorted(TABLES["modules"]))
def test_each_moved_module_is_found_under_its_old_name(old: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert importlib.import_module(old)
    assert importlib.import_module(TABLES["modules"][old])


@pytest.mark.parametrize(
    "old", sorted(f"{module}:{name}" for module, names in TABLES["names"].items() for name in names)
)
def test_each_moved_name_is_found_where_it_was(old: str):
    module, _, name = old.partition(":")
    home, _, current = TABLES["names"][module][name].partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), current)


def test_the_warning_names_the_line_and_the_new_name():
    script = (
        "import warnings; warnings.simplefilter('always')\n"
        "from headatlas.methods.replay import Replay\n"
        "from headatlas.mining import TOKENS_AT_ONCE\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (
        "<string>:2: DeprecationWarning: The module headatlas.methods.replay is called headatlas.methods.sweeps.cached_runs now"
        in done.stderr
    )
    assert (
        "<string>:3: DeprecationWarning: headatlas.mining.TOKENS_AT_ONCE is called headatlas.mining.scan" in done.stderr
    )


def test_what_never_was_is_not_found():
    with pytest.raises(ImportError):
        importlib.import_module("headatlas.methods.nonsense")
    with pytest.raises(ImportError):
        exec("from headatlas.mining import nonsense")


def test_batches_take_and_give_positions_under_the_old_name():
    tokens = torch.randint(5, 150, (2, 8))
    with pytest.warns(DeprecationWarning, match="'at' of Batch.* is called 'positions' now"):
        batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), at={"end": torch.tensor([7, 7])})
    with pytest.warns(DeprecationWarning, match="Batch.at is called Batch.positions now"):
        assert batch.at is batch.positions


def test_models_views_and_edits_answer_to_old_names():
    model, tokens = toys.model("gqa"), torch.randint(5, 150, (1, 8))
    with pytest.warns(DeprecationWarning, match="Model.sites is called Model.layers now"):
        assert model.sites is model.layers
    with pytest.warns(DeprecationWarning, match=r"Model\.site is called Model\.layer now"):
        assert model.site(1) is model.layer(1)
    with pytest.warns(DeprecationWarning, match="AttentionLayer.layer"):
        assert model.layers[1].layer == 1
    seen = []
    with pytest.warns(DeprecationWarning, match="LayerView.layer is called LayerView.index now"):
        model.forward(tokens, watch=lambda at: seen.append(at.layer))
    assert seen == [0, 1]
    with pytest.warns(DeprecationWarning, match="'site' of Zero"):
        old = Zero("1.0 1.1", site="v")
    with pytest.warns(DeprecationWarning, match=r"Zero\.site"):
        assert old.site == old.component == "v"
    with pytest.warns(DeprecationWarning, match="logit_positions"):
        last = model.forward(tokens, logits_at=torch.tensor([7]))
    torch.testing.assert_close(last, model.forward(tokens)[:, 7:])
    with pytest.warns(DeprecationWarning, match="'at' of collect"):
        collect(model, Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)), Zero("1.0"), at=torch.tensor([[3]]))


def test_an_edit_written_for_the_old_contract_acts():
    class Silence:
        site = "z"
        heads = (ha.HeadId(1, 2),)
        layers = frozenset({("decoder", 1)})

        def __call__(self, at, x):
            x = x.clone()
            x[:, :, 2] = 0
            return x

    model, tokens = toys.model("gqa"), torch.randint(5, 150, (1, 8))
    with pytest.warns(DeprecationWarning, match=r"Silence\.site is called Silence\.component"):
        found = model.forward(tokens, edits=[Silence()])
    assert torch.equal(found, model.forward(tokens, edits=[Zero("1.2")]))


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="both 'new' and its old name 'old'"):
        current_arguments({"old": 1, "new": 2}, {"old": "new"}, "function")


def test_methods_take_their_former_arguments(tmp_path):
    model, tokens = toys.model("gqa"), torch.randint(5, 150, (2, 8))
    labels = {"answer": torch.tensor([5, 6]), "wrong": torch.tensor([7, 8])}
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"end": torch.tensor([7, 7])}, labels=labels)
    told = []
    with pytest.warns(DeprecationWarning, match="of ablate is called") as said:
        old = ha.ablate(
            model,
            batch,
            edit="zero",
            metric=logit_margin,
            memory=1 << 30,
            out=tmp_path / "sweep",
            tick=lambda *x: told.append(x),
        )
    assert {"memory", "tick"} <= {str(one.message).split("'")[1] for one in said}
    assert told[-1][0] == told[-1][1] > 0
    assert (tmp_path / "sweep" / "effects.json").is_file()
    new = ha.ablate(model, ha.Prompts(batch=batch, metric=logit_margin), edit="zero")
    torch.testing.assert_close(torch.tensor(old.values), torch.tensor(new.values))
    with pytest.warns(DeprecationWarning, match=r"'spread' of attribute is called options=AttributionOptions\(spread"):
        ha.attribute(model, batch, method="direct", spread=2)


@pytest.mark.parametrize("old", sorted(TABLES["detectors"]))
def test_a_detector_is_found_under_its_old_name(old: str):
    with pytest.warns(DeprecationWarning, match=f"'{old}' is called '{TABLES['detectors'][old]}'"):
        assert find_detector(old).name == TABLES["detectors"][old]
