"""The export worker: the very numbers of the point, a folder that is a model or plainly is not, a card that tells the truth."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests.builders.checkpoints import MODEL_FILES, SHAPES, model_files, moved, publish, random_weights, rounded
from warpctl.cli.export_process import check_destination
from warpctl.errors import InputError, NumericsError, UserError
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.storage.headers import LENGTH_BYTES, parse_header
from warpctl.storage.store import Store
from warpctl.workers.export import FRONT, RECORD, SPEC, ExportTask, export
from warpctl.workers.export_weights import write_weights
from warpctl.workers.model_card import model_card

SFT = random_weights(1)
MERGED = moved(SFT, 2)
CARD = {
    "run": "ml/demo",
    "point": "iteration 2, LITI 0.3",
    "source": "merged policy",
    "isMerged": True,
    "litiRate": "0.3",
    "iteration": 2,
    "iterations": 2,
    "rlRuns": 3,
    "sftUri": "hf://google/gemma-2b",
    "digests": {"SFT policy": "aa", "merged policy": "bb"},
    "kl": {"mean": 2.0, "low": 1.5, "high": 2.5},
    "reward": {"mean": 0.5, "low": 0.4, "high": 0.6},
    "confidenceLevel": 0.95,
}


ESTIMATE = {"mean": 2.0, "low": 1.5, "high": 2.5}
FRONT_DOCUMENT = {
    "confidenceLevel": 0.95,
    "maxKl": None,
    "measures": ["reward", "truth"],
    "points": [
        {
            "iteration": 2,
            "control": "",
            "name": "liti/0.3",
            "label": "LITI 0.3",
            "kl": ESTIMATE,
            "reward": ESTIMATE,
            "heldOut": {"truth": ESTIMATE},
            "length": ESTIMATE,
            "isOnFront": True,
        }
    ],
    "best": {"iteration": 2, "control": "", "name": "liti/0.3", "label": "LITI 0.3"},
}


def a_task(
    tmp_path: Path,
    rate: str = "0.3",
    *,
    sft_dtype: str = "BF16",
    merged=MERGED,
    to: str = "out",
    without: str = "",
    **fields: object,
) -> ExportTask:
    store = Store.open(str(tmp_path / "store"))
    shards = [["lm_head.weight"], [name for name in SHAPES if name != "lm_head.weight"]]
    sft = publish(store, model_files(SFT, dtype=sft_dtype, shards=shards), key="1" * 64, role="sft")
    source_files = {f"merged/{name}": data for name, data in model_files(merged).items() if name != without}
    source_files |= {f"next-init/{name}": b"" for name in MODEL_FILES}
    source = publish(store, {**source_files, "merge.json": b"{}"}, key="2" * 64, role="source")
    return ExportTask(
        storage=store.root,
        destination=str(tmp_path / to),
        sft=sft,
        source=source,
        source_prefix="merged/",
        files=source,
        files_prefix="merged/",
        liti_rate=Decimal(rate),
        card=CARD,
        spec="kind: WarpRun\n",
        front=FRONT_DOCUMENT,
        **fields,
    )


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Float32 weights of a model folder, read independently of checkpoint code."""
    weights = {}
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
        for tensor in parse_header(data[LENGTH_BYTES:end], file=file.name, file_bytes=len(data)):
            assert tensor.dtype == "F32"
            weights[tensor.name] = np.frombuffer(data[tensor.start : tensor.end], "<f4").reshape(tensor.shape)
    return weights


def test_weights_are_the_interpolation_rounded_once(tmp_path: Path) -> None:
    export(a_task(tmp_path))
    found, sft = read_folder(tmp_path / "out"), rounded(SFT, "BF16")

    assert sorted(found) == sorted(SHAPES)
    for name, values in found.items():
        expected = (0.7 * sft[name].astype(np.float64) + 0.3 * MERGED[name].astype(np.float64)).astype(np.float32)
        np.testing.assert_allclose(values, expected, rtol=2e-7, atol=1e-9)


def test_rate_1_is_the_source_bit_by_bit(tmp_path: Path) -> None:
    export(a_task(tmp_path, "1"))

    assert {name: values.tobytes() for name, values in read_folder(tmp_path / "out").items()} == {
        name: values.tobytes() for name, values in MERGED.items()
    }


def test_the_folder_is_a_whole_model(tmp_path: Path) -> None:
    export(a_task(tmp_path))
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    assert sorted(files) == sorted([*MODEL_FILES, "model.safetensors", "README.md", FRONT, RECORD, SPEC])
    assert json.loads(files["config.json"]) == {
        "model_type": "tiny",
        "dtype": "float32",
        "text_config": {"torch_dtype": "float32"},
    }
    assert files[SPEC] == b"kind: WarpRun\n"
    assert json.loads(files[FRONT]) == FRONT_DOCUMENT
    assert {name: files[name] for name in MODEL_FILES if name != "config.json"} == {
        name: data for name, data in MODEL_FILES.items() if name != "config.json"
    }
    assert json.loads(files[RECORD])["isComplete"] is True


def test_large_models_are_sharded_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "warpctl.workers.export.write_weights", functools.partial(write_weights, max_shard_bytes=400, load_bytes=600)
    )
    reported: list[tuple[int, int]] = []
    export(a_task(tmp_path, "1"), report=lambda done, total: reported.append((done, total)))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())

    assert sorted(index["weight_map"]) == sorted(SHAPES)
    assert len(set(index["weight_map"].values())) > 1
    assert all(np.array_equal(values, MERGED[name]) for name, values in read_folder(tmp_path / "out").items())
    assert reported[-1][0] == reported[-1][1]
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)


def test_bfloat16_is_the_float32_value_rounded_and_the_config_says_so(tmp_path: Path) -> None:
    export(a_task(tmp_path, "1", dtype="bfloat16"))
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    tensors = parse_header(data[LENGTH_BYTES:end], file="f", file_bytes=len(data))

    assert {tensor.dtype for tensor in tensors} == {"BF16"}
    for tensor in tensors:
        assert data[tensor.start : tensor.end] == float32_to_bfloat16(MERGED[tensor.name]).tobytes()
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert (config["dtype"], config["text_config"]) == ("bfloat16", {"torch_dtype": "bfloat16"})


def test_a_policy_that_diverged_is_refused(tmp_path: Path) -> None:
    diverged = {**MERGED, "model.norm.weight": np.full(6, np.nan, np.float32)}

    with pytest.raises(NumericsError, match=r"tensor model\.norm\.weight holds NaN or Inf"):
        export(a_task(tmp_path, merged=diverged))

    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_value_beyond_bfloat16_is_refused(tmp_path: Path) -> None:
    largest = {**MERGED, "model.norm.weight": np.full(6, np.finfo(np.float32).max, np.float32)}

    with pytest.raises(NumericsError, match=r"tensor model\.norm\.weight leaves the range of bfloat16"):
        export(a_task(tmp_path, "1", merged=largest, dtype="bfloat16"))


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("tokenizer.json", "no tokenizer"),
        ("generation_config.json", r"no generation_config\.json"),
        ("chat_template.jinja", r"no chat_template\.jinja"),
        ("config.json", r"no config\.json"),
    ],
)
def test_a_model_without_what_the_sft_policy_has_is_an_error_before_anything_is_written(
    tmp_path: Path, without: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        export(a_task(tmp_path, without=without))

    assert not (tmp_path / "out").exists()


def test_an_interrupted_export_is_no_model_and_is_written_anew(tmp_path: Path) -> None:
    task = a_task(tmp_path)

    def dies(done: int, _total: int) -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(task, report=dies)

    assert not (tmp_path / "out" / "config.json").exists()
    assert check_destination(task) is False
    export(task)
    assert check_destination(task) is True


def test_what_a_killed_export_left_unseen_is_removed(tmp_path: Path) -> None:
    task = a_task(tmp_path, "1")
    left = Path(task.destination) / ".tmp-part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"part")
    export(task)
    assert not left.exists()


def test_a_folder_of_somebody_else_is_never_written_into(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")

    with pytest.raises(UserError, match="is not empty"):
        check_destination(task)


def test_another_model_in_the_folder_is_refused(tmp_path: Path) -> None:
    export(a_task(tmp_path))

    with pytest.raises(UserError, match="holds another exported model"):
        check_destination(a_task(tmp_path, "0.5"))


def test_policies_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensor extra\.weight of the source is not in the SFT policy"):
        export(a_task(tmp_path, merged={**MERGED, "extra.weight": np.ones(2, np.float32)}))


def test_the_program_tells_progress_and_errors_as_json(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    (tmp_path / "store" / "stages" / "import" / ("2" * 64) / "committed.json").unlink()

    done = subprocess.run(
        [sys.executable, "-P", "-m", "warpctl.workers.export"],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
        input=task.model_dump_json(by_alias=True),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 42
    assert json.loads(done.stdout)["error"].startswith("there is no artifact at ")


def test_the_card_says_what_was_measured() -> None:
    text = model_card(CARD)

    assert text.startswith(
        "---\nbase_model: google/gemma-2b\nbase_model_relation: finetune\nlibrary_name: transformers\n"
    )
    assert "- weights: (1 - 0.3) x SFT policy + 0.3 x merged policy of iteration 2, float32\n" in text
    assert "- KL to the SFT policy: 2.000 [1.500, 2.500] nats per completion (95% interval over prompts)\n" in text
    assert "- merged policy: `bb`\n" in text


def test_the_card_of_an_rl_run_does_not_call_it_merged() -> None:
    text = model_card({**CARD, "isMerged": False, "source": "RL run 2", "litiRate": "1"})

    assert "- merge\n" not in text
    assert "as it was before merging" in text
    assert "- weights: RL run 2 of iteration 2, float32\n" in text


def test_the_card_claims_nothing_that_it_does_not_know() -> None:
    text = model_card({**CARD, "kl": None, "reward": None, "sftUri": ""})

    assert "base_model" not in text
    assert "- this very point was not evaluated in the run\n" in text
    assert "nats" not in text


def test_the_card_shows_the_whole_front_and_why_this_point() -> None:
    text = model_card({**CARD, "heldOut": {"truth": ESTIMATE}, "why": "highest held-out reward truth"}, FRONT_DOCUMENT)

    assert "- chosen as: highest held-out reward truth\n" in text
    assert "- held-out reward truth: 2.000 [1.500, 2.500] (95% interval over prompts)\n" in text
    assert "| ITER | POINT | KL | REWARD | TRUTH | LENGTH | FRONT |\n| --- |" in text
    assert "| 2 | LITI 0.3 | 2.00 \u00b10.50 | 2.00 \u00b10.50 | 2.00 \u00b10.50 | 2.0 | \\* |\n" in text


def test_the_card_of_bfloat16_weights_says_what_was_measured() -> None:
    text = model_card({**CARD, "dtype": "bfloat16"})

    assert "merged policy of iteration 2, bfloat16\n" in text
    assert "- these were measured on the float32 weights, which are rounded to bfloat16 here\n" in text


def test_the_base_model_is_the_repository_without_the_folder_in_it() -> None:
    assert "\nbase_model: google/gemma\n" in model_card({**CARD, "sftUri": "hf://google/gemma/2b/it"})
