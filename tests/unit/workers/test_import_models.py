"""What an import takes from a model folder, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.builders.import_stage import import_stage, is_committed, run_import
from tests.builders.model_folder import safetensors, sharded_model, single_model, write_folder
from warpctl.errors import InputError


def refused(tmp_path: Path, files: dict[str, bytes]) -> InputError:
    """The error of importing these files; nothing may be published."""
    folder = write_folder(tmp_path / "model", files)
    storage = str(tmp_path / "store")
    with pytest.raises(InputError) as caught:
        run_import(import_stage(storage, str(folder)))
    assert not is_committed(storage)
    return caught.value


@pytest.mark.parametrize("files", [single_model(), sharded_model()], ids=["single", "sharded"])
def test_a_sound_model_is_published_byte_for_byte(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = write_folder(tmp_path / "model", files)

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder)))

    assert {name: artifact.read(name) for name in artifact.names()} == files
    assert artifact.manifest.outcome == {
        "what": "Model",
        "uri": str(folder),
        "revision": "main",
        "architectures": ["GemmaForCausalLM"],
        "dtypes": ["F32"],
        "numTensors": 2,
        "numParameters": 12,
        "numFiles": len(files),
        "numBytes": sum(len(data) for data in files.values()),
    }


def test_code_pickles_and_readmes_stay_behind(tmp_path: Path) -> None:
    extra = {
        "modeling_x.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
        "training_args.bin": b"pickle",
        "README.md": b"#",
        "onnx/model.onnx": b"x",
        ".git/config": b"x",
        "additional_chat_templates/tool.jinja": b"{{ tools }}",
    }
    folder = write_folder(tmp_path / "model", single_model() | extra)

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder)))

    assert set(artifact.names()) == {*single_model(), "additional_chat_templates/tool.jinja"}


def test_the_same_bytes_have_one_content_digest_wherever_they_come_from(tmp_path: Path) -> None:
    here, there = (write_folder(tmp_path / name, single_model()) for name in ("a", "b"))

    one = run_import(import_stage(str(tmp_path / "store-a"), str(here)))
    other = run_import(import_stage(str(tmp_path / "store-b"), str(there), attempt="a2"))

    assert one.manifest.content_digest == other.manifest.content_digest
    assert one.manifest.digest != other.manifest.digest


def test_a_local_folder_is_linked_and_not_copied(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", single_model())

    artifact = run_import(import_stage(str(tmp_path / "store"), str(folder)))

    stored = (
        tmp_path / "store" / next(file.path for file in artifact.manifest.files if file.name == "model.safetensors")
    )
    assert stored.samefile(folder / "model.safetensors")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "model", single_model())
    monkeypatch.setenv("HOME", str(tmp_path))

    artifact = run_import(import_stage(str(tmp_path / "store"), "~/model"))

    assert artifact.manifest.outcome["uri"] == str(tmp_path / "model")


def test_only_pickled_weights_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    files = single_model()
    files["pytorch_model.bin"] = files.pop("model.safetensors")

    error = refused(tmp_path, files)

    assert "only pickled weights (pytorch_model.bin)" in error.message
    assert "safe_serialization=True" in error.hint


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    files = sharded_model()
    del files["model-00002-of-00002.safetensors"]

    assert "names model-00002-of-00002.safetensors, which is not there" in refused(tmp_path, files).message


def test_an_index_may_not_point_out_of_the_folder(tmp_path: Path) -> None:
    files = sharded_model()
    files["model.safetensors.index.json"] = b'{"weight_map": {"embed": "../x.safetensors"}}'

    assert "'../x.safetensors'" in refused(tmp_path, files).message


def test_a_tensor_must_be_in_the_shard_that_the_index_names(tmp_path: Path) -> None:
    files = sharded_model()
    files["model-00002-of-00002.safetensors"] = safetensors({"other": 4})

    assert "puts tensor norm into model-00002-of-00002.safetensors" in refused(tmp_path, files).message


def test_a_tensor_may_be_in_one_shard_only(tmp_path: Path) -> None:
    files = sharded_model()
    files["model-00002-of-00002.safetensors"] = safetensors({"norm": 4, "embed": 8})

    assert "tensor embed is in" in refused(tmp_path, files).message


def test_shards_without_their_index_are_refused(tmp_path: Path) -> None:
    files = sharded_model()
    del files["model.safetensors.index.json"]

    assert "neither model.safetensors nor model.safetensors.index.json" in refused(tmp_path, files).message


@pytest.mark.parametrize("num_bytes", [0, 7, 20, -1], ids=["empty", "length cut", "header cut", "data cut"])
def test_a_cut_weight_file_is_refused(tmp_path: Path, num_bytes: int) -> None:
    files = single_model()
    files["model.safetensors"] = files["model.safetensors"][:num_bytes]

    assert "model.safetensors" in refused(tmp_path, files).message


def test_bytes_behind_the_last_tensor_are_refused(tmp_path: Path) -> None:
    files = single_model()
    files["model.safetensors"] += b"x"

    assert "its last tensor ends at byte" in refused(tmp_path, files).message


@pytest.mark.parametrize(
    ("offsets", "complaint"), [([16, 32], "overlaps the one before it"), ([36, 52], "leaves a hole before it")]
)
def test_tensors_must_cover_the_data_exactly(tmp_path: Path, offsets: list[int], complaint: str) -> None:
    files = single_model()
    moved = {"norm": {"dtype": "F32", "shape": [4], "data_offsets": offsets}}
    files["model.safetensors"] = safetensors({"embed": 8, "norm": 4}, header=moved) + bytes(16)

    assert complaint in refused(tmp_path, files).message


def test_a_header_that_claims_terabytes_is_refused_without_reading_them(tmp_path: Path) -> None:
    files = single_model()
    files["model.safetensors"] = (2**42).to_bytes(8, "little") + b"{}" + bytes(64)

    assert "model.safetensors is not a safetensors file" in refused(tmp_path, files).message


def test_a_header_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    files = single_model()
    header = b"[" * 200_000
    files["model.safetensors"] = len(header).to_bytes(8, "little") + header

    assert "nested too deeply" in refused(tmp_path, files).message


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    files = single_model()
    files["config.json"] = b'{"model_type": "gemma", "quantization_config": {"bits": 4}}'

    assert "quantised" in refused(tmp_path, files).message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_file_that_should_be_json_must_be(tmp_path: Path, name: str) -> None:
    files = single_model()
    files[name] = b"{"

    assert f"{name} is not JSON" in refused(tmp_path, files).message


def test_a_config_of_no_model_is_refused(tmp_path: Path) -> None:
    assert "neither model_type" in refused(tmp_path, single_model() | {"config.json": b"{}"}).message


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    files = single_model()
    del files["tokenizer.json"]

    assert "holds no tokenizer" in refused(tmp_path, files).message


def test_an_adapter_is_refused_with_the_way_to_merge_it(tmp_path: Path) -> None:
    error = refused(tmp_path, {"adapter_config.json": b"{}", "adapter_model.safetensors": safetensors({"a": 1})})

    assert "merge_and_unload" in error.hint


def test_a_model_in_a_folder_below_is_pointed_out(tmp_path: Path) -> None:
    error = refused(tmp_path, {f"step-9/{name}": data for name, data in single_model().items()})

    assert error.hint.endswith("model/step-9")


def test_a_missing_folder_and_a_file_instead_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")

    for name, complaint in (("nothing", "does not exist"), ("model.safetensors", "a model is a folder")):
        with pytest.raises(InputError, match=complaint):
            run_import(import_stage(str(tmp_path / "store"), str(tmp_path / name)))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(single_model()["config.json"])
    folder = write_folder(tmp_path / "model", single_model())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(secret)

    with pytest.raises(InputError, match="outside the folder"):
        run_import(import_stage(str(tmp_path / "store"), str(folder)))


def test_the_hub_caches_own_links_are_followed(tmp_path: Path) -> None:
    """The cache keeps a snapshot as links into ../../blobs: people import from there."""
    repo = tmp_path / "models--lab--tiny"
    blobs = write_folder(repo / "blobs", {str(i): data for i, data in enumerate(single_model().values())})
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, name in enumerate(single_model()):
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), snapshot))

    artifact = run_import(import_stage(str(tmp_path / "store"), str(snapshot)))

    assert {name: artifact.read(name) for name in artifact.names()} == single_model()


def test_a_header_beyond_the_first_read_is_read_whole(tmp_path: Path) -> None:
    """20,000 tensors make a header of more than 1 MiB."""
    files = single_model()
    files["model.safetensors"] = safetensors({f"layers.{number:05d}.weight": 1 for number in range(20_000)})
    assert int.from_bytes(files["model.safetensors"][:8], "little") > 1024 * 1024

    artifact = run_import(import_stage(str(tmp_path / "store"), str(write_folder(tmp_path / "model", files))))

    assert artifact.manifest.outcome["numParameters"] == 20_000


def test_custom_code_in_the_config_is_not_copied_but_named_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"model_type": "gemma", "auto_map": {"AutoModel": "modeling_x.Model"}}
    files = single_model() | {"config.json": json.dumps(config).encode(), "modeling_x.py": b""}

    artifact = run_import(import_stage(str(tmp_path / "store"), str(write_folder(tmp_path / "model", files))))

    assert "modeling_x.py" not in artifact.names()
    assert "never run" in capsys.readouterr().out


def test_nothing_is_imported_from_an_unknown_scheme(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is imported from ftp://"):
        run_import(import_stage(str(tmp_path / "store"), "ftp://host/model"))
