"""What can be wrong without a model is told before one is loaded: every command that takes a model, every option with a check."""

import json
import shlex
import subprocess
import sys
import time

import pytest
import typer

import headatlas
from headatlas.cli import build
from headatlas.errors import HeadAtlasError
from headatlas.tasks import _names
from tests.pages import run

# A wrong value for each option, by its long name, and a word that the error says.
WRONG = {
    "--task": ("no-such-task", "no-such-task"),
    "--measure-task": ("no-such-task", "no-such-task"),
    "--detector": ("inducton", "induction"),
    "--checks": ("transfer,remvals", "removals"),
    "--prompts": ("nowhere.jsonl", "nowhere.jsonl"),
    "--measure": ("nowhere.jsonl", "nowhere.jsonl"),
    "--chat": ("nowhere.json", "nowhere.json"),
    "--atlas": ("nowhere", "nowhere"),
    "--heads": ("9-6", "9-6"),
    "--head": ("9-6", "9-6"),
    "--senders": ("9-6", "9-6"),
    "--receivers": ("z:9.6", "z:9.6"),
    "--edit": ("men", "mean"),
    "--ablation": ("men", "mean"),
    "--mean": ("every", "overall"),
    "--ratio": ("half", "ratio-of-means"),
    "--direction": ("sideways", "sideways"),
    "--component": ("w", "'w'"),
    "--method": ("magic", "magic"),
    "--mlps": ("gone", "frozen"),
    "--metric": ("kll", "logit-difference"),
    "--without": ("9-6", "9-6"),
    "--kind": ("forest", "linear"),
    "--form": ("raw", "raw"),
    "--alpha": ("much", "much"),
    "--memory": ("lots", "lots"),
    "--device-map": ("magic", "balanced"),
    "--weight-memory": ("lots", "lots"),
    "--engine": ("spark", "ray"),
    "--workers": ("0", "few"),
    "--threads": ("0", "few"),
    "--dtype": ("float8", "bfloat16"),
    "--device": ("the gpu", "the gpu"),
    "--n": ("0", "few"),
    "--triage": ("0", "few"),
    "--top": ("0", "few"),
    "--tokens": ("0", "few"),
    "--last": ("0", "few"),
    "--reference": ("0", "few"),
    "--draws": ("0", "few"),
    "--steps": ("0", "few"),
    "--verify": ("-1", "few"),
    "--verdict-n": ("65", "from 4 to 64"),
    "--threshold": ("nan", "from 0 to 1"),
    "--target": ("0", "from 0.001 to 1"),
    "--largest": ("0", "few"),
    "--bias": ("nan", "finite"),
    "--price": ("inf", "from 0"),
    "--as": ("gpt-two", "gpt-two"),
    "--board": ("board.html", "board.html"),
    "--rival": ("acdc", "acdc"),
    "--treebank": ("nowhere.conllu", "nowhere.conllu"),
    "--rows": ("first", "mean"),
    "--distance": ("cosine", "hellinger"),
    "--echo": ("2", "echo groups"),
    "--induction": ("2", "induction groups"),
    "--seed": ("-1", "whole number"),
    "--seeds": ("0", "few"),
    "--order": ("voita", "mean-ablation"),
    "--removal": ("men", "mean"),
    "--spread": ("evenly", "queries"),
    "--keep": ("60", "share"),
    "--svg": ("curve.png", ".svg"),
    "--points": ("0", "few"),
    "--guard": ("-1", "few"),
    "--corpus": ("./nowhere.txt", "nowhere.txt"),
    "--length": ("3", "few"),
    "--every": ("0", "few"),
    "--sample": ("3", "few"),
    "--out": ("file/below", "file"),
    "--map": ("heads.png", ".svg"),
    "--save": ("file/below", "file"),
    "--recipe": ("nowhere", "nowhere"),
    "--with": ("nowhere", "nowhere"),
    "--keeps": ("all", "hidden"),
    "--sinks": ("-1", "few"),
    "--recent": ("0", "few"),
    "--n-prose": ("-1", "few"),
    "--plan": ("nowhere.json", "nowhere.json"),
    "--documents": ("nowhere.txt", "nowhere.txt"),
}
# Options whose values are free, or whose faults show on a model or its prompts only.
FREE = {
    "--address", "--revision", "--force", "--json", "--help", "--positions", "--position", "--group", "--label", "--toward",
    "--bos", "--by", "--no-verdict", "--verdict", "--text", "--edges", "--criteria", "--layers", "--pick",
    "--remove", "--everywhere", "--generate", "--claim", "--allow-pickle", "--folds", "--shuffles", "--test", "--words",
    "--all", "--no-causal", "--causal", "--twin", "--special", "--punctuation", "--counterfactual", "--shuffled", "--offset", "--rate", "--penalty", "--recompute", "--elsewhere", "--settling", "--compensate", "--question", "--copying", "--ov", "--qk", "--svd", "--compose",
}  # fmt: skip


def with_models():
    """Every command that takes a model, as words and click command."""

    def walk(group, path):
        for name, command in group.commands.items():
            if getattr(command, "commands", None):
                yield from walk(command, (*path, name))
            elif any(one.name == "model" and one.param_type_name == "argument" for one in command.params):
                yield (*path, name), command

    return list(walk(typer.main.get_command(build()), ()))


COMMANDS = [(words, command) for words, command in with_models() if words not in (("pull",), ("check",))]
CASES = [
    (words, option.opts[0], [one.name for one in command.params if one.param_type_name == "argument"])
    for words, command in COMMANDS
    for option in command.params
    if option.param_type_name == "option" and option.opts[0] in WRONG
]


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """How often a model was loaded, in a folder in which `file` is a file."""
    calls = []

    def load(*_, **__):
        calls.append(1)
        raise HeadAtlasError("loaded")

    monkeypatch.setattr(headatlas, "load", load, raising=False)
    monkeypatch.setattr(headatlas, "replicate", load, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    return calls


@pytest.mark.parametrize(("words", "option", "arguments"), CASES, ids=lambda value: str(value))
def test_a_wrong_option_is_told_before_a_model_is_loaded(words, option, arguments, loaded, capsys):
    value, said = WRONG[option]
    given = ["a/model" if one == "model" else "9.6" for one in arguments]
    code, _, err = run(capsys, *words, *given, option, value)
    assert code == 1, err
    assert said in err
    assert err.startswith("headatlas: ")
    assert loaded == []


def test_every_option_is_checked_or_known_to_be_free():
    names = {one.opts[0] for _, command in COMMANDS for one in command.params if one.param_type_name == "option"}
    assert names - WRONG.keys() - FREE == set()


def test_metrics_are_named_before_loading_as_they_are_measured():
    from headatlas.choices import METRIC
    from headatlas.task.answers import METRICS

    assert METRIC.values == tuple(METRICS)


def test_checks_are_named_before_loading_as_mining_names_them():
    from headatlas.choices import CHECKS
    from headatlas.mining.checks import critics

    assert CHECKS == critics.ALL


def test_verdicts_rest_on_as_many_examples_as_the_command_lets_pass():
    from headatlas.mining.checks.judging import STEPS

    assert STEPS[-1] == 64  # as said in headatlas/cli/mine.py


def test_the_fixture_sees_a_load(loaded, capsys):
    code, _, err = run(capsys, "ablate", "a/model", "--task", "ioi")
    assert (code, loaded) == (1, [1]), err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "Line 1"),
        ('{"clean": "a", "answer": " b"}', "lacks wrong"),
        ('{"clean": 3, "answer": " b", "wrong": " c"}', "'clean' must be text"),
        ("", "holds no prompts"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}', "no answers"),
    ],
)
def test_bad_lines_of_a_file_are_told_before_a_model_is_loaded(line, said, loaded, capsys, tmp_path):
    (tmp_path / "own.jsonl").write_text(line + "\n")
    for command in ("ablate", "attribute"):
        code, _, err = run(capsys, command, "a/model", "--prompts", "own.jsonl")
        assert code == 1
        assert said in err
    assert loaded == []


@pytest.mark.parametrize("words", [("ablate",), ("attribute",), ("patch",), ("probe",), ("lens",), ("flow",)])
def test_no_source_and_two_sources_are_told_before_a_model_is_loaded(words, loaded, capsys, tmp_path):
    (tmp_path / "own.jsonl").write_text(json.dumps({"clean": "a", "corrupted": "c", "answer": " b", "wrong": " d"}))
    code, _, err = run(capsys, *words, "a/model")
    assert code == 1
    assert "--task NAME" in err
    assert loaded == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ablate M --text a --positions subject", "no position 'subject'"),
        ("ablate M --prompts own.jsonl --positions subjct", "Choose one of all, each, end, subject"),
        ("flow M --prompts own.jsonl --position subjct", "Choose one of end, subject"),
        ("lens M --text a --position all", "no position 'all'"),
        ("prune M", "Say what is read"),
        ("prune M --text a --out smaller", "--keep"),
        ("prune M --text a --guard 1 --spread layer", "--guard"),
        ("prune M --text a --rate 0", "Give numbers above 0"),
        ("prune M --text a --keep 0.5 --out .", "exists already"),
        ("ask M --text a --metric logits", "no metric called 'logits'"),
        ("steer M --task movie-review --generate a --metric kl", "--metric says what is measured"),
        ("ablate M --prompts answers.json", "Row 2 of answers.json"),
        ("ablate M --prompts spans.jsonl", "'Rome' does not stand in the prompt"),
        ("ablate M --text a --chat chat.json", "Both --text and --chat"),
        ("patch M --text a", "--counterfactual"),
        ("path M --chat chat.json", "--counterfactual"),
        ("patch M --prompts own.jsonl", "no counterfactual"),
        ("attribute M --prompts own.jsonl --method atp", "no counterfactual"),
        ("patch M --text a --text b --counterfactual c", "2 prompts and 1 counterfactuals"),
        ("ablate M --prompts own.jsonl --counterfactual c", "goes with --text"),
        ("patch M --chat chat.json --counterfactual nowhere.json", "nowhere.json"),
        ("circuit test M 9.6@s2 --text a", "no position 's2'"),
        ("circuit test M 9.x* --text a", "'9.x*' is not a head"),
        ("mine M --text a", "1 prompt is too few"),
        ("apply itti fit M", "Did you mean 'iti'?"),
        ("apply iti tune M", "'tune' is nothing to do"),
        ("apply iti test M", "no recipe to test"),
        ("apply iti export M --recipe kept", "--out"),
        ("apply iti fit M --label truth", "iti knows no label"),
        ("apply iti test M --recipe kept --steps 3", "--steps says how a recipe is fitted"),
        ("chat M --text a", "no recipe"),
        ("chat M --with kept", "--text TEXT"),
        ("mine M --prompts own.jsonl", "1 prompt is too few"),
        ("mine M --metric kl", "--metric is for prompts of your own"),
        ("mine M --prompts own.jsonl --task ioi", "Both --prompts and --task"),
        ("mine smollm2-135m --revision x", "no revision 'x'"),
        ("ablate smolm2-135m --task ioi", "Did you mean 'smollm2-135m'?"),
        ("ablate '' --task ioi", "The name of the model is empty"),
        ("ablate smollm2-135m@x --task ioi", "no revision 'x'"),
        ("ablate . --task ioi", "no config.json"),
        ("ablate own.jsonl --task ioi", "not a .gguf file"),
        ("ablate ./nowhere --task ioi", "no model called './nowhere'"),
        ("ablate gpt2 --task ioi", "openai-community/gpt2"),
        ("ablate pythia-160m --task ioi", "EleutherAI/pythia-160m"),
    ],
)
def test_what_hangs_on_several_options_or_on_the_model_s_name_is_told_before_a_load(
    command, said, loaded, capsys, tmp_path
):
    one = {"prompt": "Paris is in", "answer": " France", "spans": {"subject": "Paris"}}
    (tmp_path / "own.jsonl").write_text(json.dumps(one))
    (tmp_path / "answers.json").write_text(json.dumps([one, {"prompt": "Rome is in"}]))
    (tmp_path / "spans.jsonl").write_text(json.dumps({**one, "spans": {"subject": "Rome"}}))
    (tmp_path / "kept").mkdir()
    for name in ("recipe.json", "recipe.safetensors"):
        (tmp_path / "kept" / name).touch()
    (tmp_path / "chat.json").write_text(json.dumps([{"role": "user", "content": "hello"}]))
    words = shlex.split(command)
    code, _, err = run(capsys, *("a/model" if word == "M" else word for word in words))
    assert code == 1
    assert said in err
    assert loaded == []


@pytest.mark.parametrize(
    "line",
    [
        "page a/model 18.6 --out there", "unknown a/model --out there", "apply seal fit a/model --out there",
        "cache export plan.json --out there", "cache plan a/model --out plan.json", "cache import a/model pattern --out plan.json",
        "cache test a/model --plan plan.json --out plan.json",
    ],
)  # fmt: skip
def test_what_is_there_already_is_told_before_a_model_is_loaded(line, loaded, capsys, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "pattern").mkdir()
    for name in ("plan.json", "pattern/full_attention_heads.tsv", "pattern/config.json"):
        (tmp_path / name).write_text("")
    code, _, err = run(capsys, *line.split())
    assert (code, loaded) == (1, [])
    assert "exists already" in err


def test_checks_load_no_torch_and_take_less_than_a_second(tmp_path):
    """Processor time, which other programs on this machine do not stretch much."""
    code = (
        "import sys, time\nfrom headatlas.cli import main\n"
        "for words in (['mine', 'a/model', '--task', 'no-such-task', '--detector', 'induction'],\n"
        "              ['ablate', 'smolm2-135m', '--task', 'ioi'], ['ablate', 'a/model', '--prompts', sys.argv[1]]):\n"
        "  try: main(words)\n"
        "  except SystemExit as end: assert end.code == 1\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "assert time.process_time() < 1, time.process_time()\n"
    )
    began = time.perf_counter()
    (tmp_path / "p.csv").write_text("prompt,answer\nParis is in, France\nRome is in,\n")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.csv")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no-such-task" in done.stderr
    assert "Line 3 of p.csv has no 'answer'" in done.stderr
    assert time.perf_counter() - began < 60


def test_the_kept_names_of_tasks_are_those_of_today():
    from headatlas.task import tasks

    assert _names.task_names() == sorted(tasks())
    kept = json.loads(_names._KEPT.read_text())
    assert kept["digest"] == _names.digest(), "write them anew: python -m headatlas.tasks._names"
    assert kept["names"] == sorted(tasks())
