"""What public functions are given: the name of a model, or a bare transformers module, is told to be loaded first; seeds."""

import dataclasses
import inspect
import re

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import attach, given
from tests import toys

FUNCTIONS = {name: function for name in ha.__all__ if inspect.isfunction(function := getattr(ha, name))}
TAKING = {
    name: function
    for name, function in FUNCTIONS.items()
    if str(next(iter(inspect.signature(function).parameters.values())).annotation) in ("Model", "Model | Tokenizer")
}


def asked(function, model):
    """The function with `model` in the first place and None for all else that it cannot do without."""
    _, *others = inspect.signature(function).parameters.values()
    needed = [one for one in others if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    positional = [None for one in needed if one.kind is one.POSITIONAL_OR_KEYWORD]
    return function(model, *positional, **{one.name: None for one in needed if one.kind is one.KEYWORD_ONLY})


def test_all_that_take_a_model_are_asked():
    named = {
        name for name, function in FUNCTIONS.items() if next(iter(inspect.signature(function).parameters)) == "model"
    }
    assert named - set(TAKING) == {"replicate"}, "a first parameter `model` that is no Model"  # which takes a name too
    assert {"mine", "ablate", "prompts", "plan_cache", "fit_recipe"} <= set(TAKING)


@pytest.mark.parametrize("name", sorted(TAKING))
def test_a_name_or_a_module_is_refused_in_one_line(name: str):
    with pytest.raises(
        BadInput, match=r"not the name 'smollm2-135m'\. Load it first: headatlas\.load\('smollm2-135m'\)\."
    ):
        asked(TAKING[name], "smollm2-135m")
    with pytest.raises(BadInput, match=r"not a LlamaForCausalLM\. Load it first: headatlas\.load\(module\)\."):
        asked(TAKING[name], toys.llama())
    with pytest.raises(BadInput, match="not a NoneType"):
        asked(TAKING[name], None)


def test_a_loaded_one_by_its_keyword_is_taken():
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    by_place, by_name = (
        ha.score(model, "one two", metrics=["rank"]),
        ha.score(model=model, batch="one two", metrics=["rank"]),
    )
    assert repr(by_place) == repr(by_name)
    assert ha.mine.__doc__ == inspect.unwrap(ha.mine).__doc__


SEEDED = sorted(name for name, function in FUNCTIONS.items() if "seed" in inspect.signature(function).parameters)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", 2**31])
def test_a_seed_that_is_none_is_refused_by_all(seed):
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    assert {"mine", "toy", "flow", "generated_sentences"} <= set(SEEDED)
    for name in SEEDED:
        given = [model] if name in TAKING else []
        with pytest.raises(BadInput, match="Give a whole number from 0 to 2147483647"):
            FUNCTIONS[name](*given, seed=seed)
    with pytest.raises(BadInput, match="is no seed"):
        ha.ablate(model, ha.Prompts("ioi", seed=seed))
    with pytest.raises(BadInput, match="is no seed"):
        ha.prune(model, "one two", order="random", options=ha.PruneOptions(seed=seed))


def test_one_name_may_be_given_where_several_are_taken(tmp_path):
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    alone = ha.score(model, "one two", metrics="rank")
    assert [one.metric for one in alone.scores] == ["rank"]
    atlas = ha.mine(model, detectors="induction", tasks="repeated", n=4, verdict=False, out=tmp_path)
    assert [one["name"] for one in atlas.data["detectors"]] == ["induction"]
    with pytest.raises(ha.HeadAtlasError, match="no detector called 'inducton'"):
        ha.calibrate("inducton")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda model: ha.lens(model, "one two", tokens=2.5), "tokens is 2.5. Give a whole number"),
        (lambda model: ha.lens(model, "one two", top=0), "0 heads are too few"),
        (lambda model: ha.ask(model, "one two", top=-1), "-1 heads are too few"),
        (lambda model: ha.downstream(model, "one two", heads="0.1", k=-1), "-1 tokens are too few"),
        (lambda model: ha.mine(model, n="4"), "n is '4'. Give a whole number"),
        (lambda model: ha.flow(model, "one two", threshold="a"), "threshold is 'a'. Give a finite number"),
        (lambda model: ha.prune(model, "one two", options=ha.PruneOptions(steps=2.5)), "steps is 2.5. Give a whole"),
        (lambda model: ha.head_gates(model, "a b", "c d", options=ha.GateOptions(rate=float("inf"))), "rate is inf"),
    ],
)
def test_numbers_that_are_none_are_told(ask, said):
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    with pytest.raises(BadInput, match=re.escape(said)):
        ask(model)


@pytest.mark.parametrize("wrong", ["much", None, float("nan"), float("inf")])
def test_an_edit_takes_a_finite_number(wrong):
    for make in (lambda: ha.Scale("0.1", wrong), lambda: ha.Add("0.1", torch.ones(4), wrong)):
        with pytest.raises(BadInput, match="takes a finite number as its"):
            make()
    if wrong != float("inf"):  # a head of that temperature looks everywhere alike
        with pytest.raises(BadInput, match="takes a number as its temperature"):
            ha.Temper("0.1", wrong)


def test_what_names_no_model_and_no_device_is_told():
    with pytest.raises(BadInput, match="NoneType names no model"):
        ha.load(None)
    with pytest.raises(BadInput, match="'foo' is no device"):
        ha.load("smollm2-135m", device="foo")


OPTIONS = {
    (name, field.name)
    for name in dir(ha)
    if name.endswith("Options") and dataclasses.is_dataclass(getattr(ha, name))
    for field in dataclasses.fields(getattr(ha, name))
    if str(field.type).partition(" | ")[0] in ("int", "float")
}


@pytest.mark.parametrize(("name", "field"), sorted(OPTIONS))
def test_words_in_place_of_a_number_of_options_are_named_at_once_or_when_they_are_used(name: str, field: str):
    def made(*, options: object) -> None:
        """Takes them as any public function does."""

    with pytest.raises(BadInput, match="'many'"):
        given.checked(made)(options=getattr(ha, name)(**{field: "many"}))
