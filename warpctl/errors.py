"""Every exception that warpctl raises on purpose, by who must act.

    WarpctlError                    has a message, a hint, and an exit code
    ├── UserError                   the user must change something; the CLI exits with 2
    │   ├── SpecError               a WarpRun that cannot be accepted: all of its problems at once
    │   └── BusyError               another engine holds this run on this machine
    ├── FinalError                  a worker cannot succeed however often it is tried (exit 42)
    │   ├── InputError              an input artifact, model or prompt set that cannot be used
    │   └── NumericsError           NaN or Inf where a finite number is needed
    ├── RetryableError              the next attempt may succeed (exit 43)
    │   ├── StoreUnavailableError   the object store did not answer, after retries
    │   └── CorruptError            stored bytes differ from their digests
    ├── StoreDeniedError            missing bucket or permission: final, names identity and URI
    └── Interrupted                 SIGTERM was obeyed: state saved, nothing published (exit 44)

Errors say where, what, why, and what to do next; the hint is the last of these.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_FINAL = 42
EXIT_RETRYABLE = 43
EXIT_INTERRUPTED = 44
EXIT_CTRL_C = 130


class WarpctlError(Exception):
    """Base of all; `hint` says what to do next, `exit_code` what the process returns."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(WarpctlError):
    """The user must change something."""

    exit_code = EXIT_BAD_INPUT


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec: `path` is dotted (spec.merge.litiRate), `line` and `column` count from 1."""

    path: str
    message: str
    value: str = ""
    hint: str = ""
    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        got = f", got {self.value}" if self.value else ""
        text = f"{self.path} {self.message}{got}" if self.path else f"{self.message}{got}"
        return f"{text} ({place})" if place else text


class SpecError(UserError):
    """A spec with one or more problems, all of them listed."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class BusyError(UserError):
    """Another process works on the same run on this machine."""


class FinalError(WarpctlError):
    """A worker failure that no retry can mend."""

    exit_code = EXIT_FINAL


class InputError(FinalError):
    """An input that cannot be used: missing, malformed, mismatched."""


class NumericsError(FinalError):
    """A number that must be finite is not, or a computation has no answer."""


class RetryableError(WarpctlError):
    """A worker failure that another attempt may not meet."""

    exit_code = EXIT_RETRYABLE


class StoreUnavailableError(RetryableError):
    """The store did not answer within its retries."""


class CorruptError(RetryableError):
    """Bytes that were read do not have the digest that their manifest promises."""


class StoreDeniedError(FinalError):
    """The bucket is missing or this identity may not use it."""


class Interrupted(WarpctlError):
    """The process was asked to stop and saved what it could."""

    exit_code = EXIT_INTERRUPTED
