"""What `warpctl export` writes is a model that transformers loads, and a hub takes in one commit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.builders.policies import policy_files, publish_policy
from tests.servers.hub import Hub, running_hub
from warpctl.cli.export_process import run_export
from warpctl.cli.export_text import files_text
from warpctl.errors import FinalError
from warpctl.spec.stage_input import StageKind
from warpctl.storage.store import Store
from warpctl.workers.export import ExportTask
from warpctl.workers.export_weights import STORED_AS

pytestmark = pytest.mark.integration

TOKEN = "hf_not_a_real_token"
CARD = {
    "run": "ml/demo",
    "point": "iteration 1, LITI 0.5",
    "source": "merged policy",
    "isMerged": True,
    "litiRate": "0.5",
    "iteration": 1,
    "iterations": 1,
    "rlRuns": 2,
    "sftUri": "",
    "digests": {},
}


@pytest.fixture(scope="module")
def files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """An SFT policy and a merged one."""
    return policy_files(1), policy_files(2)


def a_task(folder: Path, files: tuple[dict[str, bytes], dict[str, bytes]], to: str, dtype: str) -> ExportTask:
    store = Store.open(str(folder / "store"))
    sft = publish_policy(store, files[0], role="sft", stage_id="import/sft")
    merged = publish_policy(store, files[1], role="source", stage_id="merge/1", kind=StageKind.MERGE)
    return ExportTask(
        storage=store.root,
        destination=to,
        sft=sft,
        source=merged,
        source_prefix="merged/",
        files=merged,
        files_prefix="merged/",
        liti_rate="0.5",
        dtype=dtype,
        card=CARD,
        spec="kind: WarpRun\n",
    )


@pytest.mark.parametrize("dtype", list(STORED_AS))
def test_transformers_loads_the_interpolation_and_its_tokenizer(tmp_path: Path, files, dtype: str) -> None:
    run_export(a_task(tmp_path, files, str(tmp_path / "out"), dtype))
    loaded, told = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", output_loading_info=True)
    ends = []
    for name, data in zip(("sft", "merged"), files, strict=True):
        (tmp_path / name).mkdir()
        for file, content in data.items():
            (tmp_path / name / file).write_bytes(content)
        ends.append(AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict())

    assert (told["missing_keys"], told["unexpected_keys"]) == (set(), set())
    assert loaded.dtype == getattr(torch, dtype)
    for name, value in loaded.state_dict().items():
        expected = (0.5 * ends[0][name].double() + 0.5 * ends[1][name].double()).float().to(loaded.dtype)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-8)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens = tokenizer("a", return_tensors="pt")["input_ids"]
    assert loaded.generate(tokens, max_new_tokens=3).shape[1] > tokens.shape[1]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "hf-home" / "token"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_hub() as hub:
        hub.write_token = TOKEN
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_a_push_is_a_private_repository_and_one_commit_of_the_whole_folder(hub: Hub, tmp_path: Path, files) -> None:
    task = a_task(tmp_path, files, "hf://lab/warped", "bfloat16")
    address = run_export(task)
    local = tmp_path / "local"
    run_export(task.model_copy(update={"destination": str(local)}))
    repository = hub.repositories["models/lab/warped"]
    pushed = repository.commits[repository.branches["main"]]

    assert address == f"{hub.endpoint}/lab/warped/commit/{repository.branches['main']}"
    wanted = hub.created["lab/warped"]  # which of the two it is depends on the release of huggingface_hub
    assert wanted.get("visibility") == "private" or wanted.get("private") is True
    assert len(repository.commits) == 2  # the hub's own first one, and ours
    assert {name: data for name, data in pushed.items() if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in local.iterdir()
    }


def test_a_repository_with_files_is_never_written_into(hub: Hub, tmp_path: Path, files) -> None:
    first = hub.commit("lab/warped", {"thesis.txt": b"x"})

    with pytest.raises(FinalError, match=r"hf://lab/warped is not empty: it holds thesis\.txt"):
        run_export(a_task(tmp_path, files, "hf://lab/warped", "float32"))

    assert list(hub.repositories["models/lab/warped"].commits) == [first]


def test_a_token_that_may_not_write_is_named_in_one_line(hub: Hub, tmp_path: Path, files) -> None:
    hub.write_token = "another"

    with pytest.raises(FinalError, match=r"^cannot push to hf://lab/warped: the hub answered 403$") as caught:
        run_export(a_task(tmp_path, files, "hf://lab/warped", "float32"))

    assert caught.value.hint == "give a token that may write there: HF_TOKEN, or `hf auth login`"


def test_the_dry_run_lists_what_a_push_uploads_and_asks_no_hub(hub: Hub, tmp_path: Path, files) -> None:
    task = a_task(tmp_path, files, "hf://lab/warped", "float32")
    listed = {line.split()[0] for line in files_text(task).split("\n\n")[0].splitlines()[1:]}

    assert hub.requests == []
    run_export(task)
    repository = hub.repositories["models/lab/warped"]
    assert listed == set(repository.commits[repository.branches["main"]]) - {".gitattributes"}


def test_the_export_process_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys, warpctl.workers.export, warpctl.workers.hub_upload; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, cwd=tmp_path, check=False).returncode == 0
