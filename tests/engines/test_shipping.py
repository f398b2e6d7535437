"""Work that travels finds there what it left here: the very tasks, detectors and metrics, the model, users' files; else it is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest

import headatlas as ha
from headatlas.detector import detectors, find_detector
from headatlas.engines import Unit, current
from headatlas.engines.shipping import Opening, packed, unpacked
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.progress import Silent
from headatlas.registry import plugins_of_file
from headatlas.task import Task, tasks
from headatlas.task.answers import METRICS
from tests import toys


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=300), place)
    return place


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return ha.load(folder)


def travelled(value: object, model: Model) -> object:
    return unpacked(packed(lambda: value, model, cloudpickle), model)()


@pytest.mark.parametrize("name", detectors())
def test_a_detector_is_the_same_object_there(name: str, model: Model):
    assert travelled(detectors()[name], model) is detectors()[name]


def test_tasks_metrics_and_the_model_are_the_same_objects_there(model: Model):
    found = travelled((tuple(tasks().values()), tuple(METRICS.values()), model), model)
    here = (tuple(tasks().values()), tuple(METRICS.values()), model)
    assert [list(map(id, group)) for group in found[:2]] == [list(map(id, group)) for group in here[:2]]
    assert found[2] is model


def test_a_detector_asked_on_another_task_keeps_what_it_is_made_of(model: Model):
    one = find_detector("induction")
    moved = replace(one, task=one.also[0]) if one.also else replace(one, minimum_effect=0.5)
    found = travelled(moved, model)
    assert found is not moved
    assert (found.name, found.minimum_effect) == (moved.name, moved.minimum_effect)
    assert found.task is moved.task
    assert found.control is moved.control
    assert found.planted is moved.planted


def test_a_users_file_travels_with_its_work(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch):
    """In a process that has never seen the file, nor finds it any more."""
    file = tmp_path / "mine.py"
    file.write_text((Path(ha.__file__).parent / "tasks" / "foo_bar.py").read_text())
    monkeypatch.chdir(tmp_path)
    task = plugins_of_file(Path("mine.py"), Task)[0]
    monkeypatch.chdir(tmp_path.parent)
    file.unlink()
    parcel = packed(lambda: task.build, model, cloudpickle)
    place = tmp_path / "parcel"
    place.write_bytes(parcel)
    script = (
        "import sys; from pathlib import Path; from headatlas.engines.shipping import unpacked\n"
        f"print(unpacked(Path({str(place)!r}).read_bytes(), None)().__module__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == task.build.__module__


def test_what_the_program_itself_defines_is_refused(model: Model):
    with pytest.raises(BadInput, match=r"repeated is defined in the program itself.*file"):
        travelled(replace(find_detector("induction"), name="repeated", module="__main__"), model)


def test_a_model_in_memory_has_no_name_to_be_loaded_by():
    with ha.load(toys.llama()) as inner, pytest.raises(BadInput, match="load models by name"):
        Opening.of(inner)


def test_a_model_that_was_changed_in_memory_is_not_taken_for_the_one_in_its_files(folder: Path, model: Model):
    changed = ha.load(folder)
    next(changed.hf.parameters()).data.mul_(1.01)
    opening = pickle.loads(pickle.dumps(Opening.of(changed)))
    with pytest.raises(BadInput, match=r"not the model that was meant: it differs in sha256"):
        opening.demand(model)
    Opening.of(model).demand(ha.load(**Opening.of(model).arguments))


def test_the_engine_of_this_program_takes_units_in_order_and_those_that_come_up(model: Model):
    def unit(name: str) -> Unit[str]:
        return Unit(name, lambda model, progress: name * 2)

    units, found = deque([unit("a"), unit("b")]), []
    for one, result in current().map(model, units, Silent()):
        found.append(result)
        if one.name == "a":
            units.append(unit("c"))
    assert found == ["aa", "bb", "cc"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spark"}, "no engine 'spark'"),
        ({"workers": 2}, "--workers is for the engine ray"),
        ({"engine": "ray", "threads": 0}, "few"),
    ],
)
def test_an_engine_that_there_is_not_is_refused(options, said):
    with pytest.raises(BadInput, match=said), ha.engine(**options):
        pass


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'headatlas\[ray\]'"), ha.engine("ray"):
        pass


def test_threads_are_set_while_the_engine_is_in_force():
    import torch

    before = torch.get_num_threads()
    with ha.engine(threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
