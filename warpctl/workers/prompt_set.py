"""The prompt set X: read, put through its template, tokenized, filtered and split, the same in rl and in evaluate.

Rows are ordered by the sha256 of their text, so that neither the order of lines nor of files matters; the held-out
prompts are the first of that order, and none of their texts is ever trained on.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet

from warpctl.errors import InputError
from warpctl.spec.models import HeldOutSplit, LongPrompts, PromptFormat, Prompts, PromptTemplate
from warpctl.spec.stage_input import EvaluateTask, RlTask, StageInput
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store

TOKENIZED_AT_ONCE = 1024
SUFFIXES = {PromptFormat.JSONL: ".jsonl", PromptFormat.PARQUET: ".parquet"}


@dataclass(frozen=True)
class PromptSet:
    """Prompts as rewards read them and as the policy reads them, row by row."""

    texts: tuple[str, ...]
    """The text that was tokenized: with template Chat the rendered conversation, of a cut prompt what is left."""
    tokens: tuple[tuple[int, ...], ...]
    num_dropped: int
    """Longer than maxPromptTokens and left out, in the whole source."""
    num_cut: int
    """Longer than maxPromptTokens and cut to their last tokens, in the whole source."""

    def __len__(self) -> int:
        return len(self.texts)


def load_prompts(stage_input: StageInput, store: Store, tokenizer: Any) -> tuple[PromptSet, PromptSet]:
    """(training, evaluation) prompts of an rl or evaluate stage. InputError when one of them is empty."""
    task = stage_input.task
    if not isinstance(task, RlTask | EvaluateTask):
        raise InputError(f"stage {stage_input.stage_id} has no prompts")
    prompts = task.prompts
    everything = _load(Artifact.of(store, stage_input.input("prompts")), prompts, tokenizer)
    if isinstance(prompts.evaluation_split, HeldOutSplit):
        return split_by_text(everything, prompts.evaluation_split.count)
    return everything, _load(Artifact.of(store, stage_input.input("prompts/evaluation")), prompts, tokenizer)


def split_by_text(prompts: PromptSet, count: int) -> tuple[PromptSet, PromptSet]:
    """(training, held out): the first `count` different texts in the order of their hashes are held out."""
    held_out = set(list(dict.fromkeys(prompts.texts))[:count])
    if len(set(prompts.texts)) <= count:
        raise InputError(
            f"{len(set(prompts.texts))} different prompts are left, and {count} are to be held out: none to train on",
            hint="lower prompts.evaluationSplit.count, raise prompts.maxPromptTokens, or give more prompts",
        )

    def rows(*, is_held_out: bool) -> PromptSet:
        chosen = [row for row, text in enumerate(prompts.texts) if (text in held_out) is is_held_out]
        if is_held_out:  # a held-out text counts once however often it occurs
            chosen = list({prompts.texts[row]: row for row in reversed(chosen)}.values())[::-1]
        return PromptSet(
            texts=tuple(prompts.texts[row] for row in chosen),
            tokens=tuple(prompts.tokens[row] for row in chosen),
            num_dropped=prompts.num_dropped,
            num_cut=prompts.num_cut,
        )

    return rows(is_held_out=False), rows(is_held_out=True)


def _load(artifact: Artifact, prompts: Prompts, tokenizer: Any) -> PromptSet:
    values = list(read_values(artifact, prompts))
    prompt_set = tokenized([render(value, prompts.template, tokenizer) for value in values], prompts, tokenizer)
    if not prompt_set.texts:
        raise InputError(
            f"no prompt is left of {len(values)} in {prompts.uri}: {prompt_set.num_dropped} are longer than "
            f"{prompts.max_prompt_tokens} tokens",
            hint="raise prompts.maxPromptTokens, or set prompts.longPrompts to Cut",
        )
    return prompt_set


def read_values(artifact: Artifact, prompts: Prompts) -> Iterator[object]:
    """What stands in the prompts' column, file by file. InputError names file and row."""
    names = [name for name in artifact.names() if name.endswith(SUFFIXES[prompts.format])]
    if not names:
        raise InputError(
            f"{prompts.uri} has no {SUFFIXES[prompts.format]} file; it has {', '.join(artifact.names()) or 'nothing'}",
            hint="set prompts.format to what the files are",
        )
    for name in names:
        data = artifact.read(name)
        rows = _jsonl_rows(name, data) if prompts.format is PromptFormat.JSONL else _parquet_rows(name, data, prompts)
        for place, row in rows:
            if not isinstance(row, dict) or row.get(prompts.column) is None:
                found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
                raise InputError(
                    f"{name}, row {place}: there is no {prompts.column!r}, only {found or 'nothing'}",
                    hint="set prompts.column to the field that holds the prompt",
                )
            yield row[prompts.column]


def _jsonl_rows(name: str, data: bytes) -> Iterator[tuple[int, object]]:
    for place, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield place, json.loads(line)
        except ValueError as error:
            raise InputError(f"{name}, row {place} is not JSON: {error}", hint="one JSON object a line") from error


def _parquet_rows(name: str, data: bytes, prompts: Prompts) -> Iterator[tuple[int, object]]:
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        if prompts.column not in file.schema_arrow.names:
            yield 1, dict.fromkeys(file.schema_arrow.names)
            return
        place = 0
        for batch in file.iter_batches(columns=[prompts.column]):
            for value in batch.column(0).to_pylist():
                place += 1
                yield place, {prompts.column: value}
    except pyarrow.ArrowException as error:
        raise InputError(f"{name} is not a Parquet file that can be read: {error}", hint="write it again") from error


def render(value: object, template: PromptTemplate, tokenizer: Any) -> str:
    """The text of one prompt: as it is, or through the chat template with the assistant's turn opened."""
    if template is PromptTemplate.PLAIN:
        if not isinstance(value, str):
            raise InputError(
                f"a prompt is a {type(value).__name__}, not a text: {str(value)[:80]}",
                hint="conversations need prompts.template: Chat",
            )
        return value
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "prompts.template is Chat, and the SFT policy's tokenizer has no chat template",
            hint="set prompts.template to Plain, or add chat_template.jinja to the SFT policy",
        )
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # whatever a template raises about its messages
        raise InputError(
            f"the chat template refuses {str(messages)[:120]}: {error}",
            hint="messages are {role, content}, in the order that the template wants",
        ) from error


def tokenized(texts: Sequence[str], prompts: Prompts, tokenizer: Any) -> PromptSet:
    """Tokenize, then drop or cut what is too long; rows in the order of the sha256 of their text."""
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    kept_texts: list[str] = []
    kept_tokens: list[tuple[int, ...]] = []
    num_dropped = num_cut = 0
    for start in range(0, len(ordered), TOKENIZED_AT_ONCE):
        part = ordered[start : start + TOKENIZED_AT_ONCE]
        # a rendered conversation has its special tokens already
        add_special_tokens = prompts.template is PromptTemplate.PLAIN
        for text, tokens in zip(part, tokenizer(part, add_special_tokens=add_special_tokens)["input_ids"], strict=True):
            opened = _without_end(tokens, tokenizer.eos_token_id) if add_special_tokens else tokens
            if not opened:
                num_dropped += 1
            elif len(opened) <= prompts.max_prompt_tokens:
                kept_texts.append(text)
                kept_tokens.append(tuple(opened))
            elif prompts.long_prompts is LongPrompts.DROP:
                num_dropped += 1
            else:
                num_cut += 1
                kept_tokens.append(tuple(opened[-prompts.max_prompt_tokens :]))
                kept_texts.append(tokenizer.decode(list(kept_tokens[-1]), skip_special_tokens=True))
    return PromptSet(texts=tuple(kept_texts), tokens=tuple(kept_tokens), num_dropped=num_dropped, num_cut=num_cut)


def _without_end(tokens: Sequence[int], end_token: int | None) -> Sequence[int]:
    """Some tokenizers close every text; a prompt must stay open."""
    return tokens[:-1] if tokens and tokens[-1] == end_token else tokens
