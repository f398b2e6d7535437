"""Masked words of sentences of the grammar: a head finds the noun of each determiner, and serves there. After Clark et al. 2019.

Which determiner stands in front of a noun hangs on whether it is one or many ("this lamp", "these lamps", "the lamp"), and the
noun may stand one to three words further on. So a masked determiner costs less for a model that has a head from
determiners to their nouns, and switching that head off costs more there than at other words.

Several heads may find the nouns, and the one that finds most need not be the one whose finding is put to use. So the head that
is needed is asked for beside it: among all heads that beat the best offset, chosen on texts of its own, measured on others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from headatlas.heads import HeadId
from headatlas.lab.construct.transformer import save
from headatlas.lab.measure import attend, without
from headatlas.lab.toy.probes import by_head
from headatlas.lab.toy.study import HELD_OUT, Claim, Panel, Study, Variant, held_out
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_bert
from headatlas.lab.training.options import TrainOptions
from headatlas.task import Batch, find_task
from headatlas.task.encoders import SHARE
from headatlas.tasks._sentences import RELATIONS
from headatlas.treebanks import _lexicon

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_LENGTH, _WIDTH, _HEADS, _LAYERS, _BATCH, _TEXTS, _EXAMPLES = 64, 128, 8, 2, 32, 4000, 96
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_OTHERS = ("the", "these", "some", "this", "every", "and", "that", "who", "to", "in", "at", "by", "is", "are", "was", "were", "she", "he")  # fmt: skip
_OTHERS_FROM = 1_000_000  # added to a seed for the texts on which a head is chosen
_MASK = _SPECIAL.index("[MASK]")


def _words(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple | list):
        for one in part:
            yield from _words(one)


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    listed = [word for name, part in sorted(vars(_lexicon).items()) if name.isupper() for word in _words(part)]
    return tuple(dict.fromkeys([*_SPECIAL, ".", ",", "?", "'s", *_OTHERS, *(word.lower() for word in listed)]))


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the grammar, in small letters, between [CLS] and [SEP]."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    place = {word: i for i, word in enumerate(_vocabulary())}
    backend = Tokenizer(models.WordLevel(place, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"'s|\w+|[^\w\s]"), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(one, place[one]) for one in ("[CLS]", "[SEP]")]
    )
    named = {f"{one.strip('[]').lower()}_token": one for one in _SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=_LENGTH, **named)


@functools.lru_cache(maxsize=4)
def _texts(n: int, seed: int) -> Batch:
    """Sentences behind each other with their gold syntax, as the detectors of syntax are asked on them; one token a word."""
    from headatlas.model import Tokenizer

    known = Tokenizer(causal=False, context=_LENGTH, vocab_size=len(_vocabulary()), hf=_tokenizer(), bos="auto")
    return find_task("syntax")(known, n, seed)


def _make(seed: int) -> Any:
    return small_bert(len(_vocabulary()), _LENGTH, _WIDTH, _HEADS, layers=_LAYERS, mlp=2 * _WIDTH, seed=seed)


def _objective(model: Any, chance: torch.Generator) -> Tensor:
    """Mean cross-entropy (nats) of a share of the words, masked."""
    texts = _texts(_TEXTS, HELD_OUT).tokens
    rows = texts[torch.randint(len(texts), (_BATCH,), generator=chance)]
    hit = (torch.rand(rows.shape, generator=chance) < SHARE) & (rows >= len(_SPECIAL))
    logits = model(rows.masked_fill(hit, _MASK)).logits
    return cross_entropy(logits[hit], rows[hit])


class _Asked:
    """Held-out texts: where determiners stand, at which word their nouns do, and what is masked of both kinds of words."""

    def __init__(self, seed: int) -> None:
        batch = _texts(_EXAMPLES, HELD_OUT + 1 + seed)
        self.tokens, word, of = batch.tokens, batch.marks["word"], batch.labels["sentence"]
        assert torch.equal(word, torch.where(word >= 0, torch.arange(_LENGTH) - 1, -1)), "a word is one token"
        there = batch.labels["relation"] == RELATIONS.index("det")
        example, at = there.nonzero(as_tuple=True)
        noun = batch.labels["heads"][example, at]
        self.pairs = example, at + 1, noun + 1  # [CLS] stands in front
        self.same = torch.zeros(len(batch), _LENGTH, _LENGTH, dtype=torch.bool)
        width = of.shape[1]
        self.same[:, 1 : width + 1, 1 : width + 1] = (of[:, :, None] == of[:, None]) & (of >= 0)[..., None]
        self.same &= ~torch.eye(_LENGTH, dtype=torch.bool)
        shifts = torch.stack([noun - at == offset for offset in range(1, 5)]).double().mean(1)
        self.offset = float(shifts.max())
        chance = held_out(seed)
        determiner = torch.zeros_like(word, dtype=torch.bool)
        determiner[example, at + 1] = True
        drawn = torch.rand(word.shape, generator=chance)
        # Half of what is masked are determiners, so that both kinds are asked about in the same run.
        self.inside = determiner & (drawn < 0.5)
        share = self.inside.sum() / ((word >= 0) & ~determiner).sum()
        self.elsewhere = (word >= 0) & ~determiner & (drawn < share)

    def losses(self, model: Any) -> tuple[float, float]:
        """Mean loss at masked determiners, and at other masked words."""
        logits = model(self.tokens.masked_fill(self.inside | self.elsewhere, _MASK)).logits
        inside, elsewhere = (cross_entropy(logits[at], self.tokens[at]).item() for at in (self.inside, self.elsewhere))
        return inside, elsewhere

    def rises(self, model: Any, head: HeadId) -> tuple[float, float]:
        """By how much either loss rises without a head."""
        inside, elsewhere = self.losses(model)
        with without(model, head):
            poorer, also = self.losses(model)
        return poorer - inside, also - elsewhere

    def found(self, pattern: Tensor) -> list[float]:
        """For each head of a pattern [example, head, query, key] the share of determiners that attend most to their noun."""
        example, at, noun = self.pairs
        rows = (pattern * self.same[:, None])[example, :, at]  # [pair, head, key]
        return (rows.argmax(-1) == noun[:, None]).double().mean(0).tolist()


def _measure(seed: int) -> Measure:
    asked, chosen = _Asked(seed), _Asked(seed + _OTHERS_FROM)

    def measured(model: Any) -> dict[str, float]:
        patterns, _ = attend(model, asked.tokens)
        each = [asked.found(pattern) for pattern in patterns]
        layer, head = max(
            ((layer, head) for layer in range(_LAYERS) for head in range(_HEADS)), key=lambda one: each[one[0]][one[1]]
        )
        inside, elsewhere = asked.losses(model)
        poorer, also = asked.rises(model, HeadId(layer, head))
        needed = _needed_head(model, chosen)
        more, beside = (0.0, 0.0) if needed is None else asked.rises(model, needed)
        named = {
            name: value for one, values in enumerate(each) for name, value in by_head("nouns", one, values).items()
        }
        return {
            "determiners": inside, "elsewhere": elsewhere, **named, "nouns": each[layer][head], "offset": asked.offset,
            "layer": float(layer), "head": float(head),
            "rise at determiners": poorer, "rise elsewhere": also,
            "needed layer": float(needed.layer) if needed else -1.0, "needed head": float(needed.head) if needed else -1.0,
            "needed at determiners": more, "needed elsewhere": beside,
        }  # fmt: skip

    return measured


def _needed_head(model: Any, texts: _Asked) -> HeadId | None:
    """Of the heads that find more nouns than the best offset does, the one without which determiners lose most beside other words."""
    patterns, _ = attend(model, texts.tokens)
    each = [texts.found(pattern) for pattern in patterns]
    finders = [HeadId(i, j) for i, row in enumerate(each) for j, share in enumerate(row) if share > texts.offset]

    def difference(head: HeadId) -> float:
        inside, elsewhere = texts.rises(model, head)
        return inside - elsewhere

    return max(finders, key=difference, default=None)


def _save(model: Any, folder: Path) -> None:
    save(model, folder)
    _tokenizer().save_pretrained(folder)


masked_words = Study(
    name="masked-words",
    about="sentences of the grammar with masked words: a head from determiners to their nouns",
    paper="clark-2019-what-does-bert-look-at",
    variants=(Variant("plain", _make, _objective, TrainOptions(2000, learning_rate=2e-3, decay="cosine", per_decade=8), _measure, save=_save),),
    claims=(
        Claim("determiners that the best head finds the noun of, above the best offset",
              lambda r: r["plain"].last("nouns") - r["plain"].last("offset"), least=0.1),
        Claim("no head does before training", lambda r: r["plain"].series("nouns")[0] - r["plain"].series("offset")[0], most=0.1),
        Claim("loss of masked determiners (nats; 1.55 by their frequency, 1.10 where the noun's number is known)",
              lambda r: r["plain"].last("determiners"), most=1.3),
        Claim("without that head determiners lose more than other words do (nats)",
              lambda r: r["plain"].last("rise at determiners") - r["plain"].last("rise elsewhere"), least=0.05),
        Claim("of the heads that find nouns one is needed: without it, chosen on other texts, determiners lose more than other words do (nats)",
              lambda r: r["plain"].last("needed at determiners") - r["plain"].last("needed elsewhere"), least=0.05),
    ),
    panels=(
        Panel("loss of masked words (nats)", {"determiners": ("plain", "determiners"), "other words": ("plain", "elsewhere")}),
        Panel("determiners that find their noun", {"best head": ("plain", "nouns"), "best offset": ("plain", "offset")}),
        Panel("rise of the loss without that head", {"determiners": ("plain", "rise at determiners"), "other words": ("plain", "rise elsewhere")}),
    ),
    ablated="determiners",
)  # fmt: skip
