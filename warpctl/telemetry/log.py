"""Log lines are an event plus fields (run, stage, attempt), never prose built from parts."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import IO, Any

import structlog

MAX_KEPT_BYTES = 4 * 1024 * 1024


class Transcript:
    """Writes to a stream and keeps the newest lines, so that a worker can leave its log in the store."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._lines: list[str] = []
        self._size = 0

    def write(self, text: str) -> int:
        self._lines.append(text)
        self._size += len(text)
        while self._size > MAX_KEPT_BYTES:
            self._size -= len(self._lines.pop(0))
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def text(self) -> str:
        """What was written, at most the newest 4 MiB."""
        return "".join(self._lines)


def _render(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    fields = dict(event)
    head = f"{fields.pop('timestamp')} {fields.pop('level'):<7} {fields.pop('event')}"
    trace = fields.pop("exception", None)
    pairs = " ".join(f"{name}={_quote(value)}" for name, value in fields.items())
    line = f"{head} {pairs}".rstrip()
    return f"{line}\n{trace}" if trace else line


def _quote(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text or not text else text


def logger(stream: IO[str] | Transcript, **fields: str) -> structlog.stdlib.BoundLogger:
    """A logger that writes `time level event field=value ...` lines to `stream`."""
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),  # type: ignore[arg-type]  # a Transcript has the two methods that are used
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    return log.bind(**fields)
