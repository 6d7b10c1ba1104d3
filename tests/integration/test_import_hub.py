"""Imports from a hub: a real server on this machine that speaks the hub's API, real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.import_stage import KEY, import_stage, is_committed, run_import
from tests.builders.model_folder import sharded_model, single_model
from tests.servers.hub import Hub, running_hub
from warpctl import artifacts
from warpctl.errors import EXIT_DONE, EXIT_FINAL, EXIT_INTERRUPTED, CorruptError, InputError, RetryableError
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, StageInput
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.sources import base

pytestmark = pytest.mark.integration

TOKEN = "hf_not_a_real_token"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(base, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "hf-home" / "token"))
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def start_worker(stage: StageInput, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "warpctl.workers.import_"],
        env={**os.environ, ENVIRONMENT_VARIABLE: stage.to_json(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_branch_is_pinned_to_its_commit(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit("lab/tiny", sharded_model())

    artifact = run_import(import_stage(str(tmp_path / "store"), "hf://lab/tiny"))

    assert {name: artifact.read(name) for name in artifact.names()} == sharded_model()
    assert artifact.manifest.outcome["commit"] == commit
    assert artifact.manifest.outcome["uri"] == "hf://lab/tiny"
    assert all(f"/resolve/{commit}/" in request.path for request in hub.downloads("config.json"))


def test_a_tag_a_commit_a_folder_and_a_dataset_are_understood(hub: Hub, tmp_path: Path) -> None:
    old = hub.commit("lab/tiny", {f"sub/dir/{name}": data for name, data in single_model().items()}, branch="v1/x")
    hub.commit("lab/tiny", {"README.md": b"moved on"})
    lines = b'{"prompt": "x"}\n'
    hub.commit("lab/prompts", {"data/train.jsonl": lines, "data/more/b.jsonl": lines, "x.jsonl": b""}, kind="datasets")

    stored = {}
    for number, (uri, revision, what) in enumerate(
        [
            ("hf://lab/tiny/sub/dir", "v1/x", "Model"),
            ("hf://lab/tiny/sub/dir/", old, "Model"),
            ("hf://datasets/lab/prompts/data/train.jsonl", "main", "Prompts"),
            ("hf://datasets/lab/prompts/data", "main", "Prompts"),
        ]
    ):
        stage = import_stage(str(tmp_path / f"store-{number}"), uri, revision=revision, what=what)  # type: ignore[arg-type]
        stored[number] = run_import(stage)

    assert set(stored[0].names()) == set(single_model())
    assert stored[0].manifest.content_digest == stored[1].manifest.content_digest
    assert stored[2].names() == ("train.jsonl",)
    assert set(stored[3].names()) == {"train.jsonl", "more/b.jsonl"}


def test_503s_and_cut_connections_are_outlived(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/tiny", single_model())
    hub.faults.unavailable = {"/revision/main": 2, "/tokenizer.json": 1, "/model.safetensors": 2}
    hub.faults.cut_after = {"model.safetensors": 150, "config.json": 3}

    artifact = run_import(import_stage(str(tmp_path / "store"), "hf://lab/tiny"))

    assert {name: artifact.read(name) for name in artifact.names()} == single_model()
    assert "bytes=150-" in {request.range for request in hub.downloads("model.safetensors")}


def test_a_hub_that_stays_down_is_a_failure_that_may_pass(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/tiny", single_model())
    hub.faults.unavailable = {"/revision/main": 1000}

    with pytest.raises(RetryableError, match="the hub answered 503 for lab/tiny"):
        run_import(import_stage(str(tmp_path / "store"), "hf://lab/tiny"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"], ids=["lfs sha256", "git blob"])
def test_bytes_that_differ_from_the_hubs_digest_are_not_published(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.commit("lab/tiny", single_model())
    hub.faults.wrong_bytes = {name}
    storage = str(tmp_path / "store")

    with pytest.raises(CorruptError, match=f"{name} has sha.* the source promises"):
        run_import(import_stage(storage, "hf://lab/tiny"))

    assert not is_committed(storage)


def test_a_protected_repository_names_itself_and_says_how_to_give_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/secret", single_model())
    hub.repositories["models/lab/secret"].token = TOKEN

    with pytest.raises(InputError) as caught:
        run_import(import_stage(str(tmp_path / "store"), "hf://lab/secret"))

    assert "lab/secret that may be read without a token" in caught.value.message
    assert "HF_TOKEN" in caught.value.hint
    hub.repositories["models/lab/secret"].is_gated = True
    with pytest.raises(InputError, match="lab/secret is gated") as caught:
        run_import(import_stage(str(tmp_path / "store"), "hf://lab/secret"))
    assert "accept its terms" in caught.value.hint


def test_a_token_opens_the_repository_and_is_seen_by_nobody_else(hub: Hub, tmp_path: Path) -> None:
    """Not by the host that a download is redirected to, not in the log, not in the store."""
    hub.commit("lab/secret", single_model())
    hub.repositories["models/lab/secret"].token = TOKEN
    storage = tmp_path / "store"

    worker = start_worker(import_stage(str(storage), "hf://lab/secret"), HF_TOKEN=TOKEN)
    output, _ = worker.communicate(timeout=120)

    assert worker.returncode == EXIT_DONE, output
    assert TOKEN not in output
    assert not [path for path in storage.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    redirected = [request for request in hub.requests if request.path.startswith("/cdn/")]
    assert redirected
    assert {request.authorization for request in redirected} == {""}
    assert {request.host for request in redirected} == {f"localhost:{hub.port}"}


@pytest.mark.parametrize(
    ("uri", "revision", "complaint"),
    [
        ("hf://lab/nothing", "main", "there is no repository lab/nothing"),
        ("hf://lab/tiny", "v9", "lab/tiny has no revision 'v9'"),
        ("hf://lab", "main", "does not name a repository"),
        ("hf://lab/tiny@v1", "main", "does not name a repository"),
        ("hf://lab/tiny/nowhere", "main", "holds no config.json"),
    ],
)
def test_what_is_not_there_is_a_final_error(hub: Hub, tmp_path: Path, uri: str, revision: str, complaint: str) -> None:
    hub.commit("lab/tiny", single_model())

    with pytest.raises(InputError, match=complaint):
        run_import(import_stage(str(tmp_path / "store"), uri, revision=revision))


def test_a_final_error_ends_the_process_with_its_own_exit_code(hub: Hub, tmp_path: Path) -> None:
    worker = start_worker(import_stage(str(tmp_path / "store"), "hf://lab/nothing"))
    output, _ = worker.communicate(timeout=120)

    assert worker.returncode == EXIT_FINAL
    assert "there is no repository lab/nothing" in output


def test_a_killed_import_goes_on_with_the_files_that_it_had_not_finished(hub: Hub, tmp_path: Path) -> None:
    """Kill -9 while the second shard is on its way: the first one is not downloaded again."""
    hub.commit("lab/tiny", sharded_model())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    storage = str(tmp_path / "store")
    store = Store.open(storage)
    hub.faults.hold_second_read[second] = gate = threading.Event()
    worker = start_worker(import_stage(storage, "hf://lab/tiny"))
    assert hub.holding.wait(60)
    worker.kill()
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert not is_committed(storage)
    gate.set()

    again = start_worker(import_stage(storage, "hf://lab/tiny", attempt="a2"))
    output, _ = again.communicate(timeout=120)

    assert again.returncode == EXIT_DONE, output
    artifact = Artifact.load(store, "import", KEY)
    assert {name: artifact.read(name) for name in artifact.names()} == sharded_model()
    paths = {file.name: file.path for file in artifact.manifest.files}
    assert paths[first] == artifacts.file("import", KEY, "a1", first)
    assert paths[second] == artifacts.file("import", KEY, "a2", second)


def test_sigterm_ends_an_import_between_chunks(hub: Hub, tmp_path: Path) -> None:
    files = single_model()
    hub.commit("lab/tiny", files)
    hub.faults.hold_second_read["model.safetensors"] = gate = threading.Event()
    storage = str(tmp_path / "store")
    worker = start_worker(import_stage(storage, "hf://lab/tiny"))
    assert hub.holding.wait(60)

    worker.send_signal(signal.SIGTERM)
    gate.set()
    output, _ = worker.communicate(timeout=120)

    assert worker.returncode == EXIT_INTERRUPTED, output
    assert not is_committed(storage)
