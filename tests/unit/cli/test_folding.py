"""Narrow terminals: long lines break at spaces, tables become blocks; in a file nothing changes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest

from warpctl.cli.error_text import error_text
from warpctl.cli.output import OutputFormat, emit
from warpctl.cli.table import table_text
from warpctl.cli.terminal import fold, next_steps, note, paint, result, visible_width
from warpctl.errors import UserError

COLUMNS, ROWS = ["STAGE", "STATE", "NOTE"], [["rl/1/1", "Running", ""], ["merge/1", "Waiting", "for four members"]]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 40 columns; `on` makes it stdout and stderr (within a test: pytest sets its own before that)."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


@contextlib.contextmanager
def on(screen: Terminal) -> Iterator[None]:
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        yield


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("short", "short"),
        ("one two three", "one two\n  three"),
        ("  one two three", "  one two\n    three"),
        ("a averyveryverylongword b", "a\n  averyveryverylongword\n  b"),
        ("averyveryverylongword", "averyveryverylongword"),
        ("a  b\n\none two three", "a  b\n\none two\n  three"),
    ],
)
def test_lines_break_at_spaces_and_hang(text: str, folded: str) -> None:
    assert fold(text, 9) == folded
    assert fold(text, None) == text


def test_styling_takes_no_room() -> None:
    text = "\x1b[31merror:\x1b[0m ab"

    assert visible_width(text) == 9
    assert fold(text, 9) == text
    assert fold(text, 8) == "\x1b[31merror:\x1b[0m\n  ab"


def test_an_error_is_folded_on_a_terminal_and_whole_in_a_file(terminal: Terminal) -> None:
    error = UserError("the run has no evaluated points yet, and none is coming", hint="wait for the first report of it")

    assert max(map(len, error_text(error, terminal).splitlines())) <= 40
    assert error_text(error, io.StringIO()).splitlines() == [f"error: {error.message}", f"hint: {error.hint}"]


def test_what_is_copied_or_read_by_programs_is_never_folded(terminal: Terminal) -> None:
    command = "warpctl export specs/a-long-name.yaml --max-kl 10 --to a/folder"
    with on(terminal):
        next_steps(command)
        emit(OutputFormat.JSON, document={"why": command}, names=[], tables=str)
        emit(OutputFormat.NAME, document={}, names=[command], tables=str)

    assert terminal.getvalue().count(command) == 3


def test_results_and_notes_are_folded(terminal: Terminal) -> None:
    with on(terminal):
        result("best with KL at most 20: iteration 2, LITI 0.3, reward 1.2")
        note("best with KL at most 20: iteration 2, LITI 0.3, reward 1.2")

    assert terminal.getvalue() == "best with KL at most 20: iteration 2,\n  LITI 0.3, reward 1.2\n" * 2


def test_a_table_that_does_not_fit_becomes_blocks_with_all_of_its_cells(terminal: Terminal) -> None:
    with on(terminal):
        fits = table_text(COLUMNS, ROWS)
        blocks = table_text(COLUMNS, [*ROWS, ["report", "Waiting", "for what comes before it"]])

    assert fits.splitlines()[0] == "STAGE    STATE    NOTE"
    assert blocks.splitlines() == [
        "STAGE  rl/1/1",
        "  STATE  Running",
        "STAGE  merge/1",
        "  STATE  Waiting",
        "  NOTE   for four members",
        "STAGE  report",
        "  STATE  Waiting",
        "  NOTE   for what comes before it",
    ]


def test_a_table_in_a_file_keeps_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")

    with contextlib.redirect_stdout(io.StringIO()):
        text = table_text(COLUMNS, ROWS)

    assert text.splitlines()[2] == "merge/1  Waiting  for four members"


def test_a_styled_word_is_painted_only_where_there_is_style(terminal: Terminal) -> None:
    assert paint("x", "31", terminal) == "x"
