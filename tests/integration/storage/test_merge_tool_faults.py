"""`warpctl merge` whose store breaks under it: the bytes of one that nothing disturbed, or a clear error and no model."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.model_folder import write_folder
from tests.integration.storage.conftest import Place
from tests.servers.fault_proxy import Fault
from warpctl.cli.main import run_command
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.store import Store
from warpctl.workers import merge_folders as merging

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SHAPES = {f"model.layers.{number}.w": (100, 210) for number in range(6)}
SOME = (Fault(status=503), Fault(reset=True), Fault(cut_request=True), Fault(cut_response=True), Fault(status=429))
INIT = random_weights(0, shapes=SHAPES)
MODELS = {"init": model_files(INIT), "one": model_files(moved(INIT, 1)), "two": model_files(moved(INIT, 2))}


def merge(root: str) -> int:
    """The exit code of a merge of the models below `root` into its folders out and merged."""
    places = ["--init", f"{root}/init", "--policy", f"{root}/one", "--policy", f"{root}/two", "--liti-rate", "0.3"]
    targets = ["--out", f"{root}/out", "--merged-out", f"{root}/merged", "--max-shard-size", "200kB"]
    return run_command(["merge", *places, *targets])


def written(root: str) -> dict[str, bytes]:
    """Both results but for merge.json, which names its writer."""
    found: dict[str, bytes] = {}
    for name in ("out", "merged"):
        folder = PlainFolder.open(f"{root}/{name}")
        found |= {f"{name}/{file}": folder.read(file) for file in folder.names() if file != "merge.json"}
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    for name, files in MODELS.items():
        write_folder(root / name, files)
    assert merge(str(root)) == 0
    return written(str(root))


@pytest.fixture
def models(cloud: Place) -> Place:
    for name, files in MODELS.items():
        store = Store.open(f"{cloud.uri}/{name}")
        for path, data in files.items():
            store.write(path, data)
    return cloud


def test_one_request_in_ten_fails(models: Place, expected: dict[str, bytes]) -> None:
    assert models.proxy is not None
    models.proxy.share, models.proxy.some_faults = 0.1, SOME

    assert merge(models.uri) == 0

    assert models.proxy.num_failed > 3
    models.proxy.share = 0.0
    assert written(models.uri) == expected


def test_the_store_is_down_for_a_while(models: Place, expected: dict[str, bytes], monkeypatch) -> None:
    """From the moment at which the weights are read and written; with the retries of production."""
    proxy, real = models.proxy, merging.merge_weights
    assert proxy is not None
    timers: list[threading.Timer] = []

    def go_down(*arguments: Any, **options: Any) -> Any:
        proxy.share, proxy.some_faults = 1.0, (Fault(reset=True), Fault(status=503))
        timers.append(threading.Timer(8, lambda: setattr(proxy, "share", 0.0)))
        timers[0].start()
        return real(*arguments, **options)

    monkeypatch.setattr(merging, "merge_weights", go_down)

    assert merge(models.uri) == 0

    assert not timers[0].is_alive()
    assert proxy.num_failed > 3
    assert written(models.uri) == expected


def test_an_input_that_is_replaced_while_it_is_read_leaves_nothing(models: Place, capsys, monkeypatch) -> None:
    """By weights of the same size: only its time tells."""
    real = merging.merge_weights

    def replace(*arguments: Any, **options: Any) -> Any:
        done = real(*arguments, **options)
        time.sleep(1.1)  # S3 tells whole seconds, and the models have just been written
        Store.open(f"{models.uri}/two").write("model.safetensors", model_files(moved(INIT, 9))["model.safetensors"])
        return done

    monkeypatch.setattr(merging, "merge_weights", replace)

    assert merge(models.uri) == 2

    assert "/two/model.safetensors changed while it was read" in capsys.readouterr().err
    assert not Store.open(f"{models.uri}/out").list("")
    assert not Store.open(f"{models.uri}/merged").list("")


def test_a_disk_that_takes_no_more(tmp_path: Path, expected: dict[str, bytes], capsys) -> None:
    for name, files in MODELS.items():
        write_folder(tmp_path / name, files)

    limited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limited[1]))
    try:
        code = merge(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limited)

    said = capsys.readouterr().err
    assert code == 1, said
    assert "error: cannot write file://" in said
    assert "File too large" in said
    assert "Traceback" not in said
    assert not [path for name in ("out", "merged") for path in (tmp_path / name).rglob("*")]
    assert merge(str(tmp_path)) == 0
    assert written(str(tmp_path)) == expected
