"""What a terminal can show. It changes styling and the spelling of symbols, never what is said."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TextIO

RED, GREEN, YELLOW, CYAN, BOLD, DIM = "31", "32", "33", "36", "1", "2"

_STYLING = re.compile(r"\x1b\[[0-9;]*m")
_WORD = re.compile(r"( *)([^ ]+)")


@dataclass(frozen=True, slots=True)
class Symbols:
    """Icons stand beside words, never alone."""

    done: str
    running: str
    waiting: str
    retrying: str
    failed: str
    skipped: str
    pointer: str
    branch: str
    last_branch: str
    bar_done: str
    bar_left: str
    plus_minus: str


UNICODE = Symbols(
    done="\u2714",
    running="\u25cf",
    waiting="\u25cb",
    retrying="\u21bb",
    failed="\u2718",
    skipped="\u2013",
    pointer="\u2570\u2500\u25b6",
    branch="\u251c\u2500",
    last_branch="\u2514\u2500",
    bar_done="\u2501",
    bar_left="\u2500",
    plus_minus="\u00b1",
)
ASCII = Symbols(
    done="+",
    running="*",
    waiting=".",
    retrying="~",
    failed="x",
    skipped="-",
    pointer="`->",
    branch="|-",
    last_branch="`-",
    bar_done="#",
    bar_left="-",
    plus_minus="+-",
)


def is_plain() -> bool:
    """Whether the user wants no styling: NO_COLOR or --no-color (main.py turns the flag into the variable)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def has_style(stream: TextIO) -> bool:
    """Whether colour, bold and dim may be written to `stream`."""
    return stream.isatty() and not is_plain()


def symbols(stream: TextIO) -> Symbols:
    """ASCII for streams that cannot say more, and for who asked for plain output."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    return UNICODE if encoding == "utf8" and not is_plain() else ASCII


def paint(text: str, style: str, stream: TextIO) -> str:
    """`text` with one of the styles above, where the stream may have it."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text and has_style(stream) else text


def spell(text: str, stream: TextIO) -> str:
    """`text` in letters that the stream can write."""
    if symbols(stream) is UNICODE:
        return text
    text = text.replace("\u00b1", ASCII.plus_minus).replace("\u2026", "...")
    return text.encode("ascii", "backslashreplace").decode() if is_plain() or _cannot(text, stream) else text


def _cannot(text: str, stream: TextIO) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def columns(stream: TextIO) -> int | None:
    """How wide the terminal is that `stream` leads to; None when it is none, so that nothing is ever folded in a file."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def visible_width(text: str) -> int:
    """Cells that `text` takes, its styling apart."""
    return len(_STYLING.sub("", text))


def fold(text: str, width: int | None) -> str:
    """`text` with its long lines broken at spaces, what is left indented two more; a word that is too long stays whole."""
    if width is None:
        return text
    return "\n".join(_fold_line(line, width) for line in text.split("\n"))


def _fold_line(line: str, width: int) -> str:
    if visible_width(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")))
    lines, current = [], indent
    for gap, word in _WORD.findall(line[len(indent) :]):
        if current.strip(" ") and visible_width(current + gap + word) > width:
            lines.append(current)
            current = f"{indent}  {word}"
        else:
            current += gap + word
    return "\n".join([*lines, current])


def result(text: str, *, is_folded: bool = True) -> None:
    """A result: stdout. What programs read, or a user copies, is not folded."""
    text = spell(text, sys.stdout)
    print(fold(text, columns(sys.stdout)) if is_folded else text, flush=True)


def note(text: str, *, is_folded: bool = True) -> None:
    """Anything else: stderr."""
    text = spell(text, sys.stderr)
    print(fold(text, columns(sys.stderr)) if is_folded else text, file=sys.stderr, flush=True)


def warn(text: str, *, hint: str = "") -> None:
    """Something that does not stop the command."""
    note(f"{paint('warning:', YELLOW, sys.stderr)} {text}")
    if hint:
        note(f"{paint('hint:', CYAN, sys.stderr)} {hint}")


def has_somebody_to_ask() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def is_agreed(question: str) -> bool:
    """Ask; everything but a yes is a no."""
    note(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def next_steps(*commands: str) -> None:
    """What one would type next, each as `command` or `command  # why`."""
    note("")
    note(paint("next:", DIM, sys.stderr))
    for command in commands:
        note(f"  {command}", is_folded=False)  # to be copied


_BAR_CELLS = 12


def bar(share: float, marks: Symbols) -> str:
    """A bar of 12 cells."""
    done = round(_BAR_CELLS * min(max(share, 0.0), 1.0))
    return marks.bar_done * done + marks.bar_left * (_BAR_CELLS - done)
