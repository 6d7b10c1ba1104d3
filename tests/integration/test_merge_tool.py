"""`warpctl merge` as a process: what transformers saved is merged and loads again, in buckets, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import merge_files
from tests.builders.model_folder import write_folder
from tests.servers.object_stores import ObjectStore, running_fake_gcs, running_moto
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint

pytestmark = pytest.mark.integration

TOP = Path(__file__).parents[2]
CONFIG = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32,
}  # fmt: skip
LARGE = {f"model.layers.{layer}.mlp.up.weight": (1024, 2048) for layer in range(24)}
"""200 MB of float32 in each input: a merge that can be hit in the middle."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "warpctl", "merge", *arguments]


SLOW = """
import time
from warpctl.cli.main import main
from warpctl.storage.new_folder import NewFolder

note = NewFolder._note

def slowly(folder, name):
    note(folder, name)
    if name.startswith("model-00001-"):
        time.sleep(3)

NewFolder._note = slowly
main()
"""
"""The tool, waiting when its first file of several is there: a merge takes less time than to see that."""


def slow_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SLOW, "merge", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TOP), "OMP_NUM_THREADS": "1"}


def merge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("dtype", "stored"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_what_transformers_saved_is_merged_and_loads_again(tmp_path: Path, dtype: str, stored: torch.dtype) -> None:
    torch.manual_seed(0)
    init = GemmaForCausalLM(GemmaConfig(**CONFIG)).to(torch.bfloat16)
    init.save_pretrained(tmp_path / "init", max_shard_size="10KB")
    for name in ("one", "two"):
        policy = GemmaForCausalLM(GemmaConfig(**CONFIG))
        policy.load_state_dict({k: v.float() + 0.01 * torch.randn(v.shape) for k, v in init.state_dict().items()})
        policy.tie_weights()
        policy.save_pretrained(tmp_path / name)
    places = ["--init", f"{tmp_path}/init", "--policy", f"{tmp_path}/one", "--policy", f"{tmp_path}/two"]

    done = merge(*places, "--out", f"{tmp_path}/out", "--dtype", dtype, "--max-shard-size", "8KiB")

    assert done.returncode == 0, done.stderr
    out, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", output_loading_info=True)
    assert (list(report["missing_keys"]), list(report["unexpected_keys"])) == ([], [])
    assert out.dtype == stored
    assert out.lm_head.weight is out.model.embed_tokens.weight
    assert torch.isfinite(out(torch.arange(8)[None]).logits).all()
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("init", "one", "two")]
    stage = Checkpoint.open(merge_files(str(tmp_path / "store"), files), prefix="merged/")
    for name, values in out.state_dict().items():
        if name in stage.tensors:
            wanted = torch.from_numpy(stage.read(name)).to(stored)  # bfloat16: rounded twice, so it may be the next one
            bits = torch.int16 if stored is torch.bfloat16 else torch.int32
            steps = (values.view(bits).int() - wanted.view(bits).int()).abs().max()
            assert steps <= (stored is torch.bfloat16), name


@pytest.fixture(params=[running_fake_gcs, running_moto], ids=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with request.param() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_buckets_in_and_out(tmp_path: Path, bucket: ObjectStore) -> None:
    root = f"{bucket.scheme}://{bucket.bucket}"
    init = random_weights(0)
    models = [model_files(weights) for weights in (init, moved(init, 1), moved(init, 2))]
    for name, files in zip(("init", "one", "two"), models, strict=True):
        store = Store.open(f"{root}/{name}")
        for path, data in files.items():
            store.write(path, data)
    places = ["--init", f"{root}/init", "--policy", f"{root}/one", "--policy", f"{root}/two", "--liti-rate", "0.3"]

    done = merge(*places, "--out", f"{root}/out/next", "--merged-out", f"{root}/out/merged", "-o", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mergedOut"] == f"{root}/out/merged"
    stage = merge_files(str(tmp_path / "store"), models)
    out = Store.open(f"{root}/out")
    for folder, prefix in (("next", "next-init/"), ("merged", "merged/")):
        assert out.read(f"{folder}/model.safetensors") == stage.read(f"{prefix}model.safetensors")
        assert out.read(f"{folder}/config.json") == stage.read(f"{prefix}config.json")

    again = merge(*places, "--out", f"{root}/out/next")

    assert again.returncode == 2
    assert f"{root}/out/next is not empty" in again.stderr


@pytest.fixture
def large(tmp_path: Path) -> list[str]:
    """Options of a merge that takes seconds."""
    weights = random_weights(0, shapes=LARGE)
    files = model_files(weights, shards=[sorted(LARGE)[:12], sorted(LARGE)[12:]])
    for name in ("init", "one"):
        write_folder(tmp_path / name, files)
    return ["--init", f"{tmp_path}/init", "--policy", f"{tmp_path}/one", "--max-shard-size", "10MiB"]


def hit(arguments: list[str], out: Path, number: int) -> subprocess.CompletedProcess[str]:
    """Send a signal when the first shard of several is there."""
    process = subprocess.Popen(
        slow_command(*arguments, "--out", str(out)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not list(out.glob("model-00001-*")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, said, error)


def test_a_killed_merge_is_no_model_and_the_same_command_starts_anew(tmp_path: Path, large: list[str]) -> None:
    out = tmp_path / "out"

    killed = hit(large, out, signal.SIGKILL)

    assert killed.returncode == -signal.SIGKILL
    assert (out / "merge.json").exists()
    assert not (out / "config.json").exists()
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(out)

    done = merge(*large, "--out", str(out))

    assert done.returncode == 0, done.stderr
    assert "unfinished merge, which is written anew" in done.stderr
    assert not list(out.glob(".tmp-*"))
    merged, one = (Checkpoint.open(PlainFolder.open(str(tmp_path / name))) for name in ("out", "one"))
    name = max(LARGE)
    assert merged.read(name).tobytes() == one.read(name).tobytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_merge_leaves_nothing(tmp_path: Path, large: list[str], number: int) -> None:
    out = tmp_path / "out"

    stopped = hit(large, out, number)

    assert stopped.returncode == 130, stopped.stderr
    assert "interrupted: what was written is removed" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not list(out.glob("*"))
    assert not list(out.glob(".tmp-*"))


def test_an_input_that_is_written_to_meanwhile_is_an_error(tmp_path: Path, large: list[str]) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        slow_command(*large, "--out", str(out)), env=environment(), stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(out.glob("model-00001-*")) and time.monotonic() < until:
        time.sleep(0.005)
    (tmp_path / "one" / "model-00001-of-00002.safetensors").touch()
    _, error = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "/one/model-00001-of-00002.safetensors changed while it was read" in error
    assert not list(out.glob("*"))
