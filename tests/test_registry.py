"""Plugin files keep a contract: what they define is a plugin, a hook of one, or starts with an underscore."""

import importlib
import sys
import textwrap

import pytest
import torch

from headatlas import cli, registry
from headatlas.detector import LayerDetector, ModelDetector, detectors, find_detector
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.lab.spec import find_kind, kinds
from headatlas.model.layouts import layouts
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.task import find_task, tasks
from tests import pages, toys

PAGE = "adding-a-detector.md"

DETECTOR = """
    from functools import partial

    from headatlas.detector import Measured, Planted, detector, model_detector
    from headatlas.tasks.repeated import repeated

    LONGEST = 8


    def _mass(layer, batch, shift):
        return layer.q.sum() + shift


    @detector(head_type="induction-head", task=repeated, version=1, minimum_effect=0.5)
    def made_up(layer, batch):
        return _mass(layer, batch, 0)


    def planted(batch):
        return Planted(batch.tokens)


    def look_alike(batch):
        return Planted(batch.tokens)
"""
MODEL_DETECTOR = """
    from headatlas.detector import Measured, model_detector
    from headatlas.tasks.repeated import repeated


    @model_detector(head_type="induction-head", task=repeated, version=1, minimum_effect=0.5)
    def made_up(model, batch):
        return Measured(batch.tokens, batch.tokens)
"""
KIND = """
    from headatlas.lab.construct.terms import Recipe
    from headatlas.lab.kind import kind


    @kind(head_type=None)
    def made_up(head, plan):
        return Recipe()
"""


def function(name: str, parameters: str, body: str = "return None") -> str:
    return f"\n\n    def {name}({parameters}):\n        {body}\n"


@pytest.fixture
def plugin_file(tmp_path, monkeypatch):
    """add(package, text): a file made_up.py as if it stood in a plugin folder."""
    registry._walk.cache_clear()
    added = []

    def add(package: str, text: str) -> None:
        (tmp_path / "made_up.py").write_text(textwrap.dedent(text))
        home = importlib.import_module(package)
        monkeypatch.setattr(home, "__path__", [*home.__path__, str(tmp_path)])
        added.append((home, f"{package}.made_up"))

    yield add
    for home, name in added:
        sys.modules.pop(name, None)
        vars(home).pop("made_up", None)
    registry._walk.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """install(group, text): a package more-heads 1.0 with one module and an entry point in the group."""
    registry._walk.cache_clear()

    def install(group: str, text: str) -> None:
        (tmp_path / "more_heads.py").write_text(textwrap.dedent(text))
        facts = tmp_path / "more_heads-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: more-heads\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[{group}]\nmore = more_heads\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("more_heads", None)
    registry._walk.cache_clear()


def test_a_file_with_hooks_helpers_constants_and_imports_is_taken(plugin_file):
    plugin_file("headatlas.detectors", DETECTOR + function("control", "layer, batch", "return 7"))
    found = find_detector("made-up")
    assert isinstance(found, LayerDetector)
    assert found.control is not None
    assert found.control(None, None) == 7
    assert found.removal is None
    assert found.planted.__module__ == found.look_alike.__module__ == found.module


def test_hooks_go_with_all_plugins_of_their_file(plugin_file):
    second = textwrap.dedent(DETECTOR).partition("@detector")[2].partition("def planted")[0].replace("made_up", "other")
    text = textwrap.dedent(DETECTOR) + "\n\n@detector" + second
    plugin_file("headatlas.detectors", text + textwrap.dedent(function("removal", "model, batch, metric")))
    first, other = find_detector("made-up"), find_detector("other")
    assert first.removal is other.removal is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            DETECTOR + function("contrl", "layer, batch"),
            "headatlas/detectors/made_up.py defines 'contrl', which is neither a detector nor a hook of one. Did you mean "
            "'control'. Hooks: control, look_alike, planted, removal, settle, told, works_at; start helper functions with an underscore.",
        ),
        (DETECTOR + "\n    remove = partial(_mass, shift=1)\n", "defines 'remove', .* mean 'removal'"),
        (DETECTOR + "\n    mass = lambda layer: 0\n", "defines 'mass', which is neither .* nor a hook of one. Hooks: "),
        (DETECTOR + "\n\n    class Scale:\n        pass\n", "defines 'Scale'"),
        (DETECTOR.replace("def planted", "def plant"), "defines 'plant', .* Did you mean 'planted'"),
        (
            DETECTOR.replace("def look_alike", "def _look_alike"),
            "defines no 'look_alike', .* function look_alike.batch",
        ),
        (
            DETECTOR.replace("planted(batch)", "planted(batch, n)"),
            r"'planted' takes \(batch, n\), but is called with \(batch\)",
        ),
        (DETECTOR + function("control", "layer"), r"'control' takes \(layer\), but is called with \(layer, batch\)"),
        (DETECTOR + "\n    control = 3\n", "the hook 'control' is no function but a int"),
        (DETECTOR.replace("made_up(layer, batch)", "made_up(layer)"), r"detector 'made_up' takes \(layer\)"),
        (MODEL_DETECTOR + function("planted", "batch"), "defines 'planted', .* Hooks: alongside, removal;"),
        (MODEL_DETECTOR + function("removal", "model, batch"), r"called with \(model, batch, metric\)"),
        ("LENGTH = 3\n", "holds no detector"),
    ],
)
def test_a_detector_file_that_breaks_the_contract_is_refused_by_name(plugin_file, text, said):
    plugin_file("headatlas.detectors", text)
    with pytest.raises(HeadAtlasError, match=said) as error:
        detectors()
    assert "made_up" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (KIND + function("target", "tokens, head, words"), "defines 'target', .* Did you mean 'targets'"),
        (
            KIND,
            r"headatlas/lab/kinds/made_up.py defines no 'targets', .* Add a function targets\(tokens, head, words\)",
        ),
        (KIND + function("targets", "tokens"), r"called with \(tokens, head, words\)"),
        (KIND.replace("head, plan", "head"), r"kind 'made_up' takes \(head\), but is called with \(head, plan\)"),
    ],
)
def test_a_kind_of_planted_head_that_breaks_the_contract_is_refused_by_name(plugin_file, text, said):
    plugin_file("headatlas.lab.kinds", text)
    with pytest.raises(HeadAtlasError, match=said):
        kinds()


def test_a_kind_with_its_targets_is_taken(plugin_file):
    plugin_file("headatlas.lab.kinds", KIND + function("targets", "tokens, head, words", "return tokens"))
    assert find_kind("made-up").targets("tokens", None, None) == "tokens"


def test_files_without_hooks_have_plugins_and_helpers_only(plugin_file):
    plugin_file(
        "headatlas.tasks",
        """
        from headatlas.task import task


        @task(metric=None, version=1)
        def made_up(tokenizer, n, rng):
            return words()


        def words():
            return None
        """,
    )
    with pytest.raises(
        HeadAtlasError,
        match=r"tasks/made_up.py defines 'words', which is neither a task .* Start helper functions with an",
    ):
        tasks()


def test_a_layout_file_keeps_the_contract_as_well(plugin_file):
    plugin_file("headatlas.model.layouts", "def install(module):\n    pass\n")
    with pytest.raises(HeadAtlasError, match=r"layouts/made_up.py defines 'install', which is neither a layout"):
        layouts()


def test_a_package_adds_detectors_by_an_entry_point(package):
    package("headatlas.detectors", MODEL_DETECTOR)
    assert isinstance(find_detector("made-up"), ModelDetector)
    assert "induction" in detectors()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            DETECTOR + function("contrl", "layer, batch"),
            "more_heads.py defines 'contrl', which .* Did you mean 'control'",
        ),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def oops(:\n", "SyntaxError: "),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("from headatlas.detectors.induction import induction\n", "more_heads.py holds no detector"),
    ],
)
def test_a_broken_package_is_named_with_the_way_to_remove_it(package, capsys, text, said):
    package("headatlas.detectors", text)
    with pytest.raises(HeadAtlasError, match=said) as error:
        detectors()
    assert str(error.value).startswith(
        "The plugin 'more = more_heads' of the package more-heads 1.0 cannot be loaded: "
    )
    assert str(error.value).endswith("Repair that package, or remove it: pip uninstall more-heads.")
    with pytest.raises(SystemExit) as ended:
        cli.main(["list", "detectors"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_package_that_takes_a_known_name_is_named(package):
    package("headatlas.tasks", "from headatlas.task import task\n\n\n@task(metric=None, version=1)\n"
            "def repeated(tokenizer, n, rng):\n    return None\n")  # fmt: skip
    with pytest.raises(HeadAtlasError, match=r"called 'repeated' .*more-heads 1.0.*pip uninstall more-heads"):
        tasks()


def test_keywords_of_before_are_taken_with_a_warning_that_names_todays():
    from headatlas.detector import detector

    def score(layer, batch):
        return None

    common = {"head_type": "induction-head", "task": find_task("repeated"), "version": 1, "minimum_effect": 0.5}
    for old, today in (
        ({"encoder": True}, "both"),
        ({"causal": False, "encoder": True}, "bidirectional"),
        ({"causal": True}, "causal"),
    ):
        with pytest.warns(DeprecationWarning, match=f"attention='{today}'"):
            made = detector(**common, **old)(score)
        assert made.attention == today
        assert (made.causal, made.encoder) == (today != "bidirectional", today != "causal")
    with pytest.raises(BadInput, match="suits no model"):
        detector(**common, causal=False)
    with pytest.raises(BadInput, match="attention='one way'"):
        detector(**common, attention="one way")(score)
    with pytest.raises(BadInput, match="needs 'unembeding'"):
        detector(**common, needs=("unembeding",))(score)
    with pytest.raises(TypeError):
        detector(**common, encoders=True)


def test_the_detector_of_the_documentation_is_taken_and_scores_as_the_one_of_the_package(plugin_file):
    (shown,) = pages.blocks(PAGE, "python")
    plugin_file("headatlas.detectors", shown.replace("def duplicate_token", "def made_up"))
    found, own = find_detector("made-up"), find_detector("duplicate-token")
    batch = own.task(toys.smollm2_vocabulary(), 4, seed=3)
    patterns = torch.stack([made(batch).pattern for made in (found.planted, found.look_alike)], 1)
    layer = SyntheticLayer(patterns, valid=batch.mask, tokens=batch.tokens, copies=torch.tensor([True, True]))
    torch.testing.assert_close(found.score(layer, batch), own.score(layer, batch))
    assert found.score(layer, batch).mean(0).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_the_documentation_has_every_hook_with_its_arguments():
    for hook in {*LayerDetector.HOOKS, *ModelDetector.HOOKS}:
        assert f"`{hook}`" in pages.text(PAGE)
