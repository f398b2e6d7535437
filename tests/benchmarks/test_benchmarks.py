"""Every benchmark of the catalogue runs: it is read from files of its published form, or a task of ours makes it."""

import sys
import types

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas import catalogue
from headatlas.errors import BadInput, UnknownName
from headatlas.model import attach
from headatlas.task import find_task, held_out
from headatlas.task.benchmark import benchmarks
from tests import toys
from tests.benchmarks.samples import OTHERS, SAMPLES
from tests.pages import run

WORDS = toys.smollm2_vocabulary()
READ = {name for name, found in benchmarks().items() if found.load is not None}


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152, max_position_embeddings=1024), tokenizer=WORDS)


def spec(name: str, tmp_path) -> str:
    """What stands behind --task to run a benchmark here."""
    return f"{name}={SAMPLES[name](tmp_path)}" if name in READ else name


def text(batch: ha.Batch, row: int = 0) -> str:
    return WORDS.decode(batch.tokens[row][batch.mask[row]].tolist())


def test_every_benchmark_of_the_catalogue_runs_and_no_other():
    assert set(benchmarks()) == set(catalogue.load().benchmarks)
    assert set(SAMPLES) == READ


@pytest.mark.parametrize("name", sorted(catalogue.load().benchmarks))
def test_a_method_runs_on_every_benchmark(name: str, tmp_path, model: ha.Model):
    found = ha.ablate(model, ha.Prompts(task=spec(name, tmp_path), n=4, force=True), "0.1", edit="zero")
    assert found.values.shape[1:] == (1, 1)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.base).all()
    assert not np.allclose(found.values[:, 0, 0], found.base)  # the head was removed


@pytest.mark.parametrize("name", sorted(READ))
def test_halves_share_no_prompt_and_the_same_seed_gives_the_same(name: str, tmp_path):
    task = find_task(spec(name, tmp_path))
    first, again, other = task(WORDS, 4, 0), task(WORDS, 4, 0), held_out(task)(WORDS, 4, 0)
    assert torch.equal(first.tokens, again.tokens)
    prompts = [{text(batch, row) for row in range(len(batch))} for batch in (first, other)]
    assert not prompts[0] & prompts[1]
    assert first.control is not None
    assert first.control.tokens.sort(1).values.equal(first.tokens.sort(1).values)
    assert not first.control.tokens.equal(first.tokens)


@pytest.mark.parametrize("other", OTHERS)
def test_other_published_forms_are_read(other: str, tmp_path):
    name, make = OTHERS[other]
    batch = find_task(f"{name}={make(tmp_path)}")(WORDS, 4, 0)
    assert len(batch) >= 4
    assert set(batch.facts["classes"]) <= {"A", "B", "C", "D", "true", "false", "positive", "negative"}


def test_published_forms_of_one_question_give_the_same_prompts(tmp_path):
    one, other = (
        find_task(f"truthfulqa={OTHERS[form][1](tmp_path)}") for form in ("truthfulqa-task", "truthfulqa-hub")
    )
    assert one.version == other.version


def prompt_of(name: str, tmp_path) -> tuple[str, list[str], list[str]]:
    """The first prompt of a sample up to its end, its right and its wrong answers' first tokens."""
    batch = find_task(spec(name, tmp_path))(WORDS, 4, 0)
    prompt = WORDS.decode(batch.tokens[0, : int(batch.positions["end"][0]) + 1].tolist())
    right, wrong = (
        [WORDS.decode(one) for one in batch.labels[label][0].reshape(-1).tolist() if one >= 0]
        if label in batch.labels
        else []
        for label in ("answer", "wrong")
    )
    return prompt.removeprefix(WORDS.decode([WORDS.bos])), right, wrong


def test_answers_are_those_of_the_files(tmp_path):
    prompt, right, wrong = prompt_of("mmlu", tmp_path)
    assert prompt.endswith("\nA. one\nB. two\nC. three\nD. four\nAnswer:")
    number = int(prompt.split(" is ")[1].split()[0])
    assert right == [" " + "ABCD"[number % 4]]
    assert sorted(right + wrong) == [" A", " B", " C", " D"]
    prompt, right, wrong = prompt_of("sst-sst2", tmp_path)
    assert (right, wrong) == (([" positive"], [" negative"]) if "fine" in prompt else ([" negative"], [" positive"]))
    assert '"' in prompt  # quotes are part of the text there
    prompt, right, wrong = prompt_of("ag-news", tmp_path)
    number = int(prompt.split('"as ')[1].split()[0])
    assert right == [(" World", " Sports", " Business", " Science")[number % 4]]
    assert len(wrong) == 3
    prompt, right, wrong = prompt_of("lre", tmp_path)
    assert prompt.endswith(" stands in the city of")
    assert right != wrong
    prompt, right, _ = prompt_of("agenda", tmp_path)
    assert "plain method used for good" in prompt
    assert right == [" we"]


def test_ethos_counts_from_a_share_of_a_half(tmp_path):
    batch = find_task(spec("ethos", tmp_path))(WORDS, 12, 0)
    for row in range(12):
        number = int(text(batch, row).split("said ")[1].split()[0])
        assert WORDS.decode(int(batch.labels["answer"][row, 0])) == (" yes" if number % 4 in (1, 2) else " no")


def test_lre_names_its_subjects_and_counterfactuals_have_their_length(tmp_path):
    batch = find_task(spec("lre", tmp_path))(WORDS, 4, 0)
    subject = batch.positions["subject"][0]
    said = WORDS.decode(batch.tokens[0, subject[subject >= 0]].tolist())
    assert f"{said} stands" in text(batch)
    assert batch.counterfactual is not None
    assert batch.counterfactual.mask.equal(batch.mask)


def test_questions_keep_all_their_answers(tmp_path):
    batch = find_task(spec("truthfulqa", tmp_path))(WORDS, 4, 0)
    assert len(batch) == 4 * 5
    for question in range(4):
        mine = batch.labels["group"] == question
        assert batch.labels["right"][mine].tolist() == [1, 1, 0, 0, 0]
        assert batch.labels["best"][mine].tolist() == [1, 0, 0, 0, 0]


def test_omniglot_shows_the_character_it_asks_for(tmp_path):
    batch = find_task(spec("omniglot", tmp_path))(WORDS, 8, 0)
    for row in range(8):
        first, second, query = (
            [*part.splitlines()[:8]] for part in text(batch, row).removeprefix(WORDS.decode([WORDS.bos])).split("\n\n")
        )
        same = [
            sum(a != b for x, y in zip(one, query, strict=True) for a, b in zip(x, y, strict=True))
            for one in (first, second)
        ]
        right = WORDS.decode(int(batch.labels["answer"][row, 0]))
        assert right == (" A" if same[0] < same[1] else " B")


# ---- what cannot be is told with file, row and column ------------------------------------------------------------------
BAD = [
    ("mmlu", "x.csv", "Which?,one,two,three,four,E\n", r"Line 1 of x\.csv, column 'answer': \"E\" is none of A, B, C, D"),
    ("mmlu", "x.csv", "Which?,one,two\n", r"Line 1 of x\.csv has 3 fields"),
    ("sst-sst2", "x.tsv", "sentence\tlabel\nfine\t-1\n", r"Line 2 of x\.tsv, column 'label': \"-1\" is none of 0, 1"),
    ("sst-sst2", "x.tsv", "text\tclass\nfine\t1\n", r"begins with the columns text, class"),
    ("sst-sst2", "x.txt", "fine film\n", r"Line 1 of x\.txt: a tree"),
    ("ethos", "x.csv", "comment;isHate\nhello;much\n", r"Line 2 of x\.csv, column 'isHate'"),
    ("ethos", "x.csv", "comment;isHate\nhello;nan\n", r"Line 2 of x\.csv, column 'isHate': a share"),
    ("ag-news", "x.csv", "5,A title,A text\n", r"Line 1 of x\.csv, column 'Class Index': \"5\" is none of 1, 2, 3, 4"),
    ("truthfulqa", "x.json", '[{"question": "Why?"}]', r"Row 1 of x\.json has no 'mc2_targets'; its columns are question"),
    ("logiqa", "x.txt", "\na\ntext\nquestion\nA.1\nB.2\n", r"Lines 1 to 6 of x\.txt"),
    ("triviaqa", "x.json", '{"rows": []}', r"has no 'Data'"),
    ("triviaqa", "x.json", '{"Data": [{"Question": "Q?", "Answer": {"Value": 3}}]}', r"Row 1 of x\.json, column 'Answer', column 'Value'"),
    ("lre", "x.json", '{"name": "r", "prompt_templates": ["a {} of {}"], "samples": []}', r"Row 1 of x\.json, column 'prompt_templates'"),
    ("lre", "x.json", '{"name": "r", "prompt_templates": ["a {}"], "samples": [{"subject": "s"}]}', r"Row 1 of x\.json, samples 1 has no 'object'"),
    ("agenda", "x.tsv", "t\ta ; b\tx\t0 9 1\tabs\t0\n", r"Line 1 of x\.tsv, column 'relations'"),
    ("agenda", "x.tsv", "t\ta ; b\tx\t0 1 1\tabs <task_7>\t0\n", r"column 'abstract': entity 7"),
    ("mquake", "x.json", "[3]", r"Row 1 of x\.json is int"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "said"), BAD)
def test_a_bad_file_is_told_with_its_place(name: str, file: str, content: str, said: str, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises(BadInput, match=said):
        find_task(f"{name}={tmp_path / file}")


def test_what_is_no_source_is_told():
    with pytest.raises(UnknownName, match="mmlu is read from the files"):
        find_task("mmlu")
    with pytest.raises(UnknownName, match="no benchmark called 'mmul'"):
        find_task("mmul=x.csv")
    with pytest.raises(UnknownName, match="succession is generated"):
        find_task("succession=x.csv")
    with pytest.raises(BadInput, match="no file or folder /nowhere/x"):
        find_task("mmlu=/nowhere/x.csv")


def test_the_hub_is_asked_for_the_published_configuration(monkeypatch: pytest.MonkeyPatch):
    asked = []
    fake = types.ModuleType("datasets")

    def load_dataset(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        if config == "none":
            raise ValueError("there is no configuration 'none'")
        return [{"sentence": f"film {i}", "label": i % 2} for i in range(24)]

    vars(fake)["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    find_task("sst-sst2=stanfordnlp/sst2")
    find_task("sst-sst2=stanfordnlp/sst2@abc:default:train")
    find_task("sst-sst2=nyu-mll/glue:sst2:validation")
    assert asked == [
        ("stanfordnlp/sst2", "default", "validation", None),
        ("stanfordnlp/sst2", "default", "train", "abc"),
        ("nyu-mll/glue", "sst2", "validation", None),
    ]
    with pytest.raises(BadInput, match="cannot be loaded: there is no configuration 'none'"):
        find_task("sst-sst2=stanfordnlp/sst2:none")


def test_without_datasets_the_hub_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match="package `datasets`, which is missing"):
        find_task("mmlu=cais/mmlu")


# ---- on the command line -------------------------------------------------------------------------------------------------
def test_commands_refuse_a_bad_benchmark_before_a_model_is_loaded(tmp_path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.csv").write_text("Which?,one,two,three,four,E\n")
    for given, said in (
        (f"mmlu={tmp_path / 'x.csv'}", "column 'answer'"),
        ("mmlu=/nowhere.csv", "no file or folder /nowhere.csv"),
        ("mmul=x.csv", "Did you mean 'mmlu'?"),
        ("mmlu", "--task mmlu=PATH, or mmlu=cais/mmlu:all:test from the Hub"),
    ):
        code, _, err = run(capsys, "ablate", "smollm2-135m", "--task", given)
        assert code == 1
        assert said in " ".join(err.split())


def test_detectors_of_layers_are_asked_on_a_benchmark(tmp_path, model: ha.Model):
    given = spec("sst-sst2", tmp_path)
    atlas = ha.mine(model, ["previous-token"], tasks=[given], n=8, verdict=False, out=tmp_path / "run")
    assert atlas.data["detectors"][0]["task"] == "sst-sst2"
    assert set(ha.labels_of(ha.find_task(given)(WORDS, 8)).classes) == {"negative", "positive"}


def test_the_names_that_commands_know_are_those_of_the_benchmarks():
    from headatlas.tasks._names import benchmark_names

    assert benchmark_names() == sorted(benchmarks())
