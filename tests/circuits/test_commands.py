"""What the commands of paths and circuits write, and what they answer to wrong input."""

import json
import shlex

import pytest

from tests import pages


@pytest.fixture(autouse=True)
def place(load_gives_narrow_smollm2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(command: str | list[str], capsys) -> tuple[int, str, str]:
    """A command of a page, or one that is written out; forced, since random weights do no task."""
    arguments = shlex.split(command)[1:] if isinstance(command, str) else command
    forced = "--force" in arguments or arguments[1] in ("compare", "convert")
    return pages.run(capsys, *arguments, *([] if forced else ["--force"]))


def test_results_are_printed_as_json_and_written(capsys, tmp_path):
    path = "headatlas path smollm2-135m --task ioi --n 4 --positions end --senders '0.1 2.3' --receivers logits --receivers q:2.4"
    code, out, _ = run(f"{path} --json --out kept", capsys)
    data = json.loads(out)
    assert (code, data["schema"], data["positions"]) == (0, "headatlas/effects/1", ["logits", "q:2.4"])
    assert (data["measured"], data["unmeasured"]) == (3, 1)
    assert json.loads((tmp_path / "kept" / "effects.json").read_text())["run"]["receivers"] == ["logits", "q:2.4"]
    _, table, _ = run(path, capsys)
    assert "receiver" in table
    assert "1 senders do not come before their receiver" in table
    code, out, _ = run(
        "headatlas circuit test smollm2-135m '2.1@end' --task ioi --n 4 --ablation resample --criteria none --json --out t.json",
        capsys,
    )
    data = json.loads(out)
    assert (code, data["schema"]) == (0, "headatlas/circuit-test/1")
    assert (data["protocol"]["ablation"], data["protocol"]["positions"]) == ("resample", ["end"])
    assert json.loads((tmp_path / "t.json").read_text()) == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "t.json"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("headatlas path smollm2-135m --task ioi --n 2 --receivers v:2.1", "shared with 2.0, 2.2"),
        ("headatlas path smollm2-135m --task ioi --n 2 --receivers w:2.1", "'w:2.1' is not a receiver"),
        ("headatlas path smollm2-135m", "Say what is read"),
        ("headatlas circuit find smollm2-135m --task ioi --n 2 --target 2 --ablation zero", "from 0.001 to 1"),
        ("headatlas circuit test smollm2-135m nothing.json --task ioi --n 2", "There is no file nothing.json"),
        ("headatlas circuit test smollm2-135m ioi --task ioi --n 2", "found in GPT-2 small"),
        ("headatlas circuit test smollm2-135m '77.1' --task ioi --n 2 --ablation zero", "no attention layer 77"),
        ("headatlas circuit compare ioi ioy", "no circuit called 'ioy'"),
        ("headatlas circuit test smollm2-135m '2.1'", "Heads alone do not say"),
        ("headatlas circuit test smollm2-135m ioi --as gpt2 --n 2", "is not gpt2: it has 30 layers of 9 heads"),
        ("headatlas circuit test smollm2-135m arithmetic --n 2", "no task of sums is built in"),
        ("headatlas circuit find smollm2-135m --task ioi --n 2 --ablation zero", "2 are too few"),
        ("headatlas circuit convert ioi", "does not say the shape"),
        ("headatlas circuit convert ioi --shape 12", "is no shape of a model"),
        ("headatlas circuit compare ioi ioi --as gpt-two", "no model called 'gpt-two'"),
    ],
)
def test_wrong_input_ends_with_1_and_says_what_is_wrong(command, text, capsys, tmp_path):
    code, out, err = run(command, capsys)
    assert (code, out) == (1, "")
    assert text in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
