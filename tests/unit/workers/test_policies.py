"""Policies load as float32 from any artifact, with their end tokens; what cannot be trusted or is broken is refused."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from transformers import AutoModelForCausalLM, GemmaForCausalLM, GPT2Config, GPT2Model, LlamaConfig, MixtralConfig
from transformers.core_model_loading import MergeModulelist

from tests.builders.checkpoints import publish
from tests.builders.rl_stage import policy_files, small_policy
from warpctl.errors import CorruptError, InputError
from warpctl.spec.training import Precision
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers import policies
from warpctl.workers.policies import arithmetic, load_policy, read_policy


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


SMALL = {"vocab_size": 97, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ARCHITECTURES = {
    "tied": LlamaConfig(**SMALL, intermediate_size=24, tie_word_embeddings=True, architectures=["LlamaForCausalLM"]),
    "untied": LlamaConfig(**SMALL, intermediate_size=24, architectures=["LlamaForCausalLM"]),
    "with biases and its own names": GPT2Config(vocab_size=97, n_embd=16, n_layer=2, n_head=2),
    "experts that are stored one by one": MixtralConfig(
        **SMALL, intermediate_size=24, num_key_value_heads=2, num_local_experts=3
    ),
}


@pytest.mark.parametrize("settings", [True, False], ids=["generation config", "no generation config"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_policy_is_the_one_that_from_pretrained_makes_of_its_folder(store, tmp_path, architecture, settings):
    """Weights, config, generation config, and what either would save, byte by byte."""
    torch.manual_seed(1)
    folder = tmp_path / "model"
    half = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]).bfloat16()
    half.generation_config.eos_token_id = 2
    half.save_pretrained(folder, max_shard_size="10KB")
    if not settings:
        (folder / "generation_config.json").unlink()
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    tokenizer = {name: data for name, data in policy_files().items() if name.startswith("tokenizer")}

    model, _ = load_policy(artifact(store, {**files, **tokenizer}))

    assert type(model) is type(expected)
    assert dict(model.named_parameters()).keys() == dict(expected.named_parameters()).keys()
    for name, parameter in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    model.config.name_or_path = expected.config.name_or_path  # a temporary folder, which is not saved
    assert model.config.to_dict() == expected.config.to_dict()
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    assert model.config._attn_implementation == expected.config._attn_implementation
    model.save_pretrained(tmp_path / "ours")
    expected.save_pretrained(tmp_path / "theirs")
    ours, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / whose).iterdir()} for whose in ("ours", "theirs")
    )
    assert ours == theirs
    rows = torch.tensor([[5, 7, 11, 13]])
    assert torch.equal(model(rows).logits, expected(rows).logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_policy_can_be_read_into_the_weights_of_another(store, tmp_path, architecture):
    """Those of a model that was there before: other values then, in the same memory."""
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]).bfloat16().save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    published = artifact(store, {f"merged/{name}": data for name, data in {**policy_files(), **files}.items()})
    expected, _ = load_policy(published, "merged/")
    other = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]).float()
    places = [parameter.data_ptr() for parameter in other.parameters()]

    read_policy(published, "merged/", dict(other.named_parameters()))

    assert [parameter.data_ptr() for parameter in other.parameters()] == places
    for name, parameter in expected.named_parameters():
        assert torch.equal(other.get_parameter(name), parameter), name


def test_what_need_not_be_stored_is_what_transformers_makes_it(store, monkeypatch):
    """Whatever the targets held before."""
    name = "model.norm.weight"
    monkeypatch.setattr(GemmaForCausalLM, "_keys_to_ignore_on_load_missing", [name], raising=False)
    files = dict(policy_files())
    weights = load(files["model.safetensors"])
    del weights[name]
    files["model.safetensors"] = save(weights, metadata={"format": "pt"})
    targets = {each: torch.full_like(weight, torch.nan) for each, weight in small_policy().named_parameters()}

    read_policy(artifact(store, files), "", targets)

    expected, _ = load_policy(artifact(store, files))
    assert targets[name].isfinite().all()
    for each, target in targets.items():
        assert torch.equal(target, expected.get_parameter(each)), each


@pytest.mark.parametrize("change", ["shape", "one more", "one less"])
def test_a_policy_with_other_weights_is_refused_before_any_is_overwritten(store, change):
    targets = {name: torch.full_like(weight, 3.0) for name, weight in small_policy().named_parameters()}
    name = next(iter(targets))
    if change == "shape":
        targets[name] = torch.full((5,), 3.0)
    elif change == "one more":
        targets["more"] = torch.full((5,), 3.0)
    else:
        del targets[name]

    with pytest.raises(InputError, match="the model has other weights than the SFT policy"):
        read_policy(artifact(store, policy_files()), "", targets)

    assert all((target == 3.0).all() for target in targets.values())


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_tied_head_that_is_stored_too_is_one_only_where_it_is_equal(store, tmp_path, is_equal):
    """transformers looks at the values: it leaves those apart that differ."""
    tensors = load(policy_files()["model.safetensors"])
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + (0 if is_equal else 1)
    files = {**policy_files(), "model.safetensors": save(tensors, metadata={"format": "pt"})}

    model, _ = load_policy(artifact(store, files))

    assert (model.lm_head.weight is model.model.embed_tokens.weight) is is_equal
    assert torch.equal(model.lm_head.weight, tensors["lm_head.weight"])
    assert torch.equal(model.model.embed_tokens.weight, tensors["model.embed_tokens.weight"])


def test_experts_that_are_converted_are_not_held_twice(store, tmp_path, monkeypatch):
    """Those of a layer are gone when the next layer's are put together."""
    torch.manual_seed(1)
    config = MixtralConfig(
        **SMALL | {"num_hidden_layers": 4}, intermediate_size=24, num_key_value_heads=2, num_local_experts=3
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    stored, alive = [], []
    read, convert = policies.read_weights, MergeModulelist.convert

    def recording(*arguments):
        weights = read(*arguments)
        stored.extend(weakref.ref(weight) for name, weight in weights.items() if ".experts." in name)
        return weights

    def counting(*arguments, **named):
        alive.append(sum(weight() is not None for weight in stored))
        return convert(*arguments, **named)

    monkeypatch.setattr(policies, "read_weights", recording)
    monkeypatch.setattr(MergeModulelist, "convert", counting)
    load_policy(artifact(store, {**policy_files(), **files}))

    a_layer = 3 * 3
    assert len(stored) == 4 * a_layer
    assert len(alive) == 4 * 2
    assert alive[0] == 4 * a_layer
    assert alive[-1] <= a_layer


def test_what_was_converted_goes_as_it_is_copied(store, tmp_path, monkeypatch):
    torch.manual_seed(1)
    config = ARCHITECTURES["experts that are stored one by one"]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    targets = dict(AutoModelForCausalLM.from_config(config).float().named_parameters())
    made, place = [], policies.place_weights
    monkeypatch.setattr(policies, "place_weights", lambda *args, **named: made.append(place(*args, **named)) or made[0])

    read_policy(artifact(store, {**policy_files(), **files}), "", targets)

    assert [parameter.numel() for parameter in made[0].parameters()] == [0] * len(targets)
    assert all(target.numel() for target in targets.values())


def test_weights_saved_without_the_head_are_found_under_their_other_names(store, tmp_path):
    """A base model's checkpoint lacks the prefix of its body; a tied head needs nothing else."""
    torch.manual_seed(1)
    base = GPT2Model(ARCHITECTURES["with biases and its own names"])
    base.save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    model, _ = load_policy(artifact(store, {**policy_files(), **files}))

    for name, parameter in base.named_parameters():
        assert torch.equal(model.get_parameter(f"transformer.{name}"), parameter), name


def test_each_weight_has_memory_of_its_own_on_a_boundary_of_64_bytes(store):
    model, _ = load_policy(artifact(store, policy_files()))

    for parameter in model.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.data_ptr() % 64 == 0


def test_no_weights_are_written_to_the_local_disk(store, monkeypatch):
    written = []
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: written.append(path.name) or write(path, data))
    monkeypatch.setattr(Artifact, "download", None)

    load_policy(artifact(store, policy_files()))

    assert "config.json" in written
    assert not [name for name in written if "safetensors" in name]


def test_weights_that_its_kind_of_model_has_not_are_refused(store):
    tensors = {**load(policy_files()["model.safetensors"]), "value_head.weight": torch.ones(3)}

    with pytest.raises(InputError, match=r"holds 1 weights that its kind of model has not, the first is value_head"):
        load_policy(artifact(store, {**policy_files(), "model.safetensors": save(tensors, metadata={"format": "pt"})}))


def test_damaged_weights_are_refused(store):
    published = artifact(store, policy_files())
    path = store.local_path(published.entry("model.safetensors").path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptError, match="its bytes were altered"):
        load_policy(published)


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
