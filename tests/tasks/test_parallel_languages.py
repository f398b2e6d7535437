"""Parallel texts are read back from their tokens: all five say the same, sentence by sentence."""

import torch

from headatlas.task import find_task
from headatlas.tasks._prompts import table
from tests import toys


def test_five_texts_in_a_row_say_the_same_in_five_languages():
    tokenizer, data = toys.smollm2_vocabulary(), table("parallel_languages")

    def meant(sentence: str, language: int) -> dict[str, int]:
        """Which line of the table stands in the sentence, by slot: the longest that does."""
        found = {}
        for slot in ("time", "subject", "verb", "object", "place"):
            lines = [line.split(" | ")[language] for line in data[slot]]
            inside = {i: line for i, line in enumerate(lines) if f" {line.lower()} " in sentence}
            found[slot] = max(inside, key=lambda i: len(inside[i]))
        return found

    task = find_task("parallel-languages")
    for one, first in ((task, "time"), (task.second, "subject")):
        batch = one(tokenizer, 10)
        assert batch.labels["language"].tolist() == [0, 1, 2, 3, 4] * 2
        assert batch.facts["languages"] == ["english", "french", "german", "spanish", "italian"]
        for start in (0, 5):
            told = []
            for language in range(5):
                whole = tokenizer.decode(batch.tokens[start + language].tolist()[1:]).split(". ")[
                    :-1
                ]  # the last sentence may be cut
                told.append([meant(f" {sentence.lower().replace(',', ' ,')} ", language) for sentence in whole])
                assert whole[0].lower().startswith(data[first][told[-1][0][first]].split(" | ")[language].lower())
            assert min(map(len, told)) >= 2
            for others in told[1:]:
                for mine, other in zip(told[0], others, strict=False):
                    assert mine == other
        for row, mixed in zip(batch.tokens, batch.control.tokens, strict=True):
            assert sorted(row.tolist()) == sorted(mixed.tolist())
            assert not torch.equal(row, mixed)
