"""Small files in the form in which each benchmark is published; every word in them was written for these tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

N = 24  # items of a sample: each half has twelve
THINGS = ["door", "lamp", "boat", "river", "apple", "stone", "chair", "garden", "horse", "paper", "kettle", "window"]
CITIES = ["Paris", "Rome", "London", "Berlin", "Madrid", "Vienna"]
Row = dict[str, object]


def thing(i: int) -> str:
    return THINGS[i % len(THINGS)]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[Sequence[object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


def parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def mmlu(folder: Path) -> Path:
    rows = [[f"Which of these is {i} of a {thing(i)}?", "one", "two", "three", "four", "ABCD"[i % 4]] for i in range(N)]
    return table(folder / "drawing_test.csv", rows)


def mmlu_hub(folder: Path) -> Path:
    rows: list[Row] = [
        {
            "question": f"Which is {i}?",
            "subject": "drawing",
            "choices": ["one", "two", "three", "four"],
            "answer": i % 4,
        }
        for i in range(N)
    ]
    return parquet(folder / "test-00000-of-00001.parquet", rows)


def truthfulqa(folder: Path) -> Path:
    head = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    rows = [
        ["Plain", "Things", f"What is a {thing(i)} for, the {i}th?", "It is for use", "It is for use; For some use",
         "It is for nothing; It eats stones; It talks", "here"]
        for i in range(N)
    ]  # fmt: skip
    return table(folder / "TruthfulQA.csv", [head, *rows])


def truthfulqa_task(folder: Path) -> Path:
    rows = [
        {
            "question": f"What is a {thing(i)} for, the {i}th?",
            "mc1_targets": {"It is for use": 1, "It eats stones": 0},
            "mc2_targets": {"It is for use": 1, "For some use": 1, "It eats stones": 0},
        }
        for i in range(N)
    ]
    return written(folder / "mc_task.json", json.dumps(rows))


def truthfulqa_hub(folder: Path) -> Path:
    rows: list[Row] = [
        {
            "question": f"What is a {thing(i)} for, the {i}th?",
            "mc1_targets": {"choices": ["It is for use", "It eats stones"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["It is for use", "For some use", "It eats stones"], "labels": [1, 1, 0]},
        }
        for i in range(N)
    ]
    return parquet(folder / "validation.parquet", rows)


def logiqa(folder: Path) -> Path:
    blocks = [
        f"\n{'abcd'[i % 4]}\nEvery {thing(i)} here is old.\nWhich follows, the {i}th?\nA.One is old.\nB.Two are.\nC.None is.\nD.All are."
        for i in range(N)
    ]
    return written(folder / "Test.txt", "\n".join(blocks) + "\n")


def mquake(folder: Path) -> Path:
    rows = [
        {
            "case_id": i,
            "questions": [f"Where is the {thing(i)} of {name} {i}?" for name in ("Ann", "Bob", "Cid")],
            "answer": CITIES[i % 6],
            "answer_alias": ["The city"],
            "new_answer": CITIES[(i + 1) % 6],
            "new_answer_alias": [],
        }
        for i in range(N)
    ]
    return written(folder / "MQuAKE-CF-3k.json", json.dumps(rows))


def sst_sst2(folder: Path) -> Path:
    lines = [f'a {("dull", "fine")[i % 2]} film about a "{thing(i)}" in {i} parts\t{i % 2}' for i in range(N)]
    return written(folder / "dev.tsv", "\n".join(["sentence\tlabel", *lines]) + "\n")


def sst_trees(folder: Path) -> Path:
    lines = [f"({i % 5} (2 A) ({i % 5} (2 {thing(i)}) (2 film {i})))" for i in range(2 * N)]
    return written(folder / "dev.txt", "\n".join(lines) + "\n")


def ethos(folder: Path) -> Path:
    rows = [[f"I like the {thing(i)}, said {i} of them", (0.0, 1.0, 0.5, 0.33)[i % 4]] for i in range(N)]
    return table(folder / "Ethos_Dataset_Binary.csv", [["comment", "isHate"], *rows], ";")


def ag_news(folder: Path) -> Path:
    rows = [[1 + i % 4, f"A {thing(i)} was seen", f'It stood, "as {i} say", by the road.'] for i in range(N)]
    return table(folder / "test.csv", rows)


def triviaqa(folder: Path) -> Path:
    rows = [
        {
            "Question": f"In which city stands the {thing(i)} of {i} steps?",
            "QuestionId": f"q_{i}",
            "Answer": {"Value": CITIES[i % 6], "Aliases": [CITIES[i % 6], f"{CITIES[i % 6]} on the river"]},
        }
        for i in range(N)
    ]
    return written(folder / "wikipedia-dev.json", json.dumps({"Data": rows, "Domain": "Wikipedia"}))


def lre(folder: Path) -> Path:
    samples = [
        {"subject": f"{name} {thing(i)}", "object": CITIES[i % 6]} for i, name in enumerate(["Old"] * 12 + ["New"] * 12)
    ]
    found = {"name": "thing city", "prompt_templates": ["{} stands in the city of"], "samples": samples}
    written(folder / "relations" / "factual" / "thing_city.json", json.dumps(found))
    return folder / "relations"


def agenda(folder: Path) -> Path:
    lines = [
        f"a study of {thing(i)} {i}\tgood {thing(i)} ; plain method\t<task> <method>\t1 0 0 ; 0 1 1"
        f"\twe use <method_1> for <task_0> in {i} ways . it works .\t0 1 -1"
        for i in range(N)
    ]
    return written(folder / "preprocessed.test.tsv", "\n".join(lines) + "\n")


def omniglot(folder: Path) -> Path:
    from PIL import Image, ImageDraw

    home = folder / "images_background"
    for i in range(N):
        place = home / f"Alphabet{i // 6}" / f"character{i % 6 + 1:02}"
        place.mkdir(parents=True)
        for drawer in range(2):
            picture = Image.new("1", (105, 105), 1)
            at = 10 + 12 * (i % 6) + 3 * drawer
            ImageDraw.Draw(picture).line((at, 5, 100 - 7 * (i // 6), 95), fill=0, width=9)
            picture.save(place / f"{i:04}_{drawer + 1:02}.png")
    return home


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "mmlu": mmlu,
    "truthfulqa": truthfulqa,
    "logiqa": logiqa,
    "mquake": mquake,
    "sst-sst2": sst_sst2,
    "ethos": ethos,
    "ag-news": ag_news,
    "triviaqa": triviaqa,
    "lre": lre,
    "agenda": agenda,
    "omniglot": omniglot,
}
# The same benchmarks in the other forms in which they are published.
OTHERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "mmlu-hub": ("mmlu", mmlu_hub),
    "truthfulqa-task": ("truthfulqa", truthfulqa_task),
    "truthfulqa-hub": ("truthfulqa", truthfulqa_hub),
    "sst-trees": ("sst-sst2", sst_trees),
}
