"""Compiled kernels are found again, are for the right processor, and are never used when they are not what was written."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from warpctl.errors import FinalError, RetryableError
from warpctl.merging import compiled_code
from warpctl.merging.compiled_code import PROCESSORS, Processor, file_name, this_processor

TREE = Path(compiled_code.__file__).parents[2]
USE = """
import numpy as np, sys
from warpctl.merging import compiled_code, kernels
compiled_code.compile_for = lambda processor, old=compiled_code.compile_for: (print("compiled"), old(processor))[1]
found = np.empty((1, 2, 2))
kernels.inner_products(kernels.Inputs([np.ones(9, np.float32)] * 2), slice(0, 9), found)
print(found[0, 0, 0], "numba" in sys.modules)
"""


def used(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE],
        env={**os.environ, "PYTHONPATH": str(TREE), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with this machine's code, as an image has."""
    processor = this_processor()
    compiled_code.write(tmp_path / "built" / file_name(processor), compiled_code._code(processor))
    return tmp_path / "built"


def a_copy_of_the_package(folder: Path) -> Path:
    """With no compiled code, and no place to keep any: files stand where the folders should be, which stops root too."""
    tree = shutil.copytree(TREE / "warpctl", folder / "tree" / "warpctl", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "merging" / "loops" / "__pycache__").touch()
    (folder / "cache").touch()
    return tree.parent


def test_what_an_image_was_built_with_is_used_without_numba(built: Path, tmp_path: Path) -> None:
    tree = a_copy_of_the_package(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in built.iterdir()}

    said = used(PYTHONPATH=str(tree), XDG_CACHE_HOME=str(tmp_path / "cache"), WARPCTL_KERNELS=str(built))

    assert said == "9.0 False\n"
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == files


def test_code_that_cannot_be_kept_is_compiled_for_this_process(tmp_path: Path) -> None:
    tree = a_copy_of_the_package(tmp_path)
    said = used(PYTHONPATH=str(tree), XDG_CACHE_HOME=str(tmp_path / "cache"), WARPCTL_KERNELS="")
    assert said == "compiled\n9.0 False\n"


def test_damaged_code_is_compiled_again_and_replaced(built: Path) -> None:
    (file,) = built.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b""):
        file.write_bytes(damaged)
        assert compiled_code._read(file) is None
    said = used(WARPCTL_KERNELS=str(built), PYTHONDONTWRITEBYTECODE="1")
    assert said.endswith("9.0 False\n")


@pytest.mark.skipif(len(PROCESSORS) == 1, reason="other machines have one kind of code")
def test_the_best_code_that_the_processor_has_flags_for_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    best, second = PROCESSORS
    for flags, expected in [
        (best.flags | {"more"}, best.name),
        (best.flags - {"avx512vl"}, second.name),
        (second.flags, second.name),
        (second.flags - {"avx2"}, "x86-64"),
        (frozenset(), "x86-64"),
    ]:
        monkeypatch.setattr(compiled_code, "_flags", lambda flags=flags: flags)
        assert this_processor().name == expected


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda each: each.name)
def test_every_processor_gives_the_same_bits(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from warpctl.merging import kernels

    if not processor.flags <= compiled_code._flags():
        pytest.skip("this machine cannot run it")
    rng = np.random.default_rng(0)
    stored_K = [rng.integers(0, 0x7F00, 70_001).astype(np.uint16) for _ in range(3)]

    def bits() -> tuple[bytes, bytes]:
        products_BKK, merged = np.empty((3, 3, 3)), np.empty(70_001, np.uint16)
        inputs, nothing = kernels.Inputs(stored_K), np.empty(0, np.float32)
        kernels.inner_products(inputs, slice(0, 70_001), products_BKK)
        next_init = kernels.Rounded(nothing, merged)
        kernels.combine(
            inputs,
            np.array([-0.3, 0.6, 0.7]),
            slice(0, 70_001),
            liti_rate=0.3,
            merged=kernels.Rounded(nothing, np.empty(0, np.uint16)),
            next_init=next_init,
        )
        return products_BKK.tobytes(), merged.tobytes()

    expected = bits()
    request.addfinalizer(compiled_code._engine.cache_clear)
    request.addfinalizer(compiled_code.kernel.cache_clear)
    kept = compiled_code._engine()
    compiled_code._engine.cache_clear()
    compiled_code.kernel.cache_clear()
    monkeypatch.setattr(compiled_code, "this_processor", lambda: processor)
    assert bits() == expected
    del kept


def test_threads_that_need_the_code_at_once_make_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of a second one would be freed while it is called."""
    made: list[object] = []
    meeting = threading.Barrier(4)

    class Engine:
        def get_function_address(self, name: str) -> int:
            return compiled_code.ctypes.addressof(compiled_code._UNUSED)

    def slow_engine() -> Engine:
        made.append(None)
        time.sleep(0.05)
        return Engine()

    monkeypatch.setattr(compiled_code, "_engine", functools.cache(slow_engine))
    monkeypatch.setattr(compiled_code, "kernel", functools.cache(compiled_code.kernel.__wrapped__))

    def ask() -> None:
        meeting.wait(10)
        compiled_code.kernel("combine")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_compiler_that_fails_is_told_of_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FinalError, match=r"cannot be compiled for no-such-processor: .") as raised:
        compiled_code.compile_for(Processor("no-such-processor", "+no,such"))
    assert "\n" not in raised.value.message


def test_what_is_built_by_one_user_may_be_read_by_another(built: Path) -> None:
    assert [oct(path.stat().st_mode & 0o777) for path in built.iterdir()] == ["0o644"]


def test_what_somebody_else_has_put_there_is_not_run(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = built.iterdir()
    assert compiled_code._read(file)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    os.chown(file, 12345, -1) if os.getuid() == 0 else None
    assert compiled_code._read(file) is None


def test_code_is_named_by_the_machine_and_the_compiler_too(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = this_processor()
    names = {file_name(processor), file_name(Processor(processor.name, "+more"))}
    with monkeypatch.context() as patch:
        patch.setattr(compiled_code.sys, "platform", "other")
        names.add(file_name(processor))
    with monkeypatch.context() as patch:
        patch.setattr(compiled_code, "version", lambda _: "0.0")
        names.add(file_name(processor))
    assert len(names) == 4


def test_a_compiler_that_was_killed_may_have_better_luck_later(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(compiled_code.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(RetryableError, match="was killed"):
        compiled_code.compile_for(this_processor())
