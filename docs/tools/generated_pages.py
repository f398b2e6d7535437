"""Pages that are made when the site is built, from what they describe: the reference, and a page for each notebook.

mkdocs calls `on_files`. A public name that no page takes, and a page that takes none, end the build.
"""

from __future__ import annotations

import json
import pkgutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headatlas
from headatlas.overview import list_known

sys.path.insert(0, str(Path(__file__).parent))
from markdown_text import plain

ROOT = Path(__file__).parents[2]
# Page -> (title, what it is about, modules whose public names stand on it). A name stands where its module's longest match is.
GROUPS = {
    "models": ("Models and prompts", "Opening a model, running it, and what it is run on.", ("errors", "heads", "model", "task", "own_prompts", "version", "methods.prompts", "methods.labels", "methods.texts", "progress")),
    "edits": ("Edits", "Changes of what heads compute ([how they are used](../methods/edits.md)).", ("edits",)),
    "mining": ("Mining and atlases", "One run over a model, and what it leaves to be asked ([what a result says](../method.md)).", ("mining", "engines", "atlas", "scores", "asking", "overview", "catalogue", "citing")),
    "methods": ("Methods", "What can be measured of heads ([which when](../which-method.md)).", ("methods", "circuits", "apply", "treebanks", "pages")),
    "lab": ("Planted models and checks", "Models in which the truth is known, and what a model is checked for ([the lab](../lab.md)).", ("lab", "model.families", "model:table_of")),
}  # fmt: skip
# Units whose modules the last page goes through, so that what functions return can be looked up too.
UNITS = ("methods", "circuits", "apply", "treebanks", "pages")


def where(name: str) -> str:
    """The full name under which the code of a public name stands."""
    if name == "__version__":
        return "headatlas.version.__version__"
    module, _, inner = headatlas._PUBLIC[name].partition(":")
    return f"{module}.{inner or name}"


def group_of(name: str) -> str:
    """The page of the reference on which a public name stands."""
    place = where(name).removeprefix("headatlas.")
    parts = place.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)] + [".".join(parts[:-1]) + ":" + parts[-1]]
    found = {prefix: page for page, (_, _, modules) in GROUPS.items() for prefix in modules if prefix in prefixes}
    assert found, f"no page of the reference takes {name} ({place}); add its module to GROUPS"
    return found[max(found, key=len)]


def public(page: str) -> list[str]:
    """The public names of a page, in the order of `headatlas.__all__`."""
    return [name for name in headatlas.__all__ if group_of(name) == page]


def entry(place: str, title: str | None = None, **options: Any) -> str:
    """What makes mkdocstrings write down the thing at a full name."""
    told = [f"        heading: {json.dumps(title)}"] if title else []
    told += [f"        {key}: {json.dumps(value)}" for key, value in options.items()]
    return "\n".join([f"::: {place}", *(["    options:", *told] if told else [])]) + "\n"


def reference() -> Iterator[tuple[str, str]]:
    """Path below reference/, and text, of every page of the reference."""
    lines = ["# Reference", "", "Every public name of `import headatlas as ha`, from its docstring. Shapes are in square brackets, with the axes of the [vocabulary](../vocabulary.md).", ""]  # fmt: skip
    for page, (title, what, _) in GROUPS.items():
        names = public(page)
        assert names, f"reference/{page}.md would be empty"
        lines += [f"**[{title}]({page}.md)**: " + ", ".join(f"[`{name}`][{where(name)}]" for name in names), ""]
        yield f"{page}.md", "\n".join([f"# {title}", "", what, "", *(entry(where(name), f"headatlas.{name}") for name in names)])  # fmt: skip
    lines += ["**[Detectors](detectors.md)**, **[Tasks](tasks.md)**, **[modules of the methods](modules.md)**.", ""]
    yield "index.md", "\n".join(lines)
    yield "detectors.md", _detectors()
    yield "tasks.md", _tasks()
    yield "modules.md", _modules()


def _detectors() -> str:
    from headatlas.detector import detectors

    lines = ["# Detectors", "", f"{len(detectors())} measurements of heads. Each has a chance level, and what it is worth is [measured](../calibration.md). In the terminal: `headatlas list detectors`.", ""]  # fmt: skip
    for one in detectors().values():
        about = one.about
        facts = {
            "head type": f"`{one.head_type}` (`headatlas papers show {one.head_type}`)",
            "task": f"`{one.task.name}`" + "".join(f", `{task.name}`" for task in one.also),
            "formula": about["formula"],
            "chance": about["chance"] or "the same score on the task's control batch",
            "minimum effect": f"{one.minimum_effect:g} beyond chance",
            "models": one.attention,
            "calibration": about["calibration"],
        }
        lines += [
            f"## {one.name}",
            "",
            plain(about["doc"]),
            "",
            *(f"- *{key}*: {plain(value)}" for key, value in facts.items()),
            "",
        ]
    return "\n".join(lines)


def _tasks() -> str:
    rows = list_known("tasks")
    lines = ["# Tasks", "", f"{len(rows)} seeded generators of batches ([what models can do](../tasks.md)). `headatlas.find_task(NAME)(model.tokenizer, n, seed=0)` makes a batch. In the terminal: `headatlas list tasks`.", ""]  # fmt: skip
    for row in rows:
        facts = {"metric": row["metric"], "held out": row["held_out"], "second family": row["second_family"]}
        told = [f"- *{key}*: {plain(value)}" for key, value in facts.items() if value]
        lines += [f"## {row['name']}", "", plain(row["what"]), "", *told, ""]
    return "\n".join(lines)


def _modules() -> str:
    lines = ["# What the methods are made of", "", "Modules behind the public functions: what they return, and steps that can be taken one by one.", ""]  # fmt: skip
    others: dict[str, list[str]] = defaultdict(list)  # what of a module stands on another page
    for name in headatlas.__all__:
        module, _, inner = where(name).rpartition(".")
        others[module].append(f"!^{inner}$")
    for unit in UNITS:
        package = __import__(f"headatlas.{unit}", fromlist=["_"])
        found = [f"headatlas.{unit}.{path}" for path in sorted(_files(Path(package.__path__[0])))]
        lines += [entry(module, show_root_full_path=True, filters=["!^_", *others[module]]) for module in found]
    return "\n".join(lines)


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Dotted names of the public modules in a folder and those below it."""
    for info in pkgutil.iter_modules([str(folder)]):
        if info.name.startswith("_"):
            continue
        if info.ispkg:
            yield from _files(folder / info.name, f"{prefix}{info.name}.")
        else:
            yield prefix + info.name


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, and its code in blocks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join([parts[0], f"[The notebook]({path.name}), to run.", *parts[1:]]) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    made = {f"reference/{path}": text for path, text in reference()}
    made |= {
        f"notebooks/{path.stem}.md": notebook_page(path) for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files
