"""`warpctl merge` on small folders: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.builders.checkpoints import MODEL_FILES, model_files, moved, random_weights
from tests.builders.merge_stage import merge_files
from tests.builders.model_folder import write_folder
from tests.unit.cli.conftest import Place
from warpctl.cli.main import run_command
from warpctl.storage.local_files import LocalFiles
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.tensors import Checkpoint
from warpctl.workers import merge_folders as merging
from warpctl.workers import merge_reading

INIT = random_weights(0)
MODELS = {"init": INIT, "one": moved(INIT, 1), "two": moved(INIT, 2)}
ARGUMENTS = ("merge", "--init", "init", "--policy", "one", "--policy", "two", "--liti-rate", "0.3")


@pytest.fixture
def models(place: Place) -> Place:
    for name, weights in MODELS.items():
        write_folder(place.folder / name, model_files(weights))
    return place


def test_the_result_is_that_of_the_merge_stage_to_the_byte(models: Place, warpctl, tmp_path: Path) -> None:
    said = warpctl(models, *ARGUMENTS, "--out", "out", "--merged-out", "merged")

    assert said.code == 0, said.err
    stage = merge_files(str(tmp_path / "store"), [model_files(weights) for weights in MODELS.values()])
    for folder, prefix in (("out", "next-init/"), ("merged", "merged/")):
        for name in ("model.safetensors", *MODEL_FILES):
            assert (models.folder / folder / name).read_bytes() == stage.read(prefix + name), name
    report = json.loads((models.folder / "out" / "merge.json").read_text())
    assert report["groups"] == json.loads(stage.read("merge.json"))["groups"]
    assert (report["isComplete"], report["litiRate"], report["holds"]) == (True, "0.3", "nextInit")
    assert "next:\n  python -c 'from transformers" in said.err


def test_json_is_one_document_on_stdout(models: Place, warpctl) -> None:
    said = warpctl(models, *ARGUMENTS, "--out", "out", "-o", "json")

    document = json.loads(said.out)
    assert (document["plan"]["groups"], len(document["groups"]), document["init"]) == (7, 7, "init")
    assert document["plan"]["bytesToRead"] == sum(4 * 3 * value.size for value in INIT.values())


def test_a_dry_run_writes_nothing(models: Place, warpctl, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, num_bytes in (("LEAST_WEIGHTS_BYTES", 1000), ("OVERHEAD_BYTES", 0), ("INPUT_BYTES", 0)):
        monkeypatch.setattr(merge_reading, name, num_bytes)
    said = warpctl(models, *ARGUMENTS, "--out", "out", "--dry-run", "--granularity", "Global", "--memory", "1250B")

    assert said.code == 0, said.err
    assert not (models.folder / "out").exists()
    assert "the whole model, 1 group" in said.out
    assert "the model read twice" in said.out


def test_bfloat16_says_so_in_its_config(models: Place, warpctl) -> None:
    said = warpctl(models, *ARGUMENTS, "--out", "out", "--dtype", "bfloat16", "--max-shard-size", "300B")

    assert said.code == 0, said.err
    config = json.loads((models.folder / "out" / "config.json").read_text())
    assert (config["dtype"], config["text_config"]["torch_dtype"]) == ("bfloat16", "bfloat16")
    checkpoint = Checkpoint.open(PlainFolder.open(str(models.folder / "out")))
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    assert len({tensor.file for tensor in checkpoint.tensors.values()}) > 1


def with_changed(name: str, change) -> dict[str, bytes]:
    weights = dict(MODELS[name])
    change(weights)
    return model_files(weights)


def bad_shape(weights) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:5]


def lacking(weights) -> None:
    del weights["model.norm.weight"]


def with_extra(weights) -> None:
    weights["extra.weight"] = np.ones(3, np.float32)


def with_nan(weights) -> None:
    weights["model.norm.weight"] = np.array([1, 1, np.nan, 1, 1, 1], np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bad_shape, "tensor lm_head.weight has shape [13, 6] in init but [5, 6] in two"),
        (lacking, "tensor model.norm.weight is in init but not in two"),
        (with_extra, "tensor extra.weight is in two but not in init"),
        (with_nan, "tensor model.norm.weight of two has nan at [2]"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_and_nothing_stays(models: Place, warpctl, change, words: str) -> None:
    write_folder(models.folder / "two", with_changed("two", change))

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert (said.code, said.out) == (2, "")
    assert f"error: {words}\nhint: " in said.err
    assert "RL run" not in said.err
    assert not list((models.folder / "out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "one", "--out", "out"), "--init is missing"),
        (("--init", "init", "--out", "out"), "--policy is missing"),
        (("--init", "init", "--policy", "one"), "--out is missing"),
        (("--liti-rate", "1.3"), '--liti-rate must be in [0, 1], got "1.3"'),
        (("--liti-rate", "nan"), '--liti-rate must be in [0, 1], got "nan"'),
        (("--memory", "much"), '--memory must be a size, got "much"'),
        (("--memory", "399MiB"), "--memory 399MiB is too small: merging 3 checkpoints takes 400MiB at the least"),
        (("--memory", "430MiB", "--policy", "init"), "merging 4 checkpoints takes 440MiB at the least"),
        (("--memory", "479MiB", "--out", "gs://bucket/x"), "merging 3 checkpoints takes 480MiB at the least"),
        (("--memory", "527MiB", "--out", "s3://b/x", "--merged-out", "s3://b/y"), "takes 528MiB at the least"),
        (("--policy", "gone"), "there is no model folder at file://"),
        (("--policy", "org/model"), "org/model is not a folder here"),
        (("--policy", "hf://org/model"), "hf://org/model is not a folder here"),
        (("--policy", "one/model.safetensors"), "one/model.safetensors is a file"),
        (("--policy", "torch"), "torch: no model.safetensors and no model.safetensors.index.json among its 1 files"),
        (("--policy", "damaged"), "damaged: model.safetensors is not a safetensors file"),
        (("--init", "bare"), "/bare has no config.json"),
        (("--out", "one"), "/one is not empty: it holds chat_template.jinja and 4 more"),
        (("--merged-out", "out"), "both results would go to out"),
        (("--out", "ftp://x/y"), "'ftp://x/y' is not a storage URI"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(models: Place, warpctl, arguments: tuple[str, ...], words: str) -> None:
    write_folder(models.folder / "torch", {"pytorch_model.bin": b"0"})
    write_folder(models.folder / "damaged", {"model.safetensors": b"no such thing"})
    write_folder(models.folder / "bare", {"model.safetensors": model_files(INIT)["model.safetensors"]})
    usual = () if "is missing" in words else (*ARGUMENTS[1:], "--out", "out")

    said = warpctl(models, "merge", *usual, *arguments)

    assert (said.code, said.out) == (2, "")
    assert words in said.err.splitlines()[0]
    assert said.err.splitlines()[1].startswith("hint: ")
    assert len(said.err.splitlines()) == 2
    assert not (models.folder / "out").exists()


def test_an_input_that_changes_while_it_is_read_leaves_nothing(models: Place, warpctl, monkeypatch) -> None:
    real = merging.merge_weights

    def meanwhile(*arguments, **options):
        done = real(*arguments, **options)
        write_folder(models.folder / "newer", model_files(MODELS["two"]))
        (models.folder / "newer" / "model.safetensors").replace(models.folder / "one" / "model.safetensors")
        return done

    monkeypatch.setattr(merging, "merge_weights", meanwhile)

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 2
    assert "/one/model.safetensors changed while it was read" in said.err
    assert not list((models.folder / "out").glob("*"))


def test_an_input_that_somebody_would_cut_off_is_kept_whole_until_the_merge_has_ended(
    models: Place, warpctl, monkeypatch
) -> None:
    """A mapped file that shrinks would end the process with SIGBUS."""
    victim = models.folder / "one" / "model.safetensors"
    whole, take, writers = victim.stat().st_size, merge_reading.Reader.take, []

    def meanwhile(reader, load):
        one = reader._sources.all[1].checkpoint
        if one.view(load.tensors[0], load.elements) is None:
            pytest.skip("no leases on this file system")
        writers.append(threading.Thread(target=os.truncate, args=(victim, 0)))
        writers[0].start()
        while one.artifact._mapped[victim.name].is_leased():
            pass
        assert victim.stat().st_size == whole
        return take(reader, load)

    monkeypatch.setattr(merge_reading.Reader, "take", meanwhile)

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    writers[0].join(10)
    assert said.code == 2
    assert "/one/model.safetensors changed while it was read" in said.err
    assert victim.stat().st_size == 0
    assert not list((models.folder / "out").glob("*"))


def test_ctrl_c_leaves_nothing(models: Place, warpctl, monkeypatch) -> None:
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "merge_weights", stop)

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 130
    assert "interrupted: what was written is removed" in said.err
    assert not list((models.folder / "out").glob("*"))


def test_what_a_killed_merge_left_is_written_anew(models: Place, warpctl) -> None:
    assert warpctl(models, *ARGUMENTS, "--out", "out").code == 0
    whole = (models.folder / "out" / "model.safetensors").read_bytes()
    record = models.folder / "out" / "merge.json"
    record.write_text(record.read_text().replace('"isComplete": true', '"isComplete": false'))
    (models.folder / "out" / "config.json").unlink()
    (models.folder / "out" / "model.safetensors").unlink()
    (models.folder / "out" / ".tmp-1").write_bytes(b"half")

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 0, said.err
    assert "holds an unfinished merge, which is written anew" in said.err
    assert (models.folder / "out" / "model.safetensors").read_bytes() == whole
    assert files_of(models, "out") == sorted([*MODEL_FILES, "merge.json", "model.safetensors"])


def test_a_finished_merge_whose_config_was_moved_away_is_not_unfinished(models: Place, warpctl) -> None:
    assert warpctl(models, *ARGUMENTS, "--out", "out").code == 0
    (models.folder / "out" / "config.json").unlink()
    before = files_of(models, "out")

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert (said.code, files_of(models, "out")) == (2, before)
    assert "is not empty" in said.err


def test_a_strangers_file_beside_an_unfinished_merge_is_kept(models: Place, warpctl) -> None:
    record = {"warpctlMerge": 1, "files": ["merge.json"], "isComplete": False}
    write_folder(models.folder / "out", {"merge.json": json.dumps(record).encode(), "mine.txt": b"mine"})

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 2
    assert "is not empty: it holds mine.txt" in said.err
    assert files_of(models, "out") == ["merge.json", "mine.txt"]


def files_of(place: Place, name: str) -> list[str]:
    return sorted(path.name for path in (place.folder / name).iterdir())


def test_a_long_model_is_shortened_unless_it_is_wide(place: Place, warpctl) -> None:
    shapes = {f"model.layers.{layer}.norm.weight": (6,) for layer in range(30)}
    init = random_weights(0, shapes=shapes)
    two = moved(init, 2)
    two["model.layers.17.norm.weight"] = init["model.layers.17.norm.weight"]
    for name, weights in (("init", init), ("one", moved(init, 1)), ("two", two)):
        write_folder(place.folder / name, model_files(weights))

    short = warpctl(place, *ARGUMENTS, "--out", "out")
    wide = warpctl(place, *ARGUMENTS, "--out", "out2", "-o", "wide")

    rows = [line.split()[0] for line in wide.out.splitlines()[1:31]]
    assert rows == [f"model.layers.{layer}" for layer in range(30)]
    shown = [line for line in short.out.splitlines()[1:] if line.startswith("model.layers.")]
    assert len(shown) < 13
    assert "Zero" in next(line for line in shown if line.startswith("model.layers.17 "))
    left_out = sum(int(line.split()[1]) for line in short.out.splitlines() if line.startswith("... "))
    assert len(shown) + left_out == 30
    assert "1 group without an angle: LERP instead of SLERP" in short.out


def test_a_policy_that_did_not_move_and_one_given_twice_are_told_of(models: Place, warpctl) -> None:
    policies = ("--policy", "one", "--policy", "init", "--policy", "one")

    said = warpctl(models, "merge", "--init", "init", *policies, "--out", "out")

    assert said.code == 0, said.err
    assert "warning: policy one is given more than once and counts as often" in said.err
    assert "warning: policy init is the init: it did not move" in said.err


def test_a_disk_without_room_is_told_of_at_once(models: Place, warpctl, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 2
    assert "/out has room for 0.0 GB" in said.err
    assert not (models.folder / "out").exists()


def test_what_an_unfinished_merge_left_counts_as_room(models: Place, warpctl, monkeypatch) -> None:
    record = {"warpctlMerge": 1, "files": ["merge.json", "model.safetensors"], "isComplete": False}
    leftovers = {"merge.json": json.dumps(record).encode(), "model.safetensors": bytes(1000), ".tmp-1": bytes(1000)}
    write_folder(models.folder / "out", leftovers)
    size = model_files(INIT)["model.safetensors"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=len(size) - 1900))
    assert warpctl(models, *ARGUMENTS, "--out", "out", "--merged-out", "merged").code == 2

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 0, said.err
    assert files_of(models, "out") == sorted([*MODEL_FILES, "merge.json", "model.safetensors"])


def test_a_second_merge_into_a_folder_is_refused_and_the_first_is_whole(models: Place, warpctl, monkeypatch) -> None:
    real = merging.merge_weights
    codes: list[int] = []

    def meanwhile(*arguments, **options):
        monkeypatch.setattr(merging, "merge_weights", real)
        codes.append(run_command([*ARGUMENTS, "--out", "out"]))
        codes.append(run_command([*ARGUMENTS, "--out", "elsewhere", "--merged-out", "out"]))
        return real(*arguments, **options)

    monkeypatch.setattr(merging, "merge_weights", meanwhile)
    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert (said.code, codes) == (0, [2, 2])
    assert said.err.count("/out\nhint: wait for it, or name a new folder") == 2
    assert said.err.count("error: another merge writes into") == 2
    assert warpctl(models, *ARGUMENTS, "--out", "again").code == 0
    written = models.folder / "out" / "model.safetensors"
    assert written.read_bytes() == (models.folder / "again" / "model.safetensors").read_bytes()
    assert not (models.folder / "elsewhere").exists()


def test_a_file_that_may_not_be_read_is_the_users_to_mend(models: Place, warpctl, monkeypatch) -> None:
    def denied(_self, path: str, _start: int, _end: int) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(LocalFiles, "read_range", denied)

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 2
    assert re.match("error: cannot read file://.*/init/model.safetensors as .*: Permission denied\n", said.err)


def test_what_cannot_be_removed_after_a_failure_is_named(models: Place, warpctl, monkeypatch) -> None:
    def denied(_self, path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    write_folder(models.folder / "two", with_changed("two", with_nan))
    monkeypatch.setattr(LocalFiles, "delete", denied)

    said = warpctl(models, *ARGUMENTS, "--out", "out")

    assert said.code == 1
    assert "nan at [2]; and what was written could not be removed: cannot delete file://" in said.err
    assert "hint: the same command starts anew in the same folder" in said.err
