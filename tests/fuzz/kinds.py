"""Every kind of file that headatlas is handed: how a good one is made, what reads it, and how it goes wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz import mutations as m

RUNS = Path(__file__).parents[1] / "mining" / "runs.zip"


LARGE = (m.collections, m.long_line)


@dataclass(frozen=True)
class Kind:
    """make: writes a good folder. file: the one in it that goes wrong. read: uses the folder as a command would."""

    make: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]
    mutations: tuple[m.Mutation, ...]

    def case(self, good: Path, folder: Path, seed: int, *, large: bool = False) -> str:
        """Make a copy of the good folder with the file changed; the name of the change. large: to one of 20 to 100 MB."""
        rng = random.Random(seed)
        shutil.copytree(good, folder)
        path = folder / self.file
        mutation = rng.choice(LARGE if large else self.mutations)
        path.write_bytes(mutation(path.read_bytes(), rng))
        return mutation.__name__


# ---- runs ------------------------------------------------------------------------------------------------------------
def _run(folder: Path) -> None:
    with zipfile.ZipFile(RUNS) as archive:
        archive.extractall(folder)


def _shown(text: str) -> None:
    assert not set(text) & {"\x1b", "\x00", "\x9b", "\u202e"}, "characters that act on a terminal were printed"


def _atlas(folder: Path) -> None:
    from rich.console import Console

    import headatlas as ha
    from headatlas.render.console import console

    atlas = ha.Atlas(folder / "finished")
    screen: Console = console()
    with screen.capture() as caught:
        screen.print(ha.show(folder / "finished", width=100))
        for found in atlas.data["detectors"][:3]:
            screen.print(ha.show(folder / "finished", detector=found["name"], width=100))
    _shown(caught.get())
    repr(atlas)
    atlas._repr_html_()


def _query(folder: Path) -> None:
    import headatlas as ha

    ha.Atlas(folder / "finished").query("SELECT * FROM scores LIMIT 5")
    ha.Atlas(folder / "finished").query("SELECT count(*), avg(score) FROM examples")


def _compared(folder: Path) -> None:
    import headatlas as ha

    assert ha.compare(folder / "finished", folder / "finished").changes == ()


def _scan(folder: Path) -> None:
    from headatlas.mining.task_scan import TaskScan, attention_json, detector_json

    scan = TaskScan.load(folder / "all-scans.partial" / "scans", "echo")
    assert scan is not None
    json.dumps([detector_json(scan, one) for one in scan.detectors] + [attention_json([scan])])


def _verdict(folder: Path) -> None:
    from headatlas.mining.task_verdict import TaskVerdict

    assert TaskVerdict.load(folder / "one-verdict.partial" / "verdicts", "echo") is not None


def _identity(folder: Path) -> None:
    from headatlas.store import claimed, finished

    with zipfile.ZipFile(RUNS) as archive:
        identity = {"id": json.loads(archive.read("finished/run.json"))["id"]}
    finished(folder / "finished", identity, "atlas.json")
    shutil.copy(folder / "finished" / "run.json", folder / "all-scans.partial" / "run.json")
    with claimed(folder / "all-scans", identity):
        pass


# ---- sweeps, edits, circuits -----------------------------------------------------------------------------------------
def _make_effects(folder: Path) -> None:
    from headatlas.heads import HeadId
    from headatlas.methods.sweeps import effects_io
    from headatlas.methods.sweeps.effects import HeadEffects

    rng = np.random.default_rng(0)
    sets = tuple((HeadId(layer, head),) for layer in range(2) for head in range(2))
    facts = {"id": "x", "metric": "loss", "unit": "nats", "notes": [], "forwards": 3.0, "seconds": 1.0}
    found = HeadEffects("ablation", sets, ("end", "all"), rng.normal(size=(6, 4, 2)), rng.normal(size=6), facts=facts)
    effects_io.write(found, folder)


def _effects(folder: Path) -> None:
    from headatlas.methods.sweeps import effects_io

    effects_io.data_of(effects_io.load(folder))


def _make_piece(folder: Path) -> None:
    np.save(folder / "piece.npy", np.arange(12.0).reshape(3, 4))


def _piece(folder: Path) -> None:
    from headatlas.methods.sweeps.checkpoint import FolderStore

    FolderStore(folder).get("piece")


def _make_edits(folder: Path) -> None:
    import torch

    from headatlas import edits

    found = [edits.Zero("0.1"), edits.Add("1.0 1.1", torch.ones(4), scale=2.0), edits.Temper("0.1", 0.5)]
    edits.save(found, folder / "edits")


def _edits(folder: Path) -> None:
    from headatlas import edits

    _shown(repr(edits.load_edits(folder / "edits")).encode("ascii", "backslashreplace").decode())


def _make_circuit(folder: Path) -> None:
    from headatlas.circuits.circuit import Circuit, Edge, parse_nodes
    from headatlas.heads import HeadId
    from headatlas.methods.path_patching.receivers import Receiver

    nodes = parse_nodes("9.6@end 9.9@end 5.5@s2 0.1")
    edges = (Edge(HeadId(5, 5), Receiver.parse("q:9.6@end"), -0.3, 0.01),)
    Circuit("toy", "ioi", nodes, edges, {nodes[0]: "mover"}, "toy", {"by": "hand"}).save(folder / "circuit.json")


def _circuit(folder: Path) -> None:
    import headatlas as ha

    ha.compare_circuits(folder / "circuit.json", folder / "circuit.json")


def _make_prompts(folder: Path) -> None:
    rows = [
        {"clean": f"the {word}", "corrupted": "the dog", "answer": "a", "wrong": "b"}
        for word in ("fox", "cat", "cat and")
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))


class _Words:
    """One token a character."""

    bos, eos, context, causal, has_text = 1, None, 4096, True, True

    def encode(self, text: str) -> list[int]:
        return [ord(sign) % 300 for sign in text]

    def decode(self, ids: int | list[int]) -> str:
        return "?"

    def single(self, word: str) -> int | None:
        return ord(word) % 300 if len(word) == 1 else None


def _prompts(folder: Path) -> None:
    from headatlas.prompts_file import read_prompts

    read_prompts(folder / "prompts.jsonl", _Words())  # type: ignore[arg-type]


# ---- models ----------------------------------------------------------------------------------------------------------
def _make_model(folder: Path) -> None:
    from tests.model.source_files import save_llama

    save_llama(folder / "model")


def _make_shards(folder: Path) -> None:
    from tests.model.source_files import save_llama

    save_llama(folder / "model", shards=True)


def _load(folder: Path) -> None:
    import headatlas as ha

    os.environ["HEADATLAS_HOME"] = str(folder / "cache")
    model = ha.load(str(folder / "model"))
    model.tokenizer.encode("the quick fox")


def _make_gguf(folder: Path) -> None:
    from tests.model.source_files import write_gguf

    write_gguf(folder / "model.gguf")


def _gguf(folder: Path) -> None:
    from headatlas.model.sources.resolve import resolve
    from headatlas.progress import Silent

    resolve(str(folder / "model.gguf"), home=folder / "cache", progress=Silent())


def _make_cache(folder: Path) -> None:
    _make_gguf(folder)
    _gguf(folder)
    (entry,) = (folder / "cache" / "models").glob("gguf-*/source.json")
    shutil.copy(entry, folder / "source.json")


def _cache(folder: Path) -> None:
    from headatlas.model.sources.cache import read_manifest
    from headatlas.model.sources.convert import is_current

    found = read_manifest(folder)
    assert found is None or is_current(found) in (True, False)


# ---- catalogue -------------------------------------------------------------------------------------------------------
PAPER = "adaptive-circuit-behavior-ioi"


def _make_catalogue(folder: Path) -> None:
    from headatlas.catalogue.gather import FOLDER

    (folder / "papers").mkdir()
    shutil.copy(FOLDER / "papers" / f"{PAPER}.yaml", folder / "papers")
    shutil.copy(FOLDER / "stages.yaml", folder)


def _catalogue(folder: Path) -> None:
    from headatlas.catalogue.gather import gather
    from headatlas.catalogue.problem import CatalogueError

    gathered = gather(folder)
    gathered.catalogue()
    if gathered.problems:
        raise CatalogueError(gathered.problems)


def _make_form(folder: Path) -> None:
    from headatlas.catalogue.curation.form_text import OPTIONAL, REQUIRED

    text = "\n\n".join(f"### {heading}\n\nsome text" for heading in (*REQUIRED, *OPTIONAL))
    (folder / "form.md").write_text(text.replace("### Date\n\nsome text", "### Date\n\n2024-09-16"))


def _form(folder: Path) -> None:
    from headatlas.catalogue.curation.form_text import read_form

    read_form(folder / "form.md")


def _make_queue(folder: Path) -> None:
    import datetime

    from headatlas.catalogue.curation.watch import Row, start, write_queue

    queue = start(datetime.date(2025, 2, 17))
    row = Row(
        arxiv="2502.00001",
        title="T",
        authors=["A"],
        date=datetime.date(2025, 2, 18),
        link="https://x",
        score=0.5,
        why=["y"],
    )
    for name in ("queue.yaml", "queue.json"):
        write_queue(folder / name, queue.model_copy(update={"papers": [row]}))


def _queue(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from headatlas.catalogue.curation.watch import read_queue

        return read_queue(folder / name)

    return read


def _sightings(folder: Path) -> None:
    from headatlas.catalogue.site.atlases import sightings
    from headatlas.store import read_json

    path = folder / "finished" / "atlas.json"
    sightings([(str(path), read_json(path))])


_TEXT = (*m.ANY, *m.JSON, *m.JSON)
_LINES = (*m.ANY, *map(m.lines_of, (*m.JSON, *m.JSON, m.flip)))
_YAML = (*m.ANY, m.yaml_tricks, m.yaml_tricks, m.yaml_tricks, m.yaml_values, m.yaml_values, m.yaml_values)
KINDS: dict[str, Kind] = {
    "atlas": Kind(_run, "finished/atlas.json", _atlas, _TEXT),
    "attention": Kind(_run, "finished/attention.json", _atlas, _TEXT),
    "run": Kind(_run, "finished/run.json", _identity, _TEXT),
    "sightings": Kind(_run, "finished/atlas.json", _sightings, _TEXT),
    "scores": Kind(_run, "finished/scores.parquet", _query, m.ANY),
    "examples": Kind(_run, "finished/examples.parquet", _compared, m.ANY),
    "compared-run": Kind(_run, "finished/run.json", _compared, _TEXT),
    "scan": Kind(_run, "all-scans.partial/scans/echo.json", _scan, _TEXT),
    "scan-arrays": Kind(_run, "all-scans.partial/scans/echo.npz", _scan, (*m.ANY, *(m.lying_archive,) * 8)),
    "verdict": Kind(_run, "one-verdict.partial/verdicts/echo.json", _verdict, _TEXT),
    "effects": Kind(_make_effects, "effects.json", _effects, _TEXT),
    "effect-table": Kind(_make_effects, "examples.parquet", _effects, m.ANY),
    "piece": Kind(_make_piece, "piece.npy", _piece, (*m.ANY, *(m.lying_array,) * 8)),
    "edits": Kind(_make_edits, "edits/edits.json", _edits, _TEXT),
    "edit-tensors": Kind(_make_edits, "edits/edits.safetensors", _edits, (*m.ANY, *(m.lying_header,) * 8)),
    "circuit": Kind(_make_circuit, "circuit.json", _circuit, _TEXT),
    "prompts": Kind(_make_prompts, "prompts.jsonl", _prompts, _LINES),
    "config": Kind(_make_model, "model/config.json", _load, _TEXT),
    "tokenizer": Kind(_make_model, "model/tokenizer.json", _load, _TEXT),
    "tokenizer-config": Kind(_make_model, "model/tokenizer_config.json", _load, _TEXT),
    "weights": Kind(_make_model, "model/model.safetensors", _load, (*m.ANY, *(m.lying_header,) * 8)),
    "index": Kind(_make_shards, "model/model.safetensors.index.json", _load, _TEXT),
    "gguf": Kind(_make_gguf, "model.gguf", _gguf, (*m.ANY, *(m.lying_gguf,) * 10)),
    "manifest": Kind(_make_cache, "source.json", _cache, _TEXT),
    "catalogue": Kind(_make_catalogue, f"papers/{PAPER}.yaml", _catalogue, _YAML),
    "stages": Kind(_make_catalogue, "stages.yaml", _catalogue, _YAML),
    "form": Kind(_make_form, "form.md", _form, (*m.ANY, *(m.form_tricks,) * 5)),
    "queue-yaml": Kind(_make_queue, "queue.yaml", _queue("queue.yaml"), _YAML),
    "queue-json": Kind(_make_queue, "queue.json", _queue("queue.json"), _TEXT),
}  # fmt: skip
