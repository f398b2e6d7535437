"""Turns a GGUF file into an ordinary model folder (safetensors and fast tokenizer) that loads in about a second."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import SourceError, UnsupportedModel
from headatlas.model.sources.gguf_file import GgufHead, read_head
from headatlas.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BYTES = 4  # the de-quantised numbers need 32 bits to stay exact
_PROBE = "The quick brown fox jumps over 13 lazy dogs,\n\tdoesn't it?  <b>Zürich</b> 日本 🙂"


def convert(gguf_file: Path, into: Path, progress: Progress) -> dict[str, str]:
    """Write the model of `gguf_file` into the folder `into` and return the versions of the programs that did it.

    The copy is loaded again and must give exactly the logits and token ids of the original. Raises SourceError.
    """
    head = read_head(gguf_file)
    needed, free = int(head.n_parameters * _BYTES * 1.05), shutil.disk_usage(into).free
    if needed > free:
        hint = "Free some space, or set HEADATLAS_HOME to a folder on a larger disk."
        raise SourceError(
            f"Converting {gguf_file} needs {needed / 1e9:.1f} GB in {into}, {free / 1e9:.1f} GB are free.", hint
        )
    progress.say(f"Converting {gguf_file.name} to safetensors (once; about a minute for 250M parameters).")
    with _quiet():
        ids, logits = _write(gguf_file, head, into)
        _compare(into, gguf_file, ids, logits)
    return {name: version(name) for name in ("transformers", "gguf", "torch")}


def _write(gguf_file: Path, head: GgufHead, into: Path) -> tuple[list[int], torch.Tensor]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(**place) if head.has_tokenizer else None
    except Exception as error:  # a damaged or unusual file makes its readers fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModel(
            f"transformers cannot read the GGUF file {gguf_file} (architecture {head.architecture}): {reason}",
            "Use the model's safetensors weights instead.",
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise SourceError(
            f"{gguf_file} lacks {len(missing)} of the model's weights, such as {missing[0]}.", "Fetch it again."
        )
    ids = tokenizer.encode(_PROBE) if tokenizer is not None else list(range(min(16, model.config.vocab_size)))
    logits = _logits(model, ids)
    # The weights are plain numbers now; what still says "quantised" would make saving fail and loading wrong.
    del model.hf_quantizer, model.config.quantization_config
    model.save_pretrained(into)
    if tokenizer is not None:
        tokenizer.save_pretrained(into)
    for weights in into.glob("*.safetensors"):  # written for the owner alone; a shared cache needs the usual rights
        shutil.copymode(into / "config.json", weights)
    return ids, logits


def _compare(folder: Path, gguf_file: Path, ids: list[int], logits: torch.Tensor) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from headatlas.model.sources.checkpoint import has_tokenizer

    copy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    same = torch.equal(_logits(copy, ids), logits)
    if same and has_tokenizer(folder):
        same = AutoTokenizer.from_pretrained(folder).encode(_PROBE) == ids
    if not same:
        raise SourceError(f"The converted copy of {gguf_file} does not behave like the file; nothing was kept.")


def _logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    import torch

    with torch.no_grad():
        logits: torch.Tensor = model.eval()(torch.tensor([ids])).logits
    return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars off the screen: each step says one line of its own."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
