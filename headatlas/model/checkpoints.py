"""Checkpoints of one training, one after the other: the weights of each are put into the model that was opened first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, SourceError
from headatlas.model import layouts
from headatlas.model.core import weights_hash
from headatlas.model.core.model import Model
from headatlas.model.loading import load
from headatlas.model.opening import kept_structure, ownership
from headatlas.model.sources.checkpoint import load_config, weight_files
from headatlas.model.sources.resolve import Source, resolve
from headatlas.model.sources.weights import read_weights
from headatlas.progress import Stderr

_UNTOLD = ("_name_or_path", "transformers_version")  # of a configuration: where it came from decides no number
_TOKENIZER_FILES = ("*token*", "vocab.*", "merges.txt", "spiece.model", "*.bpe.model")


class Checkpoints:
    """Opens checkpoints that are put together alike. The first is opened and checked as `load` does it.

    Each further one costs its weights alone: they are copied into the same transformers model, and what the opening found
    out about its structure is put on a new Model of it, so that nothing that was computed from other weights stays. Where
    the structure is another one, or where what was found hangs on the weights (`hangs_on_weights`), it is opened anew.
    opened: how many were opened and checked in full.
    """

    def __init__(self, *, dtype: str = "auto", device: str | None = None, allow_pickle: bool = False) -> None:
        self.options: dict[str, Any] = {"dtype": dtype, "device": device, "allow_pickle": allow_pickle}
        self.opened = 0
        self._sources: dict[tuple[str, str | None], Source] = {}
        self._progress = _Once()
        self._last: Model | None = None
        self._config: dict[str, Any] = {}
        self._reads: dict[str, bytes] = {}

    def source(self, name: str, revision: str | None = None) -> Source:
        """Where a checkpoint's files are, found and looked at once, with their hash. Raises as `resolve` does."""
        if (name, revision) not in self._sources:
            self._sources[name, revision] = resolve(
                name, revision=revision, allow_pickle=self.options["allow_pickle"], progress=self._progress
            )
        return self._sources[name, revision]

    def open(self, name: str, revision: str | None = None) -> Model:
        """The model with the weights of a checkpoint; the one opened before it is closed.

        Raises BadInput where it reads texts by another tokenizer than the first or has weights that are no numbers, and as
        `load` does.
        """
        source = self.source(name, revision)
        last = self._last
        config = _told(load_config(source.folder, name))
        reads = {path.name: path.read_bytes() for pattern in _TOKENIZER_FILES for path in source.folder.glob(pattern)}
        if last is not None and reads != self._reads:
            raise BadInput(
                f"{source.name} has another tokenizer than {last.name}, so that they cannot read the same texts.",
                "Take checkpoints of one training.",
            )
        if last is None or config != self._config or kept_structure.hangs_on_weights(last):
            model = load(name, revision=revision, **self.options)
            self.opened += 1
        else:
            self._put(last.hf, source, name, revision)
            model = _anew(last, source)
        if last is not None:
            last.close()
        self._last, self._config, self._reads = model, config, reads
        bad = next((key for key, value in model.hf.named_parameters() if not bool(value.isfinite().all())), None)
        if bad is not None:
            raise BadInput(f"{source.name} has weights that are no numbers ({bad}).", "Leave this checkpoint out.")
        return model

    def close(self) -> None:
        """Close the model that was opened last."""
        if self._last is not None:
            self._last.close()
            self._last = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, hf: nn.Module, source: Source, name: str, revision: str | None) -> None:
        """Copy the weights of a checkpoint's files into a model, by name; those that are named otherwise are read as `load` does."""
        state: Mapping[str, Tensor] = hf.state_dict()
        found = dict(_tensors(source, name, allow_pickle=self.options["allow_pickle"]))
        if {key: value.shape for key, value in found.items()} != _stored(hf, state):
            other, _, _ = read_weights(name, revision=revision, **self.options)
            found = dict(other.state_dict())
        if {key: value.shape for key, value in found.items()}.items() - {k: v.shape for k, v in state.items()}.items():
            raise SourceError(f"{source.name} has other weights than its configuration says.", "Save it again.")
        with torch.no_grad():
            for key, value in found.items():
                state[key].copy_(value)


class _Once(Stderr):
    """What many revisions of one repository have to say is said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        if line not in self._said:
            super().say(line)
        self._said.add(line)


def _told(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _UNTOLD}


def _tensors(source: Source, name: str, *, allow_pickle: bool) -> Iterator[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    for file in weight_files(source.folder, name, allow_pickle=allow_pickle):
        if file.suffix == ".safetensors":
            yield from load_file(file).items()


def _stored(hf: nn.Module, state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shapes of the weights that a file of this model holds: of tensors that have several names, under the first alone."""
    first: dict[tuple[int, torch.Size], str] = {}
    for key, value in state.items():
        first.setdefault((value.data_ptr(), value.shape), key)
    return {key: state[key].shape for key in first.values()}


def _anew(last: Model, source: Source) -> Model:
    """A Model of the same transformers model with what is known of its structure, and of nothing else."""
    model = Model(last.hf, last.tokenizer, source, kind=last.kind, layout_path=last._layout_path)
    kept_structure.restore(model, *kept_structure.described(last))
    model.loaded_checksum = weights_hash.checksum(model.hf)
    before = ownership.attention_choice(model.hf)
    ownership.owned(model.hf, model, before)
    model.on_close = lambda model: ownership.give_back(model.hf, model, before, layouts.uninstall)
    return model


def revisions_of(name: str) -> list[tuple[str, str | None]]:
    """(name, revision) of each checkpoint that "model@rev1,rev2,..." means; [(name, None)] of any other name."""
    base, mark, listed = name.partition("@")
    if not mark or Path(name).exists():
        return [(name, None)]
    wanted = [one.strip() for one in listed.split(",")]
    if not base or not all(wanted):
        raise BadInput(f"'{name}' names no revisions.", "Write org/name@step1000,step2000.")
    with contextlib.suppress(OSError):
        if Path(base).is_dir():  # laid out like revisions: a folder each
            return [(str(Path(base) / revision), None) for revision in wanted]
    return [(base, revision) for revision in wanted]
