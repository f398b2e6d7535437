"""Which papers of the first list run: what of ours gives a paper's own quantity, by which command, and what differs.

Nothing is listed by hand: a detector measures what its formula cites, a command what the files of its library function
cite, and published circuits name their paper. They are read from their files, as everything of the catalogue.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.detector_names import declared, detector_names
from headatlas.catalogue.files.citations import cited, detectors_citing
from headatlas.catalogue.files.strict_yaml import read
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.schema import Paper

_HOME = Path(__file__).parents[2]
_WRITES = re.compile(r"--out (\S+)")
# Models on which commands are shown: two that are built in, and one that a command makes.
_DECODER, _ENCODER, _TRANSLATOR = "smollm2-135m", "minilm-l6", "toys/translation"
_SHOWN_ON = {"bidirectional": _ENCODER, "cross": _TRANSLATOR}


@dataclass(frozen=True)
class Row:
    """What is known of one paper. runs: what gives its quantity; commands: lines to type; differs: how ours departs from it.

    reasons: why nothing runs, where nothing does. seen: the models of which the paper or its claims speak.
    """

    paper: Paper
    runs: tuple[str, ...]
    commands: tuple[str, ...]
    differs: tuple[str, ...]
    reasons: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class _Command:
    words: str
    example: str
    papers: tuple[tuple[str, str], ...]  # (a work as docstrings cite it, the line that gives its own quantity)
    doc: str  # all docstrings of the files that do its work

    def cited(self, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
        """(paper, line to type) of the papers that it is for: those that its lines name, then others that its method cites."""
        named = [(paper, line) for work, line in self.papers for paper in cited(catalogue, work)]
        yield from named
        for paper in cited(catalogue, self.doc):
            if paper not in dict(named):
                yield paper, self.example


def what_runs(catalogue: Catalogue) -> list[Row]:
    """A row for each paper of the first list, newest first."""
    detectors, commands = detectors_citing(catalogue), _commands_citing(catalogue)
    listed = newest_first(catalogue.papers[id_] for id_ in first_list() if id_ in catalogue.papers)
    return [_row(catalogue, paper, detectors.get(paper.id, ()), commands.get(paper.id, ())) for paper in listed]


def runs_here(catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    """Paper id -> the commands that give its own quantity, for all papers of which something runs."""
    detectors, commands = detectors_citing(catalogue), _commands_citing(catalogue)
    ids = (id_ for id_ in catalogue.papers if id_ in detectors or id_ in commands)
    rows = (_row(catalogue, catalogue.papers[id_], detectors.get(id_, ()), commands.get(id_, ())) for id_ in ids)
    return {row.paper.id: row.commands for row in rows}


@cache
def first_list() -> tuple[str, ...]:
    """The ids of the papers that the list held when this program set out."""
    source = files("headatlas.catalogue").joinpath("data/aids/first_list.yaml").read_bytes()
    listed: Any = read(source, "first_list.yaml").value
    return tuple(listed["papers"])


def markdown(catalogue: Catalogue) -> str:
    """docs/papers.md; the same catalogue and files always give the same text."""
    rows = what_runs(catalogue)
    running = [row for row in rows if row.commands]
    lines = [
        "# The papers of the list: what runs",
        "",
        "This page is made by `headatlas papers runs docs/papers.md`. Runs means that a paper's own quantity comes out of a command:",
        "a detector whose formula cites it, or a command whose method does. Circuits are those that it publishes.",
        "",
        f"{len(running)} of {len(rows)} papers of the list of 19 September 2024 run.",
        "",
        "| paper | what runs | what differs | seen by the paper in |",
        "|---|---|---|---|",
        *(_line(row) for row in running),
        "",
        "## The commands",
        "",
        "```sh",
        *_in_order(command for row in running for command in row.commands),
        "```",
        "",
        "## What does not run, and why",
        "",
        "| paper | reason |",
        "|---|---|",
        *(f"| {_title(row.paper)} | {' '.join(row.reasons)} |" for row in rows if not row.commands),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    cells = (
        _title(row.paper),
        "; ".join(row.runs),
        " ".join(row.differs) or "no difference is noted",
        ", ".join(row.seen),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _title(paper: Paper) -> str:
    return f"[{paper.title}]({paper.links[0].url}) ({paper.date.year})"


def _row(catalogue: Catalogue, paper: Paper, detectors: tuple[str, ...], commands: tuple[tuple[str, str], ...]) -> Row:
    ours = {one.name: one for one in declared()}
    groups = {model: [name for name in detectors if _SHOWN_ON.get(ours[name].attention, _DECODER) == model]
              for model in (_DECODER, _ENCODER, _TRANSLATOR)}  # fmt: skip
    mines = tuple(
        f"headatlas mine {model} {' '.join(f'--detector {name}' for name in names)}"
        for model, names in groups.items()
        if names
    )
    if groups[_TRANSLATOR]:
        mines = (f"headatlas toy translation --out {_TRANSLATOR}", *mines)
    circuits = [circuit for circuit in catalogue.circuits.values() if circuit.paper == paper.id]
    runs = (
        *(f"detector `{name}`" for name in detectors),
        *(f"`headatlas {words}`" for words in dict.fromkeys(words for words, _ in commands)),
        *(f"circuit `{circuit.id}`" + (f" of {circuit.model}" if circuit.model else "") for circuit in circuits),
    )
    differs = (
        *(f"`{name}`: {found}" for name in detectors if (found := _differs(ours[name].doc))),
        *(f"`headatlas {words}`: {_remark(line)}" for words, line in commands if _remark(line)),
    )
    claimed = (claim.model for claim in catalogue.claims.values() if claim.paper == paper.id)
    seen = tuple(dict.fromkeys((*paper.models, *claimed)))
    lines = (*mines, *(line.split(" # ")[0] for _, line in commands))
    return Row(paper, runs, lines, differs, () if lines else _reasons(catalogue, paper), seen)


def _reasons(catalogue: Catalogue, paper: Paper) -> tuple[str, ...]:
    """The paper's own reason; else those of its head types; else that what there is measures something else."""
    if paper.reason:
        return (paper.reason,)
    heads = [catalogue.heads[id_] for id_ in paper.heads]
    found = tuple(dict.fromkeys(head.reason for head in heads if head.reason))
    others = [name for head in heads for name in detector_names().get(head.id, ())]
    if not others:
        return found or ("Not built.",)
    told = f"Not built. What there is for its head types ({', '.join(others)}) measures what other papers define."
    return found or (told,)


def _remark(line: str) -> str:
    """What a line to type says behind a #, as a sentence."""
    found = line.partition(" # ")[2]
    return f"{found[0].upper()}{found[1:]}." if found else ""


def _in_order(lines: Iterable[str]) -> list[str]:
    """Each line once, and none that reads a file before the line that writes it."""
    waiting = list(dict.fromkeys(lines))
    to_come = {name for line in waiting for name in _WRITES.findall(line)}
    found: list[str] = []
    while waiting:
        ready = (line for line in waiting if not to_come & ({*line.split()} - {*_WRITES.findall(line)}))
        line = next(ready, waiting[0])
        waiting.remove(line)
        to_come -= {*_WRITES.findall(line)}
        found.append(line)
    return found


def _differs(doc: str) -> str:
    """What a detector's docstring says behind "Differs:"."""
    found = re.search(r" Differs: (.*?)(?= (?:Minimum effect|Verdict): |$)", " ".join(doc.split()))
    return found[1][0].upper() + found[1][1:] if found else ""


def _commands_citing(catalogue: Catalogue) -> dict[str, tuple[tuple[str, str], ...]]:
    """Paper id -> (words of a command, line to type) of commands that name it, or whose library function's files cite it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for command in _commands():
        for paper, line in command.cited(catalogue):
            found.setdefault(paper, []).append((command.words, line))
    return {paper: tuple(commands) for paper, commands in found.items()}


@cache
def _commands() -> tuple[_Command, ...]:
    """Every command that measures something; not `mine`, whose detectors speak for themselves.

    "Example:" is the line that stands for all papers that its method cites; "For Author et al. year:" a line of one paper's own,
    behind whose # stands how it departs from the paper.
    """
    homes = _homes(_HOME / "__init__.py")
    found: list[_Command] = []
    for path in sorted((_HOME / "cli").rglob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = path.relative_to(_HOME / "cli").with_suffix("").parts
        words = " ".join(part.strip("_") for part in parts)
        module = homes.get(_library(tree) or parts[-1])
        told = "\n".join(_docstrings(tree))
        example = re.search(r"^ *Example: (.*)$", told, re.M)
        papers = tuple(re.findall(r"^ *For (.*?\d{4}): (headatlas .*)$", told, re.M))
        if module is not None and example is not None and words != "mine" and parts[0] != "papers":
            doc = "" if words == "circuit compare" else "\n".join(_doc_of(module))  # which compares results
            toys = _toys() if words == "toy" else ()
            found += toys or [_Command(words, example[1], papers, doc)]
    return tuple(found)


def _toys() -> tuple[_Command, ...]:
    """A command for each toy, whose file cites its paper."""
    paths = sorted((_HOME / "lab" / "toy" / "studies").glob("[!_]*.py"))
    names = {path: path.stem.replace("_", "-") for path in paths}
    docs = {path: "\n".join(_docstrings(ast.parse(path.read_text(encoding="utf-8")))) for path in paths}
    return tuple(
        _Command(f"toy {name}", f"headatlas toy {name} --out toys/{name}", (), docs[path])
        for path, name in names.items()
    )


def _library(tree: ast.Module) -> str | None:
    """The function that a command's file names as its own: `library = "headatlas.name"`."""
    for line in tree.body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "library":
            value = ast.literal_eval(line.value)
            return str(value if isinstance(value, str) else value[0]).removeprefix("headatlas.")
    return None


def _homes(path: Path) -> Mapping[str, str]:
    """Public name -> the module that it comes from, as the package's table of names says."""
    tables = [line.value for line in ast.parse(path.read_text(encoding="utf-8")).body
              if isinstance(line, (ast.Assign, ast.AnnAssign)) and isinstance(line.value, ast.Dict)]  # fmt: skip
    pairs = [pair for table in tables for pair in zip(table.keys, table.values, strict=True)]
    return {
        str(key.value): str(value.value).partition(":")[0]
        for key, value in pairs
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
    }


def _doc_of(module: str) -> Iterator[str]:
    """The docstrings of a module's file; of all files of its folder where the folder is the method's own."""
    path = _HOME.joinpath(*module.split(".")[1:])
    folder = path if path.is_dir() else path.parent
    own = folder.parent.name in ("methods", "apply") and folder.name != "sweeps"
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    sources = sorted(folder.rglob("*.py")) if own else [file]
    if folder.name == "circuits":
        sources += [folder / "evaluate.py"]
    for source in sources:
        yield from _docstrings(ast.parse(source.read_text(encoding="utf-8")))


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            yield ast.get_docstring(node) or ""
