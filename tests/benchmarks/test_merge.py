"""The benchmark of merging runs, without mergekit and obstore and without a look at the clock: all parts, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.merge.architecture import GEMMA, LLAMA
from tests.benchmarks.merge.checkpoint import write
from tests.benchmarks.merge.measure import Contestant, in_turns, measured
from tests.benchmarks.merge.models import models, require_space
from warpctl.storage.headers import LENGTH_BYTES, parse_header

TOP = Path(__file__).parents[2]
TINY = LLAMA.scaled(1e-5)


def figures_of(folder, *parts):
    command = [sys.executable, "-m", "tests.benchmarks.merge", "--only", *parts, "--scale", "1e-5", "--repeat", "1"]
    options = ["--folder", str(folder), "--cold", "files"]
    done = subprocess.run([*command, *options], cwd=TOP, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_last_line_has_the_figures_of_local_merges_and_none_of_what_was_not_run(tmp_path):
    figures = figures_of(tmp_path, "a", "b", "c")

    assert figures["over_copy_cold"] > 0
    assert figures["over_copy_warm"] > 0
    assert figures["peak_rss_mib"] > 20
    assert figures["gemma7b_peak_rss_mib"] > 20
    assert sorted(figures["s_per_gb_read"]) == ["2", "4", "8"]
    assert figures["mergekit_over_ours"] is None
    assert figures["gs_over_floor"] is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_object_stores_exports_and_loads_have_figures_too(tmp_path):
    figures = figures_of(tmp_path, "d", "e")

    assert figures["gs_over_floor"] is None
    assert all(count > 0 for count in figures["gs_requests"].values())
    for name in ("gs_workers_s", "gs_workers_cpu_s", "gs_workers_requests", "gs_workers_peak_rss_mib"):
        assert list(figures[name]) == ["1", "2", "4"]
        assert all(figure > 0 for figure in figures[name].values())
    for name in ("export_float32", "export_bfloat16", "load", "load_kept", "verify"):
        assert figures[f"{name}_gb_per_s"] > 0


def test_the_sizes_are_those_that_the_figures_speak_of():
    assert LLAMA.num_parameters == 1_100_048_384
    assert round(4 * GEMMA.num_bytes / 1e9, 1) == 68.3
    assert LLAMA.scaled(1) == LLAMA
    assert LLAMA.scaled(0.05).num_parameters == pytest.approx(0.05 * LLAMA.num_parameters, rel=0.1)


def tensors_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    header = parse_header(data[LENGTH_BYTES : LENGTH_BYTES + length], file=path.name, file_bytes=len(data))
    bits = {
        tensor.name: np.frombuffer(data[tensor.start : tensor.end], "<u2").reshape(tensor.shape) for tensor in header
    }
    return {name: (each.astype(np.uint32) << 16).view(np.float32).astype(float) for name, each in bits.items()}


def test_members_are_the_init_and_small_orthogonal_steps(tmp_path):
    with models(TINY, tmp_path / "models", num_policies=2) as made:
        init, one, two = (tensors_of(path / "model.safetensors") for path in made.all)
    assert {name: each.shape for name, each in init.items()} == TINY.shapes()
    steps = [np.concatenate([(member[name] - init[name]).ravel() for name in init]) for member in (one, two)]
    for step in steps:
        assert 0.45 < np.count_nonzero(step) / step.size < 0.55
    assert abs(steps[0] @ steps[1]) < 0.1 * np.linalg.norm(steps[0]) * np.linalg.norm(steps[1])
    weights = np.concatenate([each.ravel() for each in init.values()])
    assert np.linalg.norm(steps[0]) < 0.01 * np.linalg.norm(weights)


def test_sparse_members_are_zero_but_for_the_first_rows(tmp_path):
    write(TINY, tmp_path / "whole", member=1, is_sparse=False)
    write(TINY, tmp_path / "sparse", member=1, is_sparse=True)
    whole, sparse = (tensors_of(tmp_path / name / "model.safetensors") for name in ("whole", "sparse"))
    name = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(sparse[name][:4], whole[name][:4])
    assert not sparse[name][4:].any()
    assert sparse["model.norm.weight"].all()


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)part a needs 1000000\.0 GB below .*hint: name another --folder"):
        require_space(tmp_path, 10**15, "part a")


def test_a_side_that_fails_ends_the_benchmark_with_its_last_words():
    with pytest.raises(SystemExit, match=r"ended with 3:\nno such thing"):
        measured(["sh", "-c", "echo no such thing >&2; exit 3"], output=None, environment={})


def test_the_order_turns_round_and_each_is_cleared_before_and_after(tmp_path):
    log = tmp_path / "log"

    def contestant(name):
        def write_down(what):
            with log.open("a") as file:
                file.write(f"{what}{name} ")

        command = ["sh", "-c", f"echo {name} > $TARGET/{name}; printf 'run{name} ' >> {log}"]
        return Contestant(
            name,
            lambda: command,
            tmp_path,
            lambda: write_down("prepare"),
            {"TARGET": str(tmp_path)},
            lambda: write_down("clear"),
        )

    samples = in_turns([contestant("a"), contestant("b")], 2)
    turn = "clear{0} prepare{0} run{0} clear{0} "
    assert log.read_text() == "".join(turn.format(name) for name in "abba")
    assert all(one.synced >= one.ended > 0 and one.peak_mib > 0 for one in [*samples["a"], *samples["b"]])
