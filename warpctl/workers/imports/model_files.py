"""Which files of a folder are the model, and whether they belong together. Safetensors only; no code, no pickles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.errors import InputError
from warpctl.storage.file_names import CONFIG, INDEX, SINGLE, WEIGHTS
from warpctl.storage.headers import LENGTH_BYTES, TensorInfo
from warpctl.workers.imports.weight_layout import header_end, tensors_of
from warpctl.workers.sources.base import Source, SourceFile, read_start

TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tekken.json",),
)
JSON_FILES = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
OTHERS = (
    *JSON_FILES,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
TEMPLATES = "additional_chat_templates/"
USUAL_HEADER_BYTES = 512 * 1024
MAX_JSON_BYTES = 64 * 1024 * 1024
CONVERT_HINT = (
    "convert them where you trust them: from_pretrained(...).save_pretrained(folder, safe_serialization=True), "
    "or use the repository's safetensors revision"
)

Wait = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """What the headers say; `num_parameters` counts elements of all stored tensors."""

    architectures: tuple[str, ...]
    dtypes: tuple[str, ...]
    num_tensors: int
    num_parameters: int
    has_custom_code: bool

    def outcome(self) -> dict[str, Any]:
        """As the manifest records it."""
        return {
            "architectures": list(self.architectures),
            "dtypes": list(self.dtypes),
            "numTensors": self.num_tensors,
            "numParameters": self.num_parameters,
        }


def select(source: Source, files: Sequence[SourceFile], *, wait: Wait) -> list[SourceFile]:
    """Configuration, tokenizer and weights at the top of the folder, sorted by name.

    Everything else stays behind: Python files, pickles, other formats, readmes.
    """
    here = {file.name: file for file in files}
    if source.is_single_file:
        raise InputError(
            f"{source.uri} is one file, a model is a folder", hint="name the folder that holds config.json"
        )
    if CONFIG not in here:
        nested = next((name for name in here if name.endswith(f"/{CONFIG}")), None)
        hint = f"the model seems to be in {source.uri}/{nested.rpartition('/')[0]}" if nested else "check the URI"
        if "adapter_config.json" in here:
            hint = "this is an adapter: merge it into its base model first (peft: merge_and_unload)"
        raise InputError(f"{source.uri} holds no {CONFIG}", hint=hint)
    weights = _weights(source, here, wait=wait)
    tokenizer = {name for names in TOKENIZERS for name in names if name in here}
    if not any(all(name in here for name in names) for names in TOKENIZERS):
        wanted = ", ".join(" + ".join(names) for names in TOKENIZERS)
        raise InputError(f"{source.uri} holds no tokenizer", hint=f"one of these must be there: {wanted}")
    templates = {name for name in here if name.startswith(TEMPLATES) and name.endswith(".jinja")}
    names = {CONFIG, *weights, *tokenizer, *templates, *(name for name in OTHERS if name in here)}
    return [here[name] for name in sorted(names)]


def check(source: Source, files: Sequence[SourceFile], *, wait: Wait) -> ModelSummary:
    """Read headers and JSON files (never the tensors) and refuse what does not fit together."""
    here = {file.name: file for file in files}
    config = _read_json(source, here[CONFIG], wait=wait)
    if "model_type" not in config and "architectures" not in config:
        raise InputError(f"{source.uri}: {CONFIG} names neither model_type nor architectures", hint="is it a model's?")
    if config.get("quantization_config"):
        raise InputError(
            f"{source.uri}: the weights are quantised ({CONFIG} has quantization_config)",
            hint="import the weights in bf16, fp16 or fp32: they are trained and merged",
        )
    for name in JSON_FILES:
        if name in here:
            _read_json(source, here[name], wait=wait)
    tensors = _tensors(source, here, wait=wait)
    architectures = config.get("architectures")
    return ModelSummary(
        architectures=tuple(str(name) for name in architectures) if isinstance(architectures, list) else (),
        dtypes=tuple(sorted({tensor.dtype for tensor in tensors.values()})),
        num_tensors=len(tensors),
        num_parameters=sum(tensor.num_elements for tensor in tensors.values()),
        has_custom_code="auto_map" in config,
    )


def _weights(source: Source, here: Mapping[str, SourceFile], *, wait: Wait) -> set[str]:
    if SINGLE in here:  # transformers prefers it too when both are there
        return {SINGLE}
    if INDEX in here:
        return {INDEX, *_weight_map(source, here, wait=wait).values()}
    safe = sorted(name for name in here if name.endswith(WEIGHTS) and "/" not in name)
    if safe:
        raise InputError(
            f"{source.uri} holds {safe[0]} but neither {SINGLE} nor {INDEX}",
            hint="an incomplete download? a model has one of the two",
        )
    unsafe = sorted(name for name in here if name.endswith((".bin", ".pt", ".pth", ".ckpt")) and "/" not in name)
    if unsafe:
        raise InputError(
            f"{source.uri} holds only pickled weights ({unsafe[0]}), which can run code", hint=CONVERT_HINT
        )
    raise InputError(f"{source.uri} holds no safetensors weights", hint=f"a model has {SINGLE} or {INDEX}")


def _weight_map(source: Source, here: Mapping[str, SourceFile], *, wait: Wait) -> dict[str, str]:
    body = _read_json(source, here[INDEX], wait=wait)
    weight_map = body.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{source.uri}: {INDEX} has no weight_map", hint="download it again")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or "/" in shard or "\\" in shard or not shard.endswith(WEIGHTS):
            raise InputError(
                f"{source.uri}: {INDEX} puts {tensor!r} into {shard!r}", hint="a shard is a *.safetensors beside it"
            )
        if shard not in here:
            raise InputError(
                f"{source.uri}: {INDEX} names {shard}, which is not there", hint="an incomplete download? get it again"
            )
    return weight_map


def _tensors(source: Source, here: Mapping[str, SourceFile], *, wait: Wait) -> dict[str, TensorInfo]:
    weight_map = _weight_map(source, here, wait=wait) if INDEX in here else {}
    found: dict[str, TensorInfo] = {}
    shards = [file for name, file in here.items() if name.endswith(WEIGHTS)]
    for tensor in (tensor for shard in shards for tensor in _header(source, shard, wait=wait)):
        if tensor.name in found:
            raise InputError(f"tensor {tensor.name} is in {found[tensor.name].file} and in {tensor.file}")
        found[tensor.name] = tensor
    for name, shard_name in weight_map.items():
        if name not in found or found[name].file != _label(source, here[shard_name]):
            raise InputError(
                f"{source.uri}: {INDEX} puts tensor {name} into {shard_name}, which does not hold it",
                hint="index and shards are of different exports: download or export the model again",
            )
    if not found:
        raise InputError(f"{source.uri}: the weights hold no tensor", hint="export the model again")
    return found


def _header(source: Source, file: SourceFile, *, wait: Wait) -> tuple[TensorInfo, ...]:
    label = _label(source, file)
    start = read_start(source, file, min(USUAL_HEADER_BYTES, file.size), wait=wait)
    end = header_end(start[:LENGTH_BYTES], size=file.size, file=label)
    if end > len(start):
        start = read_start(source, file, end, wait=wait)
    return tensors_of(start[:end], size=file.size, file=label)


def _label(source: Source, file: SourceFile) -> str:
    return f"{source.uri}: {file.name}"


def _read_json(source: Source, file: SourceFile, *, wait: Wait) -> dict[str, Any]:
    label = _label(source, file)
    if file.size > MAX_JSON_BYTES:
        raise InputError(f"{label} is {file.size} bytes, the limit is {MAX_JSON_BYTES}")
    try:
        body = json.loads(read_start(source, file, file.size, wait=wait).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label} is not JSON ({error})", hint="download or export it again") from error
    if not isinstance(body, dict):
        raise InputError(f"{label} is not a JSON object", hint="download or export it again")
    return body
