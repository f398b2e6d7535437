"""`papers export`: JSON, CSV and Atom that other programs read back."""

from __future__ import annotations

import csv
import datetime
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headatlas.catalogue import load
from headatlas.catalogue.export.atom_feed import as_atom
from headatlas.catalogue.export.records import as_csv, as_json
from headatlas.catalogue.schema import Benchmark, Claim, HeadType, Method, Paper, PublishedCircuit, Stage
from headatlas.cli.papers import app
from tests.catalogue.test_render import HOSTILE, with_titles

ATOM = "{http://www.w3.org/2005/Atom}"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_json_holds_every_entry_and_reads_back_to_the_same():
    catalogue = load()
    data = json.loads(as_json(catalogue))
    assert data["schema"] == "headatlas/catalogue/1"
    for key, kind, own in (
        ("papers", Paper, catalogue.papers),
        ("head_types", HeadType, catalogue.heads),
        ("stages", Stage, catalogue.stages),
        ("methods", Method, catalogue.methods),
        ("benchmarks", Benchmark, catalogue.benchmarks),
        ("circuits", PublishedCircuit, catalogue.circuits),
        ("claims", Claim, catalogue.claims),
    ):
        entries = [{name: value for name, value in entry.items() if name != "stages"} for entry in data[key]]
        back = {entry["id"]: kind.model_validate(entry) for entry in entries}
        assert back == dict(own), key


def test_csv_has_a_row_a_paper():
    catalogue = load()
    table = rows(as_csv(catalogue))
    assert sorted(row["id"] for row in table) == sorted(catalogue.papers)
    for row in table:
        paper = catalogue.papers[row["id"]]
        assert row["title"] == paper.title
        assert row["date"] == str(paper.date)
        assert row["heads"] == "; ".join(paper.heads)
        assert paper.summary
        assert row["result"] == paper.summary.result


@pytest.mark.parametrize("title", [*HOSTILE, 'say "x", y;\nz', "=HYPERLINK(1)", "+1", "@SUM(A1)", "-2"])
def test_csv_keeps_hostile_titles_and_runs_no_formula(sample: Path, title: str):
    table = rows(as_csv(with_titles(load(sample), {"poe-2025-names": title})))
    cell = next(row["title"] for row in table if row["id"] == "poe-2025-names")
    assert cell == (f"'{title}" if title[0] in "=+-@" else title)
    assert cell[0] not in "=+-@"


def test_the_feed_is_a_valid_atom_feed_of_all_papers():
    catalogue = load()
    feed = ElementTree.fromstring(as_atom(catalogue, address="https://example.org/feed.atom"))
    assert feed.tag == f"{ATOM}feed"
    for name in ("title", "id", "updated"):
        assert len(feed.findall(f"{ATOM}{name}")) == 1, name
    assert feed.find(f"{ATOM}author/{ATOM}name") is not None
    assert [link.get("href") for link in feed.findall(f"{ATOM}link")] == ["https://example.org/feed.atom"]
    entries = feed.findall(f"{ATOM}entry")
    assert len(entries) == len(catalogue.papers)
    ids = [entry.findtext(f"{ATOM}id") for entry in entries]
    assert len(set(ids)) == len(catalogue.papers)
    dates = []
    for entry in entries:
        for name in ("title", "id", "updated", "published", "summary"):
            assert len(entry.findall(f"{ATOM}{name}")) == 1, name
        link = entry.find(f"{ATOM}link")
        assert link is not None
        assert link.get("rel") == "alternate"
        paper = catalogue.papers[str(entry.findtext(f"{ATOM}id")).rpartition("/")[2]]
        assert entry.findtext(f"{ATOM}title") == paper.title
        assert link.get("href") in {own.url for own in paper.links}
        moment = datetime.datetime.fromisoformat(str(entry.findtext(f"{ATOM}published")))
        assert moment.date() == paper.date
        assert moment.tzinfo is not None
        dates.append(moment)
        assert [own.get("term") for own in entry.findall(f"{ATOM}category")] == paper.heads
    assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize("title", HOSTILE)
def test_the_feed_shows_hostile_titles_as_text(sample: Path, title: str):
    feed = ElementTree.fromstring(as_atom(with_titles(load(sample), {"poe-2025-names": title})))
    assert title in [entry.findtext(f"{ATOM}title") for entry in feed.findall(f"{ATOM}entry")]
    assert not list(feed.iter("script"))


def test_the_command_writes_each_format(sample: Path, tmp_path: Path):
    for name, text in (("json", as_json(load(sample))), ("csv", as_csv(load(sample))), ("atom", as_atom(load(sample)))):
        out = tmp_path / f"papers.{name}"
        result = CliRunner().invoke(app, ["export", "--format", name, "--out", str(out), "--data", str(sample)])
        assert result.exit_code == 0
        assert out.read_text(encoding="utf-8") == text
        assert CliRunner().invoke(app, ["export", "--format", name, "--data", str(sample)]).output == text
    wrong = CliRunner().invoke(app, ["export", "--format", "csv", "--address", "https://x.org"])
    assert "--address is for Atom feeds" in str(wrong.exception)
    assert CliRunner().invoke(app, ["export", "--format", "xls"]).exit_code == 2


def test_parquet_tables_read_back_to_every_entry(tmp_path: Path):
    import pyarrow.parquet as pq
    import yaml

    folder = tmp_path / "data"
    result = CliRunner().invoke(app, ["export", "--format", "parquet", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    catalogue = load()
    whole = json.loads(as_json(catalogue))
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert {one["data_files"] for one in front["configs"]} == {path.name for path in folder.glob("*.parquet")}
    for kind in ("papers", "head_types", "claims", "circuits", "methods", "benchmarks"):
        table = pq.read_table(folder / f"{kind}.parquet").to_pylist()
        assert f"{len(table)} rows" in card
        assert len(table) == len(whole[kind])
        for row, entry in zip(table, whole[kind], strict=True):
            for name, value in entry.items():
                assert f"`{name}`" in card
                plain = isinstance(value, str) or value is None or not isinstance(row[name], str)
                assert (row[name] if plain else json.loads(row[name])) == value, (kind, name)


def test_parquet_needs_a_folder_that_is_not_there(tmp_path: Path):
    from headatlas.errors import HeadAtlasError

    for more, said in (([], "Add --out FOLDER"), (["--out", str(tmp_path)], "exists")):
        result = CliRunner().invoke(app, ["export", "--format", "parquet", *more])
        assert isinstance(result.exception, HeadAtlasError)
        assert said in str(result.exception)
