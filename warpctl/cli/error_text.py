"""How an error looks: the cause, where, and what to do about it."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from warpctl.cli.terminal import CYAN, RED, columns, fold, paint, spell, symbols
from warpctl.errors import EXIT_BAD_INPUT, EXIT_FAILED, Problem, SpecError, WarpctlError


def error_text(error: WarpctlError, stream: TextIO) -> str:
    """All that is to be said of an error, ready for `stream`.

    error: spec.merge.litiRate must be in [0, 1], got "1.3"
      `-> specs/demo.yaml:23:15
    hint: 0 keeps the init, 1 keeps the merged policy
    """
    if isinstance(error, SpecError):
        text = "\n\n".join("\n".join(_problem_lines(problem, stream)) for problem in error.problems)
    else:
        text = "\n".join(_lines(error.message, "", error.hint, stream))
    return fold(text, columns(stream))


def _problem_lines(problem: Problem, stream: TextIO) -> Iterator[str]:
    got = f", got {problem.value}" if problem.value else ""
    place = f"{problem.source}:{problem.line}:{problem.column}" if problem.line else problem.source
    return _lines(f"{problem.path} {problem.message}{got}".strip(), place, problem.hint, stream)


def _lines(cause: str, place: str, hint: str, stream: TextIO) -> Iterator[str]:
    yield spell(f"{paint('error:', RED, stream)} {cause}", stream)
    if place:
        yield spell(f"  {symbols(stream).pointer} {place}", stream)
    if hint:
        yield spell(f"{paint('hint:', CYAN, stream)} {hint}", stream)


def show_error(error: WarpctlError) -> int:
    """Print an error; what comes back is the exit code of the command."""
    print(error_text(error, sys.stderr), file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT if error.exit_code == EXIT_BAD_INPUT else EXIT_FAILED


def show_usage_error(message: str, command: str) -> int:
    """A wrong command line."""
    lines = _lines(
        message[:1].lower() + message[1:].rstrip("."), "", f"`{command} --help` lists what it takes", sys.stderr
    )
    print(fold("\n".join(lines), columns(sys.stderr)), file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT


def show_crash(error: Exception) -> int:
    """A mistake of ours: one line, and the traceback in a file."""
    cause = f"warpctl failed unexpectedly: {type(error).__name__}: {error}".splitlines()[0]
    hint = "this is a bug of warpctl: please report it with that file and the output of `warpctl version`"
    lines = _lines(cause, f"traceback: {_write_traceback(error)}", hint, sys.stderr)
    print("\n".join(lines), file=sys.stderr, flush=True)
    return EXIT_FAILED


def _write_traceback(error: Exception) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    handle, path = tempfile.mkstemp(prefix=f"warpctl-crash-{stamp}-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{' '.join(sys.argv)}\n")
        traceback.print_exception(error, file=file)
    return Path(path)
