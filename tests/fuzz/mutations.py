"""Ways in which files go wrong, by accident or on purpose: of any bytes, of JSON, and of the formats that hold numbers."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]
HOSTILE = "[bold]\x1b[2J\u202ename\x9b31m\x00"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 10**7, 20_000, 10**400, 1e308, float("nan"), float("inf"), "", "x", HOSTILE, [], {}, [[]],
    "9.6", "../../etc/passwd", "1" * 5000, [1, 2, 3], {"a": {"b": []}}, "é" * 100_000, [0.5] * 1000,
)  # fmt: skip


# ---- any bytes -------------------------------------------------------------------------------------------------------
def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def cut_front(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(1, 64) :]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Bits of up to eight bytes, mostly near the start, where headers are."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        where = rng.randrange(min(len(found), rng.choice([64, 1024, len(found)])) or 1)
        found[where] ^= 1 << rng.randrange(8)
    return bytes(found)


def noise(data: bytes, rng: random.Random) -> bytes:
    where, many = rng.randrange(len(data)), rng.randint(1, 400)
    return data[:where] + rng.randbytes(many) + data[where + many * rng.randint(0, 1) :]


def empty(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\n", b" " * 100, b"\0" * 4096])


def twice(data: bytes, rng: random.Random) -> bytes:
    return data + data


def recoded(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return rng.choice(
        [text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + data, "é".encode("latin-1") + data]
    )


def deep(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"[" * 10**6, b'{"a":' * 10**6, b"[" * 900 + b"]" * 900, b"- " * 10**5 + b"a", b"(" * 10**6])


def collections(data: bytes, rng: random.Random) -> bytes:
    """Small in the file, large in memory."""
    return b"[" + b"[]," * 5_000_000 + b"[]]"


def long_line(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b'{"text": "' + b"a" * 100_000_000 + b'"}', b"[" + b"0.1," * 25_000_000 + b"1]"])


ANY: tuple[Mutation, ...] = (cut, cut, cut_front, flip, flip, noise, empty, twice, recoded, deep)


# ---- JSON ------------------------------------------------------------------------------------------------------------
def places(value: Any) -> list[tuple[Any, Any]]:
    """(collection, key) of every part."""
    found, todo = [], [value]
    while todo:
        one = todo.pop()
        pairs = list(one.items()) if isinstance(one, dict) else list(enumerate(one))
        for key, inner in pairs:
            found.append((one, key))
            if isinstance(inner, dict | list):
                todo.append(inner)
    return found


def on_json(change: Callable[[Any, random.Random], None]) -> Mutation:
    """A change of the parsed value, near the top as likely as deep within."""

    def mutation(data: bytes, rng: random.Random) -> bytes:
        value = json.loads(data)
        change(value, rng)
        return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="surrogatepass")

    mutation.__name__ = change.__name__
    return mutation


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    found = places(value)
    shallow = [place for place in found if place[0] is value]
    return rng.choice(rng.choice([shallow, found]))


@on_json
def replaced(value: Any, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 2)):
        inside, key = _place(value, rng)
        inside[key] = copy.deepcopy(rng.choice(VALUES))


@on_json
def missing(value: Any, rng: random.Random) -> None:
    inside, key = _place(value, rng)
    del inside[key]


@on_json
def extra(value: Any, rng: random.Random) -> None:
    inside, _ = _place(value, rng)
    if isinstance(inside, dict):
        inside[rng.choice(["new", HOSTILE, "__class__", ""])] = copy.deepcopy(rng.choice(VALUES))
    else:
        inside.extend(copy.deepcopy(inside[:1]) * 50)


@on_json
def numbers(value: Any, rng: random.Random) -> None:
    """A whole number somewhere becomes another one."""
    whole = [(inside, key) for inside, key in places(value) if type(inside[key]) is int]
    if whole:
        inside, key = rng.choice(whole)
        inside[key] = rng.choice([-1, -(2**31), 0, 1, 2**31, 10**7, 20_000, 2**63, 10**400, 3.5, 7])


def same_key(data: bytes, rng: random.Random) -> bytes:
    """The first or a later key stands there twice."""
    text = data.decode()
    starts = [i for i in range(len(text)) if text.startswith('{"', i)] or [
        i for i in range(len(text)) if text[i] == "{"
    ]
    where = rng.choice(starts[:20])
    key = text[text.index('"', where) + 1 :].split('"', 1)[0]
    return (text[: where + 1] + f'"{key}": 1, ' + text[where + 1 :]).encode()


def no_number(data: bytes, rng: random.Random) -> bytes:
    text = data.decode()
    digits = [i for i, sign in enumerate(text) if sign.isdigit() and text[i - 1] in " :[,"]
    where = rng.choice(digits) if digits else 0
    return (text[:where] + rng.choice(["NaN", "-Infinity", "1e999", "0x10", "1_0"]) + text[where + 1 :]).encode()


JSON: tuple[Mutation, ...] = (
    replaced,
    replaced,
    replaced,
    missing,
    missing,
    extra,
    numbers,
    numbers,
    same_key,
    no_number,
)


# ---- formats of numbers ----------------------------------------------------------------------------------------------
def lying_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors header changed, its length told rightly; or its length told wrongly."""
    length = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.3:
        return struct.pack("<Q", rng.choice([0, 1, 2**40, 2**63, length - 1, length + 9])) + data[8:]
    header = rng.choice(JSON)(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def npy(array: np.ndarray, **lies: Any) -> bytes:
    """An array as a .npy file, with another shape or dtype in its header than it has."""
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **lies}
    text = f"{header!r}".encode("latin-1", errors="replace")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()


def lying_array(data: bytes, rng: random.Random) -> bytes:
    array = np.arange(12.0).reshape(3, 4)
    kind = rng.choice(["object", "shape", "dtype", "deep"])
    if kind == "object":
        out = io.BytesIO()
        np.save(out, np.array([print, {}], dtype=object), allow_pickle=True)
        return out.getvalue()
    if kind == "shape":
        return npy(array, shape=rng.choice([(10**12,), (-3, 4), (2**62, 2), (3,), (3, 5), 7, "no", (1,) * 100]))
    if kind == "dtype":
        return npy(array, descr=rng.choice(["<U8", "|O", "V1000000000", "<M8[s]", "no", "<f2", ("<f8", (10**9,))]))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + (b"(" * 8999 + b"\n") + array.tobytes()


def lying_archive(data: bytes, rng: random.Random) -> bytes:
    """One array of the .npz lies; or the archive is a bomb, or holds what is no array."""
    kind = rng.choice(["array", "bomb", "text", "names"])
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for number, part in enumerate(old.infolist()):
            content = old.read(part)
            if number == 0:
                content = lying_array(content, rng) if kind == "array" else content
                content = b"no array" if kind == "text" else content
            new.writestr(
                rng.choice(["../x.npy", "decoder x.npy", HOSTILE]) if kind == "names" else part.filename, content
            )
        if kind == "bomb":
            new.writestr("decoder 99.npy", npy(np.zeros(0), shape=(300_000_000, 1)) + bytes(300_000_000))
    return out.getvalue()


def lying_gguf(data: bytes, rng: random.Random) -> bytes:
    """Counts in the head, or the value of one of its keys, become others."""
    found = bytearray(data)
    huge = rng.choice([2**31, 2**32 - 1, 10**7, 0, 20_000])
    if rng.random() < 0.3:
        struct.pack_into("<Q", found, rng.choice([8, 16]), rng.choice([2**63, 2**40, 10**7, 0, huge]))
        return bytes(found)
    keys = [b"block_count", b"embedding_length", b"head_count", b"head_count_kv", b"context_length", b"freq_base",
            b"feed_forward_length", b"vocab_size", b"bos_token_id", b"tokens", b"merges", b"token_type", b"architecture"]  # fmt: skip
    key = rng.choice([key for key in keys if key in data])
    where = data.index(key) + len(key)
    if rng.random() < 0.3:  # the kind of the value
        struct.pack_into("<I", found, where, rng.choice([0, 4, 6, 8, 9, 10, 12, 99]))
    else:  # the value, or the kind of a list's entries and how many
        struct.pack_into("<I", found, where + rng.choice([4, 8]), huge)
    return bytes(found)


def lines_of(mutation: Mutation) -> Mutation:
    """A mutation of one line of JSON Lines."""

    def changed(data: bytes, rng: random.Random) -> bytes:
        lines = data.splitlines()
        where = rng.randrange(len(lines))
        lines[where] = mutation(lines[where], rng)
        return b"\n".join(lines)

    changed.__name__ = f"line_{mutation.__name__}"
    return changed


# ---- YAML and text ---------------------------------------------------------------------------------------------------
def yaml_tricks(data: bytes, rng: random.Random) -> bytes:
    bomb = b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\n"
    return data + rng.choice([
        bomb, b"\nextra: 1\n", b"\nid: again\n", b"\n---\nid: other\n", b"\n<<: {a: 1}\n", b"\nx: !!python/object:os.system a\n",
        b"\n? [a, b]\n: 1\n", b"\nn: .nan\n", b"\nn: 1e999\n", b"\nt: \"\\e[2J\\u202e\"\n", b"\nd: " + b"[" * 10**5 + b"\n",
        b"\nd: 2024-13-45\n", b"\nn: " + b"9" * 5000 + b"\n", b"\t- tab\n", b"\n" + b"x" * 300_000 + b": 1\n",
    ])  # fmt: skip


def yaml_values(data: bytes, rng: random.Random) -> bytes:
    """The value of one line becomes another."""
    lines = data.decode().splitlines()
    with_value = [i for i, line in enumerate(lines) if ": " in line]
    where = rng.choice(with_value)
    key = lines[where].partition(": ")[0]
    lines[where] = (
        f"{key}: {rng.choice(['1', 'null', '[]', '{a: b}', '-1', 'x', '.inf', '[[[[[[[[[[[[[[]]]]]]]]]]]]]]', 'true'])}"
    )
    return "\n".join(lines).encode()


def form_tricks(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([
        data + b"\n### Title\nagain", data + b"\n### Unknown\nx", data.replace(b"### Date", b"### Day"), data.replace(b"2024", b"9999"),
        data + HOSTILE.encode(), data + b"\n### " + b"x" * 100_000, data.replace(b"\n", b"\r"), data * 2000,
    ])  # fmt: skip
