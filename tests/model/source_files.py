"""Tiny models, GGUF files, wheels and a Hub, made on the spot so that the tests of sources need no network."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from huggingface_hub import constants
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB, WIDTH, HIDDEN, LAYERS = 320, 64, 96, 2
_TEXT = [
    "the quick brown fox jumps over the lazy dog and the cat",
    "Mary and John went to the store with the other dog",
]
COMMIT = "c0ffee" + "0" * 34


def byte_backend() -> Backend:
    """A byte-level BPE tokenizer trained on two sentences, of a few tokens fewer than the models' `VOCAB`."""
    backend = Backend(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(_TEXT, trainer)
    return backend


def save_llama(folder: Path, *, tokenizer: bool = True, shards: bool = False) -> Path:
    """A tiny random Llama saved the ordinary way."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="60KB" if shards else "5GB")
    if tokenizer:
        hf = PreTrainedTokenizerFast(tokenizer_object=byte_backend(), bos_token="<|im_start|>")
        hf.save_pretrained(folder)
    return folder


def write_gguf(path: Path, *, tokenizer: bool = True, skip: str = "", seed: int = 0) -> Path:
    """A tiny random Llama with 4- and 8-bit weights, as llama.cpp would write it; `skip` leaves one tensor out."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    if tokenizer:
        model = json.loads(byte_backend().to_str())["model"]
        tokens = sorted(model["vocab"], key=lambda token: model["vocab"][token])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(0)
    shapes = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        for name, shape in {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH // 2, WIDTH),
            "attn_v": (WIDTH // 2, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        if name == skip:
            continue
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0 if name.startswith("token") else gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `files` in it and a dependency that does not exist."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package-anywhere\n"
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {**files, f"{info}/METADATA": facts.encode(), f"{info}/WHEEL": wheel.encode()}
    record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in {**content, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(inner, data)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def fake_hub(repositories: dict[str, Path], gated: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """A Hub on this machine with the files of `repositories`, all at `COMMIT`; gives its address and the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(f"{self.command} {self.path}")

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
            api = parts[:2] == ["api", "models"]
            parts = parts[2:] if api else parts
            repository, rest = "/".join(parts[:2]), parts[2:]
            if repository not in repositories:
                return self.answer(401, X_Error_Code="RepoNotFound")
            if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            files = sorted(path for path in repositories[repository].iterdir() if path.is_file())
            if api and rest[:1] == ["tree"]:
                tree = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40} for p in files]
                return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
            if api:
                siblings = [{"rfilename": p.name, "size": p.stat().st_size, **_lfs(p)} for p in files]
                info = {"id": repository, "sha": COMMIT, "siblings": siblings}
                return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            if repository in gated:
                return self.answer(403, X_Error_Code="GatedRepo")
            path = repositories[repository] / rest[2]
            return self.answer(200, path.read_bytes(), ETag=f'"{sha256(path)}"', X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Make `address` the Hub and `cache` its local cache for the rest of a test."""
    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + path)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def _lfs(path: Path) -> dict[str, object]:
    if path.suffix not in (".safetensors", ".gguf"):
        return {}
    return {"lfs": {"sha256": sha256(path), "size": path.stat().st_size, "pointerSize": 130}}
