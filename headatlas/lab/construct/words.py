"""A small vocabulary of plain English words, and a tokenizer for it, so that planted models can read text."""

# ruff: noqa: SIM905 (hundreds of words read better as text than as a list)

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headatlas.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, UNKNOWN = "<bos>", "<unk>"
PIECES = r"[^\W\d_]+|\d|_|[^\w\s]"  # what the tokenizer splits texts into
SMALLEST = 128
_DELIMITERS = [".", ",", ";", ":", "!", "?"]
_MARKS = ["(", ")", "'", '"']
_SEQUENCES = (
    tuple("0123456789"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
    tuple("January February March April May June July August September October November December".split()),
    tuple("one two three four five six seven eight nine ten eleven twelve".split()),
)
# The words that fit the smallest vocabulary: enough for sentences about who gave what to whom.
_CORE = """
    Then and went to the store gave a ring garden school house station drink snack had lot of fun at in is
""".split()
_NAMES = """
    Mary John James Michael David Sarah Jessica Daniel Robert Laura Emily Andrew Thomas Rachel Anna Kevin Alice Paul
    Lisa Eric Amy Adam Kate Scott Maria Brian Julia Peter Jason Emma Steven Simon Karen Helen Henry Lucy Martin Nancy
    Oscar Ruth Susan Walter William Martha Oliver Noah Leo Linda Jane George Ella Edward Clara Charles Betty Arthur
    Diana Felix Gary Hannah
""".split()
# People, places and things: with these, prompts about givers and receivers are read without unknown words.
_STORY = """
    office bakery farm library hotel market church restaurant hospital park river castle beach bank kitchen book ticket
    letter basket guitar bottle key map cake hat watch pencil flower lamp coin phone knife box day walked There handed
    On spent hours Before leaving While were waiting near passed As came out offered Last week met by chance Without
    word showed Once reached In evening cleaned together end brought found behind After some thought left it Although
    argued sent friends drove where sold During break talked outside while lent Since both worked often carried over At
    noon bought close searched for When turned up returned promised give Friends
""".split()
_COMMON = """
    that was on with as he be his not they but from or she you which an are their we her been has have this will would
    what all when who more if no so said its about into than them can only other time new could these may first do any
    like my now such our man me even most made after also did many must through back years much your way well down
    should because each just those people how too little state good very make world still own see men work long get here
    between life being under never same another know last might us great old year off against go right used take The
    kiss bone basketball computer necklace decided working thinking going wanted argument got lunch red green blue
    yellow black white orange purple dog cat horse bird fish mouse lion apple bread milk water tea coffee road city town
    country king queen doctor teacher friend mother father brother sister child door window table chair number name
    magic special secret code story question answer hand head eye face heart night morning summer winter spring autumn
    rain snow wind sun moon star sea hill tree stone gold silver iron glass paper music song dance game ball play run
    walk talk look find tell ask seem feel try leave call keep let begin show hear move live believe hold bring happen
    write sit stand lose pay meet include continue set learn change lead understand follow stop create speak read allow
    add spend grow open win offer remember love consider appear buy wait serve die send expect build stay fall cut reach
    kill remain suggest raise pass sell require report small large big high different early young important few public
    bad able strong possible whole free true full sure clear recent certain happy hot cold slow fast far
""".split()


@dataclass(frozen=True)
class Words:
    """A vocabulary with its classes of tokens: names, delimiters, and sequences that have a next member.

    classes: further classes, by name. features: what tokens carry beside their own code, by the name of a block of the stream:
    token -> {token whose code it carries there: how much of it}, such as a word's initial letter.
    """

    tokens: tuple[str, ...]
    names: tuple[int, ...]
    delimiters: tuple[int, ...]
    sequences: tuple[tuple[int, ...], ...]
    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    features: Mapping[str, Mapping[int, Mapping[int, float]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bos(self) -> int:
        """The id that stands at the start of each text."""
        return 0

    @property
    def ordinals(self) -> tuple[int, ...]:
        """All members of the sequences."""
        return tuple(member for sequence in self.sequences for member in sequence)

    @property
    def every_class(self) -> Mapping[str, tuple[int, ...]]:
        """All classes of tokens: names, delimiters, ordinals, and what this vocabulary has beside them."""
        return {"names": self.names, "delimiters": self.delimiters, "ordinals": self.ordinals, **self.classes}

    def members(self, name: str) -> tuple[int, ...]:
        """The ids of the class called `name`. Raises BadInput for a class that the vocabulary lacks."""
        if name not in self.every_class:
            raise BadInput(
                f"The vocabulary has no class of tokens called '{name}'.", f"It has: {', '.join(self.every_class)}."
            )
        return self.every_class[name]


@functools.cache
def words(size: int) -> Words:
    """The vocabulary of `size` tokens; where the list of words ends, pronounceable made-up words fill it."""
    if size < SMALLEST:
        raise BadInput(f"A planted model needs a vocabulary of at least {SMALLEST} tokens, got {size}.")
    members = [word for sequence in _SEQUENCES for word in sequence]
    plain = [*_CORE, *_NAMES[:20], *members, *_STORY, *_NAMES[20:40], *_COMMON, *_NAMES[40:]]
    texts = list(dict.fromkeys([BOS, UNKNOWN, *_DELIMITERS, *_MARKS, *plain]))
    texts += [word for word in _made_up(size) if word not in set(texts)]
    texts = texts[:size]
    place = {text: i for i, text in enumerate(texts)}
    return Words(
        tokens=tuple(texts),
        names=tuple(place[name] for name in _NAMES if name in place),
        delimiters=tuple(place[mark] for mark in _DELIMITERS),
        sequences=tuple(tuple(place[member] for member in sequence) for sequence in _SEQUENCES),
    )


def words_of(
    texts: Iterable[str],
    *,
    classes: Mapping[str, Iterable[str]] | None = None,
    features: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    sequences: Sequence[Sequence[str]] = (),
    more: Iterable[str] = (),
) -> Words:
    """The vocabulary of `texts`, most frequent words first, so that a planted model reads them without unknown words.

    classes, features and sequences are as in `Words`, with words in the place of ids; words that no text holds are added.
    A class "names" is the vocabulary's class of names. more: further tokens; pieces of words are written "##ing".
    """
    classes, features = dict(classes or {}), features or {}
    counts = Counter(word for text in texts for word in re.findall(PIECES, text))
    carried = [word for feature in features.values() for owner, parts in feature.items() for word in (owner, *parts)]
    listed = [*(word for members in classes.values() for word in members), *carried, *itertools.chain(*sequences)]
    ordered = [word for word, _ in counts.most_common()]
    tokens = tuple(dict.fromkeys([BOS, UNKNOWN, *_DELIMITERS, *_MARKS, *ordered, *more, *listed]))
    place = {token: i for i, token in enumerate(tokens)}
    ids = {name: tuple(dict.fromkeys(place[word] for word in members)) for name, members in classes.items()}
    return Words(
        tokens=tokens,
        names=ids.pop("names", ()),
        delimiters=tuple(place[mark] for mark in _DELIMITERS),
        sequences=tuple(tuple(place[member] for member in sequence) for sequence in sequences),
        classes=ids,
        features={
            block: {
                place[owner]: {place[word]: much for word, much in parts.items()} for owner, parts in feature.items()
            }
            for block, feature in features.items()
        },
    )


def _made_up(count: int) -> list[str]:
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    made = ("".join(parts) for parts in itertools.product(syllables, repeat=3))
    return list(itertools.islice(made, count))


def tokenizer(vocabulary: Words, context: int) -> PreTrainedTokenizerFast:
    """A fast tokenizer for `vocabulary`: words, single digits, punctuation; spaces carry nothing; bos in front.

    Words are whole, or split into the longest pieces that are known where the vocabulary has pieces ("##ing").
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    place = {token: i for i, token in enumerate(vocabulary.tokens)}
    if any(token.startswith("##") for token in vocabulary.tokens):
        backend = Tokenizer(models.WordPiece(place, unk_token=UNKNOWN))
        backend.decoder = decoders.WordPiece(cleanup=False)
    else:
        backend = Tokenizer(models.WordLevel(place, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, place[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, unk_token=UNKNOWN, eos_token=BOS, model_max_length=context
    )
