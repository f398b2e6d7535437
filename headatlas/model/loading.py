"""From a model's name to a checked Model."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from headatlas.errors import BadInput, HeadAtlasError, UnsupportedModel
from headatlas.model import layouts
from headatlas.model.core import dispatch, weights_hash
from headatlas.model.core.hooks import evaluating, exclusive
from headatlas.model.core.model import Model
from headatlas.model.core.model_inputs import uncached
from headatlas.model.opening import kept_structure, ownership
from headatlas.model.opening.opening_key import opening_key
from headatlas.model.sources import openings
from headatlas.model.sources.builtin import BUILTINS
from headatlas.model.sources.placement import DeviceMap
from headatlas.model.sources.resolve import Source
from headatlas.model.sources.weights import path_of, read_weights
from headatlas.model.structure import attention_layers, check_run, qkv_columns, reach, selfcheck, wrapping
from headatlas.model.structure.selfcheck import Check
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.reading import reason

transformers.utils.logging.disable_progress_bar()  # our own progress is shown instead


def load(
    name: str | os.PathLike[str] | nn.Module,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    bos: str = "auto",
    allow_pickle: bool = False,
    device_map: DeviceMap | None = None,
    weight_memory: int | str | None = None,
) -> Model:
    """A model by its name, checked: a Hub id, a local folder, a `.gguf` file or a built-in such as smollm2-135m.

    A transformers model that is already in memory may be given instead of a name. dtype: auto (float32 on the CPU,
    the checkpoint's own type elsewhere), float32, bfloat16, float16. device_map: "auto" (every CUDA device, then
    main memory, then the disk), or modules with their devices, "cpu" or "disk", as accelerate takes them. weight_memory: bytes, or
    "200MB", of weights that main memory may hold at a time; the others are read from disk whenever they are used, which is slower
    and changes no number. bos: auto, none or a literal token (recorded with
    every result). Raises BadInput, SourceError, UnknownName or UnsupportedModel.
    """
    began = time.perf_counter()
    if isinstance(name, nn.Module):
        return attach(name, bos=bos)
    if not isinstance(name, (str, os.PathLike)):
        raise BadInput(
            f"A {type(name).__name__} names no model.",
            "Give a Hub id, a folder, a .gguf file, a built-in or a transformers model.",
        )
    name = os.fspath(name)
    options: dict[str, Any] = {"revision": revision, "dtype": dtype, "device": device, "allow_pickle": allow_pickle,
                               "device_map": device_map, "weight_memory": weight_memory}  # fmt: skip
    hf, source, complete = read_weights(name, **options)
    model = attach(hf, source=source, bos=bos, anew=not complete)
    model.loaded_by = {"name": os.path.abspath(name) if os.path.exists(name) else name, "bos": bos, **options}
    model.load_seconds = time.perf_counter() - began
    return model


def attach(
    hf: nn.Module,
    *,
    source: Source | None = None,
    tokenizer: Tokenizer | None = None,
    bos: str = "auto",
    anew: bool = False,
) -> Model:
    """Look into a transformers model in memory: find its attention layers and run the self-check. Raises UnsupportedModel.

    A wrapper that only hands on to a transformers model (DataParallel, PeftModel) is looked through: `hf` is that model.
    What was found is kept in the cache folder and used again for a model with the same `opening_key`, without a run of the
    model. anew: look and check even so.
    """
    hf = wrapping.unwrapped(hf)
    with exclusive(hf), _opening(hf) as opened, evaluating(hf):
        layout = _choose_attention(hf)
        key = None if anew else _key(hf, source)
        model = key and _reopened(key, hf, layout, source, tokenizer, bos)
        if not model:
            model, checks = _examine(hf, layout, source, tokenizer, bos, thorough=False)
            selfcheck.demand(model, checks)
            if key and (source is not None or not kept_structure.hangs_on_weights(model)):
                openings.keep(key, *kept_structure.described(model))
        return opened(model)


@contextlib.contextmanager
def _opening(hf: nn.Module) -> Iterator[Callable[[Model], Model]]:
    """While a model is opened: a model that is refused is given back as it was, as one that is closed is."""
    before = ownership.attention_choice(hf)

    def opened(model: Model) -> Model:
        ownership.owned(hf, model, before)
        model.on_close = lambda model: ownership.give_back(hf, model, before, layouts.uninstall)
        return model

    try:
        yield opened
    except BaseException:
        ownership.give_back(hf, None, before, layouts.uninstall)
        raise


def examine(
    hf: nn.Module, *, source: Source | None = None, tokenizer: Tokenizer | None = None, bos: str = "auto"
) -> tuple[Model, list[Check]]:
    """The model with its self-check, whatever the outcome and always made anew; `attach` is for use."""
    hf = wrapping.unwrapped(hf)
    with exclusive(hf), _opening(hf) as opened, evaluating(hf):
        model, checks = _examine(hf, _choose_attention(hf), source, tokenizer, bos, thorough=True)
        return opened(model), checks


def _key(hf: nn.Module, source: Source | None) -> str | None:
    """Under what the findings about this model are kept; None where it must be checked in full."""
    key = opening_key(hf, __name__)
    return key and hashlib.sha256(f"{key} {source.sha256 if source is not None else ''}".encode()).hexdigest()


def _reopened(
    key: str,
    hf: nn.Module,
    layout: layouts.Layout | None,
    source: Source | None,
    tokenizer: Tokenizer | None,
    bos: str,
) -> Model | None:
    """The model as it was found when one with this key was opened before; None where nothing whole is kept."""
    kept = openings.recall(key)
    if kept is None:
        return None
    try:
        model = _bare(hf, layout, source, tokenizer, bos, kept[0]["kind"])
        kept_structure.restore(model, *kept)
    except (KeyError, AttributeError, TypeError, ValueError):  # a file of another's making
        return None
    layouts.install(hf)
    return model


def _bare(
    hf: Any, layout: layouts.Layout | None, source: Source | None, tokenizer: Tokenizer | None, bos: str, kind: str
) -> Model:
    """A Model that knows nothing of its layers yet."""
    if tokenizer is None:
        tokenizer = _tokenizer(source, hf, _text_config(hf), kind, bos)
    return Model(hf, tokenizer, source, kind=kind, layout_path=layout.path if layout is not None else None)


def _text_config(hf: Any) -> Any:
    return hf.config.get_text_config() if hasattr(hf.config, "get_text_config") else hf.config


def _examine(
    hf: nn.Module,
    layout: layouts.Layout | None,
    source: Source | None,
    tokenizer: Tokenizer | None,
    bos: str,
    *,
    thorough: bool,
) -> tuple[Model, list[Check]]:
    with contextlib.ExitStack() as undo, torch.no_grad():
        near = undo.enter_context(reach.lowered(hf))
        inputs = selfcheck.sample(hf, _text_config(hf))
        try:
            reference = Model.read(_run_uncached(hf, inputs))
        except UnsupportedModel:
            if not near:
                raise
            undo.close()  # its code does not bear the change
            inputs = selfcheck.sample(hf, _text_config(hf))
            reference = Model.read(_run_uncached(hf, inputs))
        layouts.install(hf)
        kind = _kind(hf, inputs, reference)
        model = _bare(hf, layout, source, tokenizer, bos, kind)
        model.loaded_checksum = weights_hash.checksum(hf) if source is not None else None
        probe = attention_layers.LayerProbe(hf, model.path)
        with probe, dispatch.receiving(probe):
            _run_uncached(hf, inputs)
        attention_layers.check_firing(probe, hf, type(hf).__name__)
        model.layers = attention_layers.attention_layers(probe, hf, kind, _length(inputs, "decoder_input_ids"))
        model.block_returns = probe.blocks
        model.layers = qkv_columns.traced(model, inputs, probe.vector_maps)
        model.unembedding = attention_layers.unembedding(probe, hf) if kind != "encoder" else None
        return model, check_run.all_checks(model, inputs, reference, thorough=thorough)


def _length(inputs: dict[str, Tensor], name: str) -> int | None:
    return inputs[name].shape[1] if name in inputs else None


def _choose_attention(hf: Any) -> layouts.Layout | None:
    """Let a model attend in a way that can be looked into; its owner's choice stays where it is one. Its layout, if any."""
    layout = layouts.layout_of(hf)
    if layout is not None:
        hf.config._attn_implementation = layout.path  # the setter is for models that dispatch
    elif getattr(_text_config(hf), "_attn_implementation", None) not in dispatch.PATHS:
        hf.set_attn_implementation(path_of(type(hf)))
    return layout


def _run_uncached(hf: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """As the model is run later: keys that a cache joins lie otherwise in memory, for which some processors round otherwise."""
    return _run(hf, uncached(inspect.signature(hf.forward).parameters, inputs))


def _run(hf: nn.Module, inputs: Mapping[str, Any]) -> Any:
    try:
        return hf(**inputs)
    except HeadAtlasError:
        raise
    except Exception as error:
        raise UnsupportedModel(
            f"{type(hf).__name__} does not run on plain tokens: {reason(error)}",
            "Does it need other inputs than text?",
        ) from error


def _kind(hf: nn.Module, inputs: dict[str, Tensor], reference: Tensor) -> str:
    """decoder (causal), encoder (bidirectional) or encoder-decoder, by what other last tokens do to the first position."""
    if getattr(hf.config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if "input_ids" not in inputs:
        return "encoder"
    if reference.ndim < 3:  # a text has one output (classifiers): the hidden states of its tokens tell
        reference = _run(hf, {**inputs, "output_hidden_states": True}).hidden_states[-1]
    moved = (reference[2] - reference[0]).abs().float()
    # Not equality: which experts other tokens choose can change the rounding of all. Nor much more than rounding: in a BERT of
    # random weights the first token sees about a thousandth of what the last one does.
    blind = float(moved[0].max()) <= selfcheck.bound(reference.dtype, 2e-5, 5e-2) * float(moved.max())
    return "decoder" if blind else "encoder"


def _tokenizer(source: Source | None, hf: nn.Module, config: Any, kind: str, bos: str) -> Tokenizer:
    limits = [
        getattr(config, name, None)
        for name in ("max_position_embeddings", "n_positions", "max_target_positions", "seq_length")
    ]
    context = next((int(limit) for limit in limits if isinstance(limit, int) and limit > 0), 1 << 20)
    context -= _reserved_positions(hf, context)
    size = int(getattr(config, "vocab_size", 0) or 0)
    two = kind == "encoder-decoder"
    more: dict[str, Any] = {"two_stacks": two, "decoder_start": _decoder_start(hf, size) if two else None}
    if source is not None and source.has_tokenizer:
        folder = Path(source.folder)
        return Tokenizer.load(folder, causal=kind != "encoder", context=context, vocab_size=size, bos=bos, **more)
    start = getattr(config, "bos_token_id", None)
    known = isinstance(start, int) and 0 <= start < size
    return Tokenizer.bare(size, context, causal=kind != "encoder", bos=start if known else None, **more)


def _decoder_start(hf: Any, size: int) -> int | None:
    """The token that a decoder reads first, where transformers' own `generate` looks for it; None where none is named."""
    config, generation = hf.config, getattr(hf, "generation_config", None)
    inner = getattr(config, "decoder", None)
    named = [(generation, "decoder_start_token_id"), (config, "decoder_start_token_id"), (inner, "bos_token_id"),
             (generation, "bos_token_id"), (config, "bos_token_id")]  # fmt: skip
    found = (getattr(place, name, None) for place, name in named)
    return next((one for one in found if isinstance(one, int) and 0 <= one < size), None)


def _reserved_positions(hf: nn.Module, n: int) -> int:
    """How many of a model's `n` learned positions no token can have: RoBERTa counts from behind the padding's row."""
    for name, module in hf.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.num_embeddings == n:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def table_of(
    name: str, *, revision: str | None = None, dtype: str = "auto", device: str | None = None
) -> tuple[dict[str, Any], list[Check]]:
    """Facts about a model and its self-check, passed or not, for `headatlas check`."""
    hf, source, _ = read_weights(name, revision=revision, dtype=dtype, device=device, allow_pickle=False)
    model, checks = examine(hf, source=source)
    groups = sorted({layer.n_groups for layer in model.layers})
    facts = {
        "model": model.name,
        "architecture": model.architecture,
        "kind": model.kind,
        "heads": len(model.heads),
        "layers": model.n_layers,
        "kv_groups": "/".join(map(str, groups)),
        "attention": model.path,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights_mb": round(sum(p.numel() * p.element_size() for p in hf.parameters()) / 1e6),
        "bos": model.tokenizer.bos_policy,
    }
    return facts, checks


def builtins() -> list[dict[str, Any]]:
    """The models that have a short name."""
    return [{"name": model.name, "what": model.about, "origin": model.package} for model in BUILTINS.values()]
