"""The written data of tasks, read strictly."""

import string
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

DATA = Path(str(files("headatlas") / "tasks" / "data"))
TABLES = sorted(DATA.rglob("*.yaml"))
TEXTS = sorted((DATA / "prose").glob("*.txt"))


class Strict(yaml.SafeLoader):
    """A loader that refuses a mapping with the same key twice, where plain YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key, count in Counter(keys).items() if count > 1]
        assert not twice, f"keys given twice: {twice}"
        return super().construct_mapping(node, deep)


def load(name: str) -> dict[str, Any]:
    return yaml.load((DATA / name).read_text(encoding="utf-8"), Strict)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str), f"{path}: the key {key!r} needs quotes"
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def halves(value: Any, path: str = "") -> Iterator[tuple[str, set[str], set[str]]]:
    if isinstance(value, dict):
        if {"find", "test"} <= set(value):
            yield path, set(value["find"]), set(value["test"])
        for key, inner in value.items():
            yield from halves(inner, f"{path}/{key}")


def passages(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n%%\n")


def slots(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}
