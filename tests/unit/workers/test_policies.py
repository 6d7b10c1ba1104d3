"""Policies load as float32 from any artifact, with their end tokens; what cannot be trusted or is broken is refused."""

from __future__ import annotations

import json

import pytest
import torch

from tests.builders.checkpoints import publish
from tests.builders.rl_stage import policy_files, small_policy
from warpctl.errors import InputError
from warpctl.spec.training import Precision
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.policies import arithmetic, load_policy


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def artifact(store, files):
    return Artifact.of(store, publish(store, files, key="a" * 64, role="sft"))


def changed(**changes):
    """The policy's files with fields of some JSON files changed: config={"eos_token_id": None}, ..."""
    files = dict(policy_files())
    for name, fields in changes.items():
        file = {"config": "config.json", "generation": "generation_config.json", "tokenizer": "tokenizer_config.json"}[
            name
        ]
        files[file] = json.dumps({**json.loads(files[file]), **fields}).encode()
    return files


def test_weights_are_float32_in_eval_mode_and_their_own(store):
    model, _ = load_policy(artifact(store, policy_files()))

    for name, parameter in small_policy().named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    assert model.dtype == torch.float32
    assert not model.training
    with torch.no_grad():  # a mapped file of the store would change with it
        next(model.parameters()).zero_()
    again, _ = load_policy(artifact(store, policy_files()))
    assert next(again.parameters()).abs().sum() > 0


def test_bfloat16_checkpoints_become_float32(store, tmp_path):
    small_policy().bfloat16().save_pretrained(tmp_path / "model")
    half = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    model, _ = load_policy(artifact(store, {**policy_files(), **half}))

    assert model.dtype == torch.float32
    expected = next(small_policy().parameters()).bfloat16().float()
    assert torch.equal(next(model.parameters()), expected)


def test_a_prefix_chooses_one_of_a_merges_two_policies(store):
    files = {f"merged/{name}": data for name, data in policy_files(1).items()}
    files |= {f"next-init/{name}": data for name, data in policy_files(2).items()}

    model, _ = load_policy(artifact(store, files), "next-init/")

    assert torch.equal(next(model.parameters()), next(small_policy(2).parameters()))


def test_end_tokens_are_those_of_config_generation_config_and_tokenizer(store):
    """Chat models end their turn with another token than their texts."""
    _, vocabulary = load_policy(
        artifact(store, changed(generation={"eos_token_id": [2, 17]}, config={"eos_token_id": 9}))
    )

    assert vocabulary.end_tokens == {2, 9, 17}


def test_nothing_that_ends_a_completion_is_refused(store):
    files = changed(config={"eos_token_id": None}, generation={"eos_token_id": None}, tokenizer={"eos_token": None})

    with pytest.raises(InputError, match="no end-of-sequence token"):
        load_policy(artifact(store, files))


def test_without_a_pad_token_rows_are_filled_with_an_end_token(store):
    _, vocabulary = load_policy(artifact(store, changed(tokenizer={"pad_token": None})))

    assert vocabulary.pad_token == 2
    assert vocabulary.decode([1, 11, 30, 2]) == "the me"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"num_hidden_layers": 3}}, r"lacks 9 weights, the first is model.layers.2"),
        ({"config": {"model_type": "no-such-model"}}, "cannot be loaded"),
        ({"config": {"vocab_size": 100}}, "cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(store, changes, message):
    with pytest.raises(InputError, match=message):
        load_policy(artifact(store, changed(**changes)))


def test_pickled_weights_are_not_read(store):
    files = {name: data for name, data in policy_files().items() if not name.endswith(".safetensors")}
    files["pytorch_model.bin"] = b"not even a pickle"

    with pytest.raises(InputError, match="cannot be loaded"):
        load_policy(artifact(store, files))


def test_a_repositorys_own_code_is_not_run(store, tmp_path):
    """auto_map names code beside the weights; it is refused, not run."""
    trace = tmp_path / "ran"
    files = changed(
        config={"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    )
    files["mine.py"] = f"open({str(trace)!r}, 'w')".encode()

    with pytest.raises(InputError, match=r"needs no code of its own|cannot be loaded"):
        load_policy(artifact(store, files))
    assert not trace.exists()


def test_bfloat16_is_autocast_and_float32_is_nothing():
    with arithmetic(Precision.BFLOAT16, torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")
    with arithmetic(Precision.FLOAT32, torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
