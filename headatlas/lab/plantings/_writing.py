"""Writes small models that read real text: a Llama with the built-in tokenizer whose heads are stated as what they see and write.

The residual stream has named blocks, turned together into a random basis. A token's embedding says what stands in which
block; a head is a sum of matches between a block at the query and one at the key, and of maps from a block at the key to
one at the query. One long constant makes the norms a fixed factor (see docs/lab.md); MLPs are zero. All places that are not
asked for hold noise heads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import Model, Tokenizer, attach
from headatlas.model.sources.resolve import resolve

SIZE = 128  # of a head: 64 rotary pairs, pair i turns by 10^(-i/8) a token
PAIRS = SIZE // 2
STILL = 32  # pairs from here on turn by less than 0.03 over the context: they compare contents
CONSTANT = 16.0  # length of the constant beside codes of length 1
SINK = 16.0  # the logit of the start token, which a target must exceed
CONTEXT = 256
NOISES = (
    0.0,
    0.02,
    0.05,
)  # superposition noise, by seed: the size of a random mixture of everything else beside each vector
JUNK = 24  # dimensions that only noise heads and garbage use


@dataclass(frozen=True)
class See:
    """A term of a head's attention logits: `gain` times the product of a block at the query and one at the key."""

    query: str
    key: str
    gain: float


@dataclass(frozen=True)
class Near:
    """A term of a head's attention logits that is `gain` at a distance of `offset` tokens and falls off around it.

    pairs: the rotary pairs it is made of: fast ones (0 to 20) single one distance out, slower ones prefer nearer keys.
    """

    gain: float
    offset: int = 0
    pairs: tuple[int, ...] = tuple(range(21))


@dataclass(frozen=True)
class Put:
    """What a head writes: `gain` times what stands in block `read` at the key, into block `to`; through `map` [read, to] if given."""

    read: str
    to: str
    gain: float = 1.0
    map: Tensor | None = None


@functools.cache
def vocabulary() -> Tokenizer:
    """The tokenizer of the built-in model."""
    return Tokenizer.load(resolve("smollm2-135m").folder, causal=True, context=CONTEXT, vocab_size=49152)


def codes(names: Iterable[Any], size: int, generator: torch.Generator) -> dict[Any, Tensor]:
    """A random vector of length 1 [size] for each name."""
    return {name: torch.nn.functional.normalize(torch.randn(size, generator=generator), dim=0) for name in names}


def telling(phrases: Iterable[str]) -> dict[str, int]:
    """For each phrase that one of its tokens tells from all others: that token, the last of them."""
    words = vocabulary()
    tokens = {phrase: words.encode(f" {phrase}") for phrase in phrases}
    uses: dict[int, int] = {}
    for row in tokens.values():
        for one in set(row):
            uses[one] = uses.get(one, 0) + 1
    own = {phrase: [one for one in row if uses[one] == 1] for phrase, row in tokens.items()}
    return {phrase: row[-1] for phrase, row in own.items() if row}


class Written:
    """A model under construction. blocks: name -> dimensions; `one` (1 everywhere), `text` (1 but at the start token), `bos` and `junk` come with it."""

    def __init__(self, blocks: Mapping[str, int], *, layers: int, heads: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.layers, self.heads, self.noise = layers, heads, NOISES[seed % len(NOISES)]
        sizes = {"one": 1, "text": 1, "bos": 1, "junk": JUNK, **blocks}
        sizes["spare"] = -sum(sizes.values()) % heads  # Llama wants a multiple
        self._at: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            self._at[name] = slice(start, start + size)
            start += size
        self.width = start
        self.embedding = torch.zeros(49152, self.width)
        self.unembedding = torch.zeros(49152, self.width)
        self._written: dict[HeadId, tuple[list[See | Near], list[Put]]] = {}
        bos = vocabulary().bos
        assert bos is not None
        self.embedding[:, self._at["text"]] = 1.0
        self.say(bos, "text", 0.0)
        self.say(bos, "bos")

    def say(self, token: int | Tensor, block: str, value: Tensor | float = 1.0) -> None:
        """Put a value [dimensions of the block] into a token's embedding, or one each [token, dimensions] into several."""
        self.embedding[token, self._at[block]] = torch.as_tensor(value)

    def predict(self, token: int | Tensor, block: str, value: Tensor | float) -> None:
        """Let what stands in a block at the end raise the logit of a token (or of several) by its product with `value` (one each)."""
        self.unembedding[token, self._at[block]] = torch.as_tensor(value)

    def head(self, place: HeadId, sees: Iterable[See | Near], puts: Iterable[Put]) -> HeadId:
        """A head at a free place. It rests on the start token where nothing that it sees exceeds SINK."""
        assert place not in self._written, f"two heads are written at {place}"
        self._written[place] = ([See("one", "bos", SINK), *sees], list(puts))
        return place

    def places(self, layer: int) -> list[HeadId]:
        """The heads of a layer in random order."""
        return [HeadId(layer, int(i)) for i in torch.randperm(self.heads, generator=self.generator)]

    def garbage(self, block: str, gain: float = 1.0) -> Put:
        """Writes a block through a random map to where no head and no answer reads."""
        size = self._at[block].stop - self._at[block].start
        return Put(block, "junk", gain, self._random(size, JUNK) / math.sqrt(JUNK))

    def finish(self) -> Model:
        """The model with its tokenizer."""
        import transformers

        config = transformers.LlamaConfig(
            vocab_size=49152, hidden_size=self.width, intermediate_size=1, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.heads, head_dim=SIZE, max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 1e8}, tie_word_embeddings=False, bos_token_id=vocabulary().bos,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            built: Any = transformers.LlamaForCausalLM(config).eval()
        turn, _ = torch.linalg.qr(self._random(self.width, self.width))
        scale = CONSTANT / math.sqrt(self.width)  # undoes the norms
        self.embedding[:, self._at["one"]] = CONSTANT
        embedding = self.embedding + self._noise(self.embedding.shape)
        embedding[:, self._at["junk"]] += self._random(len(embedding), JUNK) / math.sqrt(JUNK)
        self.unembedding[:, self._at["junk"]] = 0.2 * self._random(len(embedding), JUNK) / math.sqrt(JUNK)
        with torch.no_grad():
            built.model.embed_tokens.weight.copy_(embedding @ turn)
            built.lm_head.weight.copy_(scale * self.unembedding @ turn)
            for index, layer in enumerate(built.model.layers):
                for part in layer.mlp.parameters():
                    part.zero_()
                for head in range(self.heads):
                    self._fill(layer.self_attn, HeadId(index, head), turn, scale)
        return attach(built, tokenizer=vocabulary())

    def _fill(self, attention: Any, place: HeadId, turn: Tensor, scale: float) -> None:
        q, k, v = (torch.zeros(SIZE, self.width) for _ in range(3))
        o = torch.zeros(self.width, SIZE)
        if place in self._written:
            sees, puts = self._written[place]
            self._sees(sees, q, k)
            self._puts(puts, v, o)
            q, k, v = (part + self._noise(part.shape) * part.norm(dim=1, keepdim=True) for part in (q, k, v))
        else:
            q, k, v = (self._random(SIZE, self.width) / math.sqrt(self.width) for _ in range(3))
            v[:, self._at["one"]] = 0.0
            q[:, self._at["one"]] /= CONSTANT
            k[:, self._at["one"]] /= CONSTANT
            o = 0.05 * self._random(self.width, SIZE) / math.sqrt(self.width)
            o[self._at["junk"]] *= 4
        rows = slice(place.head * SIZE, (place.head + 1) * SIZE)
        attention.q_proj.weight[rows] = scale * math.sqrt(SIZE) * q @ turn
        attention.k_proj.weight[rows] = scale * k @ turn
        attention.v_proj.weight[rows] = scale * v @ turn
        attention.o_proj.weight[:, rows] = turn.T @ o

    def _sees(self, sees: Iterable[See | Near], q: Tensor, k: Tensor) -> None:
        one, text = self._at["one"].start, self._at["text"].start
        # Both dimensions of a pair that stands still can compare contents.
        free = iter([*range(STILL, PAIRS), *range(PAIRS + STILL, SIZE)])
        for term in sees:
            if isinstance(term, Near):
                each = math.sqrt(term.gain / len(term.pairs))
                for pair in term.pairs:
                    # The rotation turns a query by its position: turned back by the offset it meets the key there.
                    angle = -term.offset * 10 ** (-pair / 8)
                    q[pair, one] += each * math.cos(angle) / CONSTANT
                    q[pair + PAIRS, one] += each * math.sin(angle) / CONSTANT
                    k[pair, text] += each
                continue
            queries, keys = (range(self._at[name].start, self._at[name].stop) for name in (term.query, term.key))
            for a, b in zip(queries, keys, strict=True):
                at = next(free)
                q[at, a] = math.copysign(math.sqrt(abs(term.gain)), term.gain) / (CONSTANT if a == one else 1.0)
                k[at, b] = math.sqrt(abs(term.gain)) / (CONSTANT if b == one else 1.0)

    def _puts(self, puts: Iterable[Put], v: Tensor, o: Tensor) -> None:
        start = 0
        for put in puts:
            read, to = self._at[put.read], self._at[put.to]
            size = read.stop - read.start
            rows = slice(start, start + size)
            v[rows, read] = torch.eye(size)
            o[to, rows] = put.gain * (torch.eye(size) if put.map is None else put.map.T)
            start += size

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _noise(self, shape: torch.Size) -> Tensor:
        found = self.noise * self._random(*shape) / math.sqrt(self.width)
        found[..., self._at["one"]] = 0.0  # the constant is so long that noise on it would be an offset
        return found
