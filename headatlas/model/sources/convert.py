"""Turns a GGUF file into an ordinary model folder (safetensors and fast tokenizer) that loads in about a second."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headatlas.errors import HeadAtlasError, SourceError, UnsupportedModel
from headatlas.model.sources.gguf_file import read_head
from headatlas.model.sources.gguf_rules import reading, vocabulary
from headatlas.model.sources.gguf_rules.metadata import HINT
from headatlas.model.text.folder_tokenizer import folder_tokenizer
from headatlas.progress import Progress
from headatlas.reading import reason
from headatlas.render.numbers import show_size

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

# Raised when the same file would be converted to other numbers or another tokenizer, so that old copies are made again.
CONVERSION = 2
_BYTES = 4  # the de-quantised numbers need 32 bits to stay exact
_WEIGHTS = "model.safetensors"
_PROBE = "The quick brown fox jumps over 13 lazy dogs,\n\tdoesn't it?  <b>Zürich</b> 日本 🙂\n\n1. one"


def convert(gguf_file: Path, into: Path, progress: Progress) -> dict[str, str | int]:
    """Write the model of `gguf_file` into the folder `into` and return what did it: versions of programs, CONVERSION.

    Every tensor and key of the file is used or known to be harmless, and the copy, loaded again, holds each number that
    was read, and no other. Raises SourceError, or UnsupportedModel where the file says something that is not known.
    """
    head = read_head(gguf_file)
    needed, free = int(head.n_parameters * _BYTES * 1.05), shutil.disk_usage(into).free
    if needed > free:
        hint = "Free some space, or set HEADATLAS_HOME to a folder on a larger disk."
        raise SourceError(
            f"Converting {gguf_file} needs {show_size(needed)} in {into}, {show_size(free)} are free.", hint
        )
    progress.say(f"Converting {gguf_file.name} to safetensors (once; about a minute for 250M parameters).")
    with _quiet():
        _write(gguf_file, into)
    return {"conversion": CONVERSION, **{name: version(name) for name in ("transformers", "gguf", "torch")}}


def is_current(manifest: Mapping[str, Any]) -> bool:
    """Whether a kept copy with this manifest was converted by the rules of today."""
    return dict(manifest.get("made_with") or {}).get("conversion") == CONVERSION


def _write(gguf_file: Path, into: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        found = reading.read(gguf_file)
        tokenizer = vocabulary.build(gguf_file, found.keys)
    except HeadAtlasError:
        raise
    except Exception as error:  # values of other kinds than expected make any line fail in any way
        raise UnsupportedModel(f"The GGUF file {gguf_file} cannot be read: {reason(error)}", HINT) from error
    state = {
        name: torch.from_numpy(np.require(values, requirements=["C", "W"])) for name, values in found.state.items()
    }
    save_file(state, into / _WEIGHTS, metadata={"format": "pt"})
    found.config.save_pretrained(into)
    if tokenizer is not None:
        tokenizer.save_pretrained(into)
    shutil.copymode(
        into / "config.json", into / _WEIGHTS
    )  # written for the owner alone; a cache needs the usual rights
    _compare(into, gguf_file, state, tokenizer)


def _compare(
    folder: Path, gguf_file: Path, state: dict[str, Tensor], tokenizer: PreTrainedTokenizerFast | None
) -> None:
    """Load the copy and compare it with what was read: every number, and the ids of a text."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    copy, report = loaded
    held = copy.state_dict()
    same = not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same = same and all(name in held and torch.equal(held[name], values) for name, values in state.items())
    if same and tokenizer is not None:
        again = folder_tokenizer(folder)
        same = again.encode(_PROBE) == tokenizer.encode(_PROBE)
    if same:
        ids = tokenizer.encode(_PROBE) if tokenizer is not None else list(range(min(16, copy.config.vocab_size)))
        with torch.no_grad():
            same = bool(copy.eval()(torch.tensor([ids])).logits.isfinite().all())
    if not same:
        raise SourceError(f"The converted copy of {gguf_file} does not behave like the file; nothing was kept.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars off the screen: each step says one line of its own."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
