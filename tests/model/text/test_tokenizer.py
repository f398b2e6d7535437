"""The tokenizer as tasks see it: start tokens said openly, ordinary words found, for every way of spelling tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from tokenizers.models import Unigram, WordLevel, WordPiece
from transformers import PreTrainedTokenizerFast

from headatlas.errors import BadInput, SourceError, UnfitTask
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.task import Vocabulary
from tests.model.source_files import byte_backend

CORPUS = [
    "the cat and the dog went to the store with Mary and John , unbelievable as it is .",
    "the dog and the cat saw Mary 17 times and the store was open for the dog and the cat .",
    "believers are able to believe what is unbelievable to the reader of the book about the dog .",
] * 3
_LETTERS = "abcdefghijklmnopqrstuvwxyzM,▁"
# Deliberately not listed in the order of the scores.
UNIGRAM = [
    *((piece, 0.0) for piece in ("<unk>", "<s>", "</s>", "<0x0A>")),
    *((letter, -9.0) for letter in _LETTERS),
    *(("▁dog", -4.0), ("▁the", -1.0), ("▁cat", -3.5), ("▁and", -2.0), ("▁to", -2.5), ("▁Mary", -5.0)),
    *(
        ("▁un", -6.0),
        ("believ", -6.5),
        ("able", -5.5),
        ("▁,", -3.0),
        ("▁went", -5.2),
        ("▁store", -5.4),
        ("▁with", -3.2),
    ),
]


def save(folder: Path, backend: Backend, **roles: str) -> Path:
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    hf.save_pretrained(folder)
    return folder


def load(folder: Path, *, causal: bool = True, vocab_size: int = 1000, bos: str = "auto") -> Tokenizer:
    return Tokenizer.load(folder, causal=causal, context=32, vocab_size=vocab_size, bos=bos)


@pytest.fixture
def bytes_folder(tmp_path: Path) -> Path:
    return save(tmp_path / "bytes", byte_backend(), bos_token="<|im_start|>", eos_token="<|endoftext|>")


@pytest.fixture
def unigram_folder(tmp_path: Path) -> Path:
    """As in T5: a space is put before each text, tokens have scores, bytes stand in for unknown characters."""
    backend = Backend(Unigram(UNIGRAM, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    marks = [("<s>", 1), ("</s>", 2)]
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    return save(tmp_path / "unigram", backend, unk_token="<unk>")


@pytest.fixture
def wordpiece_folder(tmp_path: Path) -> Path:
    backend = Backend(WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=110, special_tokens=special))
    pair = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return save(tmp_path / "wordpiece", backend, **roles)


@pytest.fixture
def words_folder(tmp_path: Path) -> Path:
    words = ["<unk>", "<bos>", *(f"w{i}" for i in range(50)), *(str(i) for i in range(10)), "+", "="]
    assert len(words) == 64
    backend = Backend(WordLevel({word: one for one, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return save(tmp_path / "words", backend, unk_token="<unk>", bos_token="<bos>")


def words_of(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(tokenizer.plain_ids())


def test_the_start_token_is_what_the_tokenizer_adds(unigram_folder: Path, wordpiece_folder: Path) -> None:
    tokenizer = load(unigram_folder)
    assert (tokenizer.bos, tokenizer.eos) == (1, None)
    assert tokenizer.bos_policy == "<s> (id 1): the tokenizer adds it"
    encoder = load(wordpiece_folder, causal=False)
    assert (encoder.bos, encoder.eos) == (2, 3)
    assert encoder.bos_policy == "[CLS] (id 2): the tokenizer adds it; end [SEP] (id 3)"


def test_else_it_is_the_bos_token_the_tokenizer_defines(bytes_folder: Path, words_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    assert (tokenizer.bos, tokenizer.eos) == (1, None)
    assert tokenizer.bos_policy == "<|im_start|> (id 1): the tokenizer adds none, its bos_token is used"
    assert load(words_folder).bos == 1


def test_else_there_is_none_and_the_policy_says_so(tmp_path: Path) -> None:
    tokenizer = load(save(tmp_path / "none", byte_backend()))
    assert tokenizer.bos is None
    assert tokenizer.bos_policy == "none: the tokenizer adds no token and defines no start token"


def test_an_encoder_without_a_template_uses_its_cls_and_sep(tmp_path: Path) -> None:
    roles = {"cls_token": "<|im_start|>", "sep_token": "<|endoftext|>"}
    tokenizer = load(save(tmp_path / "plain", byte_backend(), **roles), causal=False)
    assert (tokenizer.bos, tokenizer.eos) == (1, 0)


def test_the_start_token_can_be_chosen_or_left_out(bytes_folder: Path) -> None:
    chosen = load(bytes_folder, bos="<|endoftext|>")
    assert (chosen.bos, chosen.bos_policy) == (0, "<|endoftext|> (id 0), as asked")
    assert load(bytes_folder, bos="none").bos is None
    with pytest.raises(BadInput, match=r"'<\|endoftxt\|>'.*Did you mean '<\|endoftext\|>'"):
        load(bytes_folder, bos="<|endoftxt|>")


def test_a_start_token_beyond_the_models_vocabulary_is_not_used(tmp_path: Path) -> None:
    backend = byte_backend()
    backend.add_special_tokens([AddedToken("<late>", special=True)])
    folder, size = save(tmp_path / "late", backend, bos_token="<late>"), backend.get_vocab_size()
    assert load(folder, vocab_size=size).bos == size - 1
    assert load(folder, vocab_size=size - 1).bos is None
    with pytest.raises(BadInput, match="<late>"):
        load(folder, vocab_size=size - 1, bos="<late>")


@pytest.mark.parametrize("kind", ["bytes", "unigram", "wordpiece", "words"])
def test_text_goes_in_and_comes_out_without_start_and_end(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load(request.getfixturevalue(f"{kind}_folder"), causal=kind != "wordpiece")
    checked: Vocabulary = tokenizer
    text = "w3 w7 w3 5" if kind == "words" else "the cat and the dog went to the store with the dog and the cat"
    ids = checked.encode(text)
    assert tokenizer.bos not in ids
    assert None is tokenizer.eos or tokenizer.eos not in ids
    assert checked.decode(ids) == text
    assert checked.decode(ids[0]) == checked.decode(ids[:1])
    assert len(tokenizer.encode(f"{text} " * 20)) >= 20 * 4  # the file's own truncation and padding do not apply
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("kind", ["bytes", "unigram", "wordpiece"])
def test_a_single_word_is_the_token_it_has_inside_a_text(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load(request.getfixturevalue(f"{kind}_folder"), causal=kind != "wordpiece")
    one = tokenizer.single(" dog")
    assert one is not None
    assert tokenizer.encode("the cat and the dog")[-1] == one
    assert tokenizer.single(" zebra crossing") is None
    assert tokenizer.single("") is None


def test_unknown_and_special_words_are_no_single_tokens(words_folder: Path, bytes_folder: Path) -> None:
    words = load(words_folder)
    assert words.single("w3") == words.single(" w3") == 5
    assert words.single("never") is None
    assert load(bytes_folder).single("<|im_start|>") is None
    assert load(words_folder, vocab_size=5).single("w3") is None


def test_plain_ids_are_words_and_their_pieces_only(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    plain = words_of(tokenizer)
    assert {" the", " dog", "er", "a"} <= set(plain)
    assert not {" ", "!", "<|im_start|>", "7", "\ufffd"} & set(plain)
    assert all(any(character.isalpha() for character in word) for word in plain)
    assert len(plain[-1]) == 1  # single letters, which stand first in the vocabulary, come last
    assert len(plain[0]) > 1


def test_plain_ids_encode_back_to_themselves(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    for one in tokenizer.plain_ids():
        assert tokenizer.encode(tokenizer.decode(one)) == [one]


def test_tokens_that_no_text_can_produce_are_left_out(tmp_path: Path) -> None:
    backend = byte_backend()
    state = json.loads(backend.to_str())
    state["model"]["vocab"]["zyzzyva"] = len(state["model"]["vocab"])  # a word that no merge leads to
    tokenizer = load(save(tmp_path / "glitch", Backend.from_str(json.dumps(state))))
    assert "zyzzyva" not in words_of(tokenizer)
    assert len(tokenizer.plain_ids()) == len(load(save(tmp_path / "clean", backend)).plain_ids())


def test_plain_ids_are_ordered_by_score_where_there_are_scores(unigram_folder: Path) -> None:
    tokenizer = load(unigram_folder)
    state = json.loads((unigram_folder / "tokenizer.json").read_text())["model"]["vocab"]
    ids = tokenizer.plain_ids()
    longer = [one for one in ids if len(state[one][0]) > 1]
    assert [state[one][1] for one in longer] == sorted((state[one][1] for one in longer), reverse=True)
    assert ids[: len(longer)] == longer
    assert tokenizer.pieces(ids)[:4] == [" the", " and", " to", " with"]
    assert not {3, 0, 1, 2} & set(ids)  # the byte <0x0A> and the special tokens


def test_plain_ids_of_word_pieces_are_ordered_by_id_without_unused_ones(wordpiece_folder: Path) -> None:
    tokenizer = load(wordpiece_folder, causal=False)
    plain = words_of(tokenizer)
    assert {" the", " dog"} <= set(plain)
    assert any(not word.startswith(" ") for word in plain)  # ##pieces
    assert not {" [unused1]", " .", " 17"} & set(plain)
    longer = [one for one in tokenizer.plain_ids() if len(tokenizer.pieces([one])[0].strip()) > 1]
    assert longer == sorted(longer)


def test_a_toy_vocabulary_of_words_is_all_plain_but_its_marks(words_folder: Path) -> None:
    tokenizer = load(words_folder)
    assert words_of(tokenizer)[:50] == [f"w{i}" for i in range(50)]
    assert len(tokenizer.plain_ids()) == 60  # 50 words, 10 numbers; not + = <unk> <bos>


def test_plain_ids_stay_inside_the_models_vocabulary(bytes_folder: Path) -> None:
    assert max(load(bytes_folder).plain_ids()) >= 300
    assert max(load(bytes_folder, vocab_size=300).plain_ids()) < 300


def test_plain_ids_cannot_be_spoilt_by_a_caller(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    expected = tokenizer.plain_ids()
    tokenizer.plain_ids().clear()
    assert tokenizer.plain_ids() == expected


def test_pieces_keep_spaces_and_show_line_breaks(bytes_folder: Path, words_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    assert "".join(tokenizer.pieces(tokenizer.encode("the dog\n\tthe cat"))) == "the dog⏎⇥the cat"
    assert tokenizer.pieces([1]) == ["<|im_start|>"]
    assert tokenizer.pieces([999]) == ["[999]"]  # only the model's padded embedding knows it
    assert load(words_folder).pieces([2, 3]) == ["w0", "w1"]


def test_word_starts_agree_for_all_spellings(bytes_folder: Path, unigram_folder: Path, wordpiece_folder: Path) -> None:
    text = "the catdog , Mary and the cat"
    for folder in (bytes_folder, unigram_folder, wordpiece_folder):
        tokenizer = load(folder, causal=folder != wordpiece_folder)
        ids = tokenizer.encode(text)
        marks = tokenizer.word_starts(ids)
        assert len(marks) == len(ids)
        words = [mark for mark, piece in zip(marks, tokenizer.pieces(ids), strict=True) if piece.strip()]
        assert sum(words) == len(text.split())
        assert not all(words)


def test_punctuation_and_special_tokens_start_anew(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    ids = [1, *tokenizer.encode("z,z"), 1, *tokenizer.encode("zz z")]
    assert tokenizer.pieces(ids) == ["<|im_start|>", "z", ",", "z", "<|im_start|>", "z", "z", " ", "z"]
    assert tokenizer.word_starts(ids) == [True, True, True, True, True, True, False, True, True]


def test_half_characters_belong_to_one_word(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    ids = tokenizer.encode("ü")
    assert len(ids) == 2
    assert tokenizer.word_starts(ids) == [True, False]


def test_a_shorter_reading_leaves_the_tokenizer_as_it_is(bytes_folder: Path) -> None:
    tokenizer = load(bytes_folder)
    shorter = tokenizer.within(8)
    assert (shorter.context, tokenizer.context) == (8, 32)
    assert tokenizer.within(100).context == 32
    assert (shorter.bos, shorter.plain_ids()) == (tokenizer.bos, tokenizer.plain_ids())


def test_a_bare_vocabulary_has_ids_and_no_text() -> None:
    bare = Tokenizer.bare(64, 32, causal=True, bos=3)
    assert (bare.bos, bare.eos, bare.has_text) == (3, None, False)
    assert bare.plain_ids() == [one for one in range(64) if one != 3]
    assert bare.pieces([5, 6]) == ["5", "6"]
    assert "id 3" in bare.bos_policy
    for call in (
        lambda: bare.encode("x"),
        lambda: bare.decode(3),
        lambda: bare.single("x"),
        lambda: bare.word_starts([1]),
    ):
        with pytest.raises(UnfitTask, match="no tokenizer"):
            call()


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "BPE"'])
def test_a_damaged_tokenizer_is_named(bytes_folder: Path, content: str) -> None:
    (bytes_folder / "tokenizer.json").write_text(content)
    with pytest.raises(SourceError, match=str(bytes_folder)) as caught:
        load(bytes_folder)
    assert "\n" not in str(caught.value)
