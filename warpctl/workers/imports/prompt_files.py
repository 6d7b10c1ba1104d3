"""Which files make up a prompt set, and whether they hold prompts at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from warpctl.errors import InputError
from warpctl.workers.sources.base import Source, SourceFile, read_start

SUFFIXES = (".jsonl", ".parquet")
PARQUET_MAGIC = b"PAR1"
PARQUET_LEAST_BYTES = 12
FIRST_LINE_BYTES = 1024 * 1024


def select(source: Source, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The file, or every *.jsonl and *.parquet below the folder; hidden and empty ones are left out."""
    chosen = [file for file in files if file.name.lower().endswith(SUFFIXES) and not _is_hidden(file.name)]
    if not chosen:
        found = ", ".join(file.name for file in files[:5]) or "nothing"
        raise InputError(
            f"{source.uri} holds no prompts: no *.jsonl or *.parquet, found {found}",
            hint="one JSON object a line, or Parquet; decompress *.gz and *.zst first",
        )
    full = [file for file in chosen if file.size]
    if not full:
        raise InputError(f"{source.uri} holds no prompts: {chosen[0].name} is empty", hint="check where it was written")
    return full


def check(source: Source, files: Sequence[SourceFile], *, wait: Callable[[float], None]) -> None:
    """Refuse a prompt set in which the first non-blank line is no JSON object, or that is no Parquet."""
    num_blank = 0
    for file in files:
        start = read_start(source, file, min(file.size, FIRST_LINE_BYTES), wait=wait)
        label = f"{source.uri}: {file.name}"
        if file.name.lower().endswith(".parquet"):
            if not start.startswith(PARQUET_MAGIC) or file.size < PARQUET_LEAST_BYTES:
                raise InputError(f"{label} is not a Parquet file", hint="check `format` and how it was written")
        elif start.strip():
            _check_first_line(start, is_whole=len(start) == file.size, label=label)
        else:
            num_blank += 1
    if num_blank == len(files):
        raise InputError(f"{source.uri} holds no prompts: only blank lines", hint="check where it was written")


def _check_first_line(start: bytes, *, is_whole: bool, label: str) -> None:
    line, newline, _ = start.lstrip().partition(b"\n")
    if not newline and not is_whole:
        return  # a first line above 1 MiB is judged by who reads the prompts
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: its first line is not JSON ({error})", hint="one JSON object a line") from error
    if not isinstance(body, dict):
        raise InputError(f"{label}: its first line is not a JSON object", hint='such as {"prompt": "..."}')


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
