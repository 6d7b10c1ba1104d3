"""Errors: the cause, where, what to do; exit codes as the table says; no traceback ever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tests.unit.cli.conftest import FAKE, Place
from tests.unit.cli.golden import check
from warpctl.cli import main as main_module
from warpctl.errors import (
    BusyError,
    CorruptError,
    FinalError,
    InputError,
    NumericsError,
    SpecError,
    StoreDeniedError,
    StoreUnavailableError,
    UserError,
    WarpctlError,
)

BAD = {"merge": {"litiRate": "1.3"}, "training": {"steps": [10], "klCoefficient": 0.1}, "speed": 3}


def test_a_bad_spec_shows_all_problems_with_place_and_hint(place: Place, warpctl) -> None:
    place.write_spec("bad.yaml", **BAD)

    said = warpctl(place, "validate", "bad.yaml")

    assert (said.code, said.out) == (2, "")
    check("error-bad-spec.txt", said.err)


def test_plain_terminals_get_the_same_in_ascii(place: Place, warpctl, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_spec("bad.yaml", **BAD)
    fancy = warpctl(place, "validate", "bad.yaml").err
    plain = warpctl(place, "--no-color", "validate", "bad.yaml").err

    assert plain.isascii()
    assert plain == fancy.replace("\u2570\u2500\u25b6", "`->")
    monkeypatch.delenv("NO_COLOR")


def test_a_stream_that_is_not_utf8_gets_ascii(place: Place) -> None:
    import subprocess
    import sys

    place.write_spec("bad.yaml", **BAD)
    done = subprocess.run(
        [sys.executable, str(FAKE), "validate", "bad.yaml"],
        cwd=place.folder,
        env=place.environment | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert done.stderr.isascii()
    assert b"`-> bad.yaml:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("status nobody", 'error: there is no spec file and no run called "nobody"'),
        ("validate no.yaml", "error: no.yaml there is no such file"),
        ("gc nowhere", "error: there is no store at nowhere"),
        ("gc . --min-age 3w", 'error: "3w" is not a duration'),
        ("gc . --yes --dry-run", "error: --yes and --dry-run exclude each other"),
        ("logs demo.yaml rl/9", 'error: the run has no stage "rl/9"'),
        ("logs demo.yaml import", "error: there is no log of import yet"),
        ("logs demo.yaml --previous --attempt 2", "error: --previous and --attempt exclude each other"),
        ("logs demo.yaml --follow --attempt 2", "error: --follow shows the newest attempts only"),
        ("report demo.yaml", "error: nothing is evaluated yet, so there is nothing to report"),
        ("export demo.yaml --to out", "error: say which point: give either --liti-rate or --max-kl"),
        ("export demo.yaml --to out --max-kl 3", "error: the run has no evaluated points yet"),
        ("export demo.yaml --to out --max-kl x", 'error: --max-kl must be a number, got "x"'),
        ("export demo.yaml --to out --liti-rate 3", "error: --liti-rate must be in (0, 2], got 3"),
        ("export demo.yaml --to out --liti-rate 1", "error: no iteration is merged yet"),
        ("export demo.yaml --to out --max-kl 1 --iteration 1", "error: --iteration goes with --liti-rate only"),
        ("schema spec.speed", "error: a WarpRun has no field spec.speed"),
        ("run", "error: missing argument 'SPEC'"),
        ("run demo.yaml --fast", "error: no such option: --fast"),
        ("walk", "error: no such command 'walk'"),
        ("status demo.yaml -o xml", "error: invalid value for '--output'"),
    ],
)
def test_bad_input_is_exit_code_2_with_a_cause_and_a_hint(place: Place, warpctl, arguments: str, expected: str) -> None:
    said = warpctl(place, *arguments.split())

    assert said.code == 2, said
    assert said.err.startswith(expected), said.err
    assert "\nhint: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), 2),
        (SpecError(()), 2),
        (BusyError("x"), 2),
        (WarpctlError("x"), 1),
        (FinalError("x"), 1),
        (InputError("x"), 1),
        (NumericsError("x"), 1),
        (StoreDeniedError("x"), 1),
        (StoreUnavailableError("x"), 1),
        (CorruptError("x"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (typer.Exit(0), 0),
        (typer.Exit(130), 130),
        (KeyError("x"), 1),
    ],
)
def test_every_way_to_end_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main_module, "app", app)

    assert main_module.run_command([]) == code


def test_a_bug_is_one_line_and_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fails() -> None:
        raise ValueError("a\nb")

    monkeypatch.setattr(main_module, "app", app)
    main_module.run_command([])
    lines = capsys.readouterr().err.splitlines()

    assert lines[0] == "error: warpctl failed unexpectedly: ValueError: a"
    assert lines[2].startswith("hint: this is a bug of warpctl")
    path = re.fullmatch(r".* traceback: (/.+\.txt)", lines[1])
    assert path is not None
    assert "in fails" in Path(path[1]).read_text()


def test_the_reader_of_the_output_may_leave_early(finished: Place) -> None:
    import subprocess
    import sys

    command = f"{sys.executable} {FAKE} schema | head -1"
    done = subprocess.run(
        ["bash", "-c", command], env=finished.environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr
