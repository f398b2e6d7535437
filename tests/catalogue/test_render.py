"""`papers render`: the list loses nothing, is the same every time, and prints hostile texts harmlessly."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headatlas.catalogue import Catalogue, load
from headatlas.catalogue.describe import link_label
from headatlas.catalogue.export.parse_markdown import parse_markdown
from headatlas.catalogue.export.render_markdown import markdown, section_title
from headatlas.catalogue.files.output import write_text
from headatlas.catalogue.schema import Paper
from headatlas.cli.papers import app
from headatlas.errors import StoreError

HOSTILE = [
    "<script>alert(1)</script>",
    'x" onmouseover="alert(1)',
    "</td></tr></table><h1>mine</h1>",
    "[click](javascript:alert(1)) **bold** `code` | pipe",
    "&lt;b&gt; & &amp;",
    "<!-- -->",
    "## Not a heading",
    "a\n\nb",
]


def with_titles(catalogue: Catalogue, titles: Mapping[str, str]) -> Catalogue:
    papers = {
        id_: paper.model_copy(update={"title": titles[id_]}) if id_ in titles else paper
        for id_, paper in catalogue.papers.items()
    }
    return dataclasses.replace(catalogue, papers=MappingProxyType(papers))


def test_our_list_read_back_is_our_catalogue():
    catalogue = load()
    listed = parse_markdown(markdown(catalogue))
    assert len(listed) == len(catalogue.papers)
    assert {paper.id for paper in listed} == set(catalogue.papers)
    for row in listed:
        paper = catalogue.papers[row.id]
        assert row.title == paper.title
        assert row.date == paper.date
        assert row.heads == paper.heads
        assert row.links == [(link_label(link), link.url) for link in paper.links]
        assert row.section == section_title(paper.section)
        assert paper.summary
        assert row.summary == {part: " ".join(getattr(paper.summary, part).split()) for part in row.summary}
        assert list(row.summary) == ["innovation", "tasks", "result"]


def test_papers_stand_in_their_sections_newest_first():
    catalogue = load()
    listed = parse_markdown(markdown(catalogue))
    sections = [paper.section for paper in listed]
    assert list(dict.fromkeys(sections)) == ["2026", "2025", "2024", "2023", "Before 2023"]
    assert Counter(sections) == Counter(section_title(paper.section) for paper in catalogue.papers.values())
    for section in set(sections):
        dates = [paper.date for paper in listed if paper.section == section]
        assert dates == sorted(dates, reverse=True)  # type: ignore[type-var]


def test_the_same_catalogue_gives_the_same_bytes_in_another_process(tmp_path: Path):
    outs = [tmp_path / "a.md", tmp_path / "b.md"]
    for seed, out in enumerate(outs):
        arguments = [sys.executable, "-m", "headatlas", "papers", "render", str(out)]
        subprocess.run(arguments, check=True, env={"PYTHONHASHSEED": str(seed), "LC_ALL": "C"}, capture_output=True)
    assert outs[0].read_bytes() == outs[1].read_bytes() == markdown(load()).encode()


def test_one_changed_paper_changes_its_rows_alone(sample: Path):
    before = markdown(load(sample)).splitlines()
    path = sample / "papers/poe-2025-names.yaml"
    path.write_text(path.read_text().replace("Stories.", "Tales."))
    after = markdown(load(sample)).splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        next(line for line in after if "Tales." in line)
    ]


def test_every_internal_link_leads_somewhere():
    text = markdown(load())
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    places = set(re.findall(r'<a id="([^"]+)">', text)) | headings
    links = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= places
    assert {f"head-{id_}" for id_ in load().heads} <= links


def test_the_taxonomy_has_every_head_type_under_its_stage_and_dimension():
    catalogue = load()
    table = markdown(catalogue).split("## Taxonomy")[1].split("</table>")[0]
    names = re.findall(r'<a href="#head-([^"]+)">', table)
    assert sorted(names) == sorted(catalogue.heads)
    for stage in catalogue.stages.values():
        own = table.split(f"<b>{stage.name}</b>")[1]
        for dimension in stage.dimensions:
            row = own.split(f"<td>{dimension.name}</td>")[1].split("</tr>")[0]
            expected = {head.id for head in catalogue.heads.values() if head.dimension == dimension.id}
            assert set(re.findall(r'<a href="#head-([^"]+)">', row)) == expected
    assert table.count("</a>*") == sum(head.placed_by == "ours" for head in catalogue.heads.values())


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_texts_are_printed_and_not_obeyed(sample: Path, title: str):
    catalogue = with_titles(load(sample), {"poe-2025-names": title})
    text = markdown(catalogue)
    tags = set(re.findall(r"<\s*([a-zA-Z!/][a-zA-Z0-9-]*)", text))
    assert tags <= {
        *["a", "b", "br", "img", "table", "thead", "tbody", "tr", "th", "td"],
        *(f"/{t}" for t in ["a", "b", "table", "thead", "tbody", "tr", "th", "td"]),
    }
    assert "onmouseover=" not in re.sub(r">[^<]*<", "><", text)
    row = next(paper for paper in parse_markdown(text) if paper.id == "poe-2025-names")
    assert row.title == " ".join(title.split())
    # A blank line within a table would hand the rest of it to the Markdown parser.
    assert all("" not in table.splitlines()[1:] for table in re.findall(r"<table>.*?</table>", text, re.S))


@given(
    title=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp"]), min_size=3, max_size=60)
)
@settings(max_examples=100, deadline=None)
def test_any_title_survives_the_way_to_markdown_and_back(title: str):
    papers = {id_: load().papers[id_] for id_ in ("wang-2023-ioi", "elhage-2021-mathematical-framework")}
    small = dataclasses.replace(load(), papers=MappingProxyType(papers))
    listed = parse_markdown(markdown(with_titles(_without_others(small), {"wang-2023-ioi": title})))
    assert next(p for p in listed if p.id == "wang-2023-ioi").title == " ".join(title.split())


def _without_others(catalogue: Catalogue) -> Catalogue:
    heads = {id_: head.model_copy(update={"papers": []}) for id_, head in catalogue.heads.items()}
    return dataclasses.replace(catalogue, heads=MappingProxyType(heads))


def test_a_paper_without_summary_is_listed_all_the_same(sample: Path):
    catalogue = load(sample)
    paper: Paper = catalogue.papers["poe-2025-names"].model_copy(update={"summary": None})
    papers = MappingProxyType({**catalogue.papers, paper.id: paper})
    listed = parse_markdown(markdown(dataclasses.replace(catalogue, papers=papers)))
    assert next(p for p in listed if p.id == paper.id).summary == {}


def test_the_list_goes_to_a_file_or_to_the_terminal(sample: Path, tmp_path: Path):
    printed = CliRunner().invoke(app, ["render", "--data", str(sample)]).output
    out = tmp_path / "list.md"
    assert CliRunner().invoke(app, ["render", str(out), "--data", str(sample)]).output == f"Written: {out}\n"
    assert out.read_text(encoding="utf-8") == printed == markdown(load(sample))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["list.md"]


def test_nothing_half_written_is_left_behind(tmp_path: Path):
    target = tmp_path / "list.md"
    target.write_text("old")
    with pytest.raises(StoreError, match="is a folder"):
        write_text(tmp_path, "new")
    with pytest.raises(StoreError, match="There is no folder"):
        write_text(tmp_path / "missing" / "list.md", "new")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\udcff")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["list.md"]


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path):
    precious, link = tmp_path / "precious", tmp_path / "list.md"
    precious.write_text("keep")
    link.symlink_to(precious)
    write_text(link, "new")
    assert precious.read_text() == "keep"
    assert link.read_text() == "new"
