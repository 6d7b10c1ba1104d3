"""The merge worker against an independent float64 merge, for every mix of dtypes, shardings and settings."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest

from tests.builders.checkpoints import SHAPES, model_files, moved, publish, random_weights, rounded
from tests.builders.contexts import StopAfter
from tests.builders.merge_stage import KEY, context_of, inputs_of, merge_files, merge_stage, run_merge
from warpctl import artifacts
from warpctl.errors import FinalError, InputError, Interrupted, NumericsError
from warpctl.merging.groups import split_into_groups
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.spec.merge_method import Granularity, SlerpOrder
from warpctl.spec.stage_input import ImportTask, InputArtifact, StageKind
from warpctl.storage.file_names import INDEX
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers import merge_reading, merge_weights
from warpctl.workers.merge import main

NAMES = sorted(SHAPES)
INIT = random_weights(0)
MEMBERS = [moved(INIT, seed) for seed in (1, 2, 3)]
BY_LAYER, BY_TENSOR, GLOBAL = Granularity.LAYER, Granularity.TENSOR, Granularity.GLOBAL
PAPER, SYMMETRIC = SlerpOrder.PAPER, SlerpOrder.SYMMETRIC


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "store")


def reference_slerp(u, v, slerp_weight):
    a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    omega = 2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    return (math.sin((1 - slerp_weight) * omega) * u + math.sin(slerp_weight * omega) * v) / math.sin(omega)


def reference_merge(init, members, *, granularity=BY_LAYER, order=PAPER, liti_rate=0.3):
    """Merged policy and next init in float64, on whole concatenated task vectors: no Gram matrix, no blocks."""
    merged = {}
    for group in split_into_groups(init, granularity):
        flat = [np.concatenate([w[n].ravel().astype(np.float64) for n in group.tensors]) for w in (init, *members)]
        deltas = [vector - flat[0] for vector in flat[1:]]
        total = deltas[0]
        for m, delta in enumerate(deltas[1:], 2):
            total = reference_slerp(total, delta, 1 / m)
        if order is SYMMETRIC:
            total = sum(deltas) / np.linalg.norm(sum(delta / np.linalg.norm(delta) for delta in deltas))
        position = 0
        for name in group.tensors:
            size = init[name].size
            delta = total[position : position + size].reshape(init[name].shape)
            merged[name] = init[name].astype(np.float64) + delta
            position += size
    next_init = {name: (1 - liti_rate) * init[name].astype(np.float64) + liti_rate * merged[name] for name in init}
    return merged, next_init


def weights_of(artifact, prefix):
    checkpoint = Checkpoint.open(artifact, prefix=prefix)
    return {name: checkpoint.read_raw(name) for name in checkpoint.tensors}


def assert_one_rounding(found, exact):
    """Each value is the float32 nearest to the exact one; a float64 error may tip a tie, so half an ulp and a hair."""
    assert sorted(found) == sorted(exact)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.shape == exact[name].shape
        error = np.abs(values.astype(np.float64) - exact[name])
        assert (error <= 0.5000001 * np.spacing(np.abs(values)) + 1e-300).all(), name


def bytes_of(artifact):
    return {name: artifact.read(name) for name in artifact.names() if name.endswith(".safetensors")}


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("order", list(SlerpOrder))
@pytest.mark.parametrize("num_members", [2, 3])
def test_weights_are_those_of_the_reference_rounded_once(storage, granularity, order, num_members):
    models = [INIT, *MEMBERS[:num_members]]
    artifact = merge_files(storage, [model_files(model) for model in models], granularity=granularity, order=order)
    merged, next_init = reference_merge(INIT, MEMBERS[:num_members], granularity=granularity, order=order)
    assert_one_rounding(weights_of(artifact, "merged/"), merged)
    assert_one_rounding(weights_of(artifact, "next-init/"), next_init)


@pytest.mark.parametrize("dtypes", list(product(["F32", "F16", "BF16"], repeat=3)), ids="-".join)
def test_any_mix_of_dtypes_is_merged_exactly_as_stored_and_published_in_float32(storage, dtypes):
    models = [INIT, *MEMBERS[:2]]
    files = [model_files(model, dtype=dtype) for model, dtype in zip(models, dtypes, strict=True)]
    stored = [rounded(model, dtype) for model, dtype in zip(models, dtypes, strict=True)]
    artifact = merge_files(storage, files)
    merged, next_init = reference_merge(stored[0], stored[1:])
    assert_one_rounding(weights_of(artifact, "merged/"), merged)
    assert_one_rounding(weights_of(artifact, "next-init/"), next_init)


def test_dtypes_may_differ_within_one_checkpoint(storage):
    dtype = {name: "BF16" if "mlp" in name else "F32" for name in NAMES}
    artifact = merge_files(storage, [model_files(INIT, dtype=dtype), *[model_files(m) for m in MEMBERS[:2]]])
    stored = {name: rounded({name: INIT[name]}, dtype[name])[name] for name in NAMES}
    assert_one_rounding(weights_of(artifact, "merged/"), reference_merge(stored, MEMBERS[:2])[0])


def test_one_member_is_the_merged_policy_bit_for_bit(storage):
    artifact = merge_files(storage, [model_files(INIT), model_files(MEMBERS[0])])
    merged = weights_of(artifact, "merged/")
    assert {name: merged[name].tobytes() for name in NAMES} == {name: MEMBERS[0][name].tobytes() for name in NAMES}


def test_liti_rate_1_publishes_the_same_weights_twice(storage):
    artifact = merge_files(storage, [model_files(INIT), *[model_files(m) for m in MEMBERS]], liti_rate="1")
    assert artifact.read("merged/model.safetensors") == artifact.read("next-init/model.safetensors")


def test_member_10_comes_after_member_9(storage):
    members = [moved(INIT, seed) for seed in range(1, 12)]
    artifact = merge_files(storage, [model_files(model) for model in (INIT, *members)])
    assert json.loads(artifact.read("merge.json"))["members"] == [f"member/{m}" for m in range(1, 12)]
    assert_one_rounding(weights_of(artifact, "merged/"), reference_merge(INIT, members)[0])


SHARDINGS = [None, [NAMES[::-1]], [NAMES[4:], NAMES[:4]], [NAMES[::2], NAMES[1::2]], [[name] for name in NAMES]]


def test_output_bytes_do_not_depend_on_how_inputs_are_sharded(storage):
    outputs = []
    for number, sharding in enumerate(SHARDINGS):
        files = [model_files(INIT, shards=sharding), *[model_files(m, shards=SHARDINGS[-number]) for m in MEMBERS]]
        outputs.append(bytes_of(merge_files(f"{storage}/{number}", files)))
    assert all(output == outputs[0] for output in outputs)
    assert sorted(outputs[0]) == ["merged/model.safetensors", "next-init/model.safetensors"]


@pytest.mark.parametrize("granularity", list(Granularity))
def test_output_bytes_do_not_depend_on_whether_a_group_is_held_in_memory(storage, granularity, monkeypatch):
    shapes = {"big.weight": (2 * BLOCK_ELEMENTS + 17,), "small.weight": (5,)}
    init = random_weights(0, shapes=shapes)
    store = Store.open(storage)
    inputs = inputs_of(store, [model_files(w, dtype="BF16") for w in (init, moved(init, 1), moved(init, 2))])
    outputs = []
    for limit in (10**9, 1000, 0):
        for module in (merge_weights, merge_reading):
            monkeypatch.setattr(module, "weights_bytes", lambda *_, limit=limit: limit)
        stage = merge_stage(storage, inputs, granularity=granularity)
        outputs.append(bytes_of(run_merge(stage)))
        store.delete_tree(artifacts.stage("merge", KEY))
    assert outputs[0] == outputs[1] == outputs[2]


def test_output_shards_are_canonical_and_hold_the_same_values(storage):
    inputs = inputs_of(Store.open(storage), [model_files(model) for model in (INIT, *MEMBERS)])
    artifact = run_merge(merge_stage(storage, inputs), max_shard_bytes=400)
    merged, next_init = reference_merge(INIT, MEMBERS)
    assert_one_rounding(weights_of(artifact, "merged/"), merged)
    assert_one_rounding(weights_of(artifact, "next-init/"), next_init)
    weight_map = json.loads(artifact.read(f"merged/{INDEX}"))["weight_map"]
    assert list(weight_map) == NAMES
    assert sorted(weight_map.values()) == list(weight_map.values())
    assert len(set(weight_map.values())) == len(artifact.names("next-init/model-")) > 2


def test_the_rest_of_the_model_comes_from_the_init_and_its_config_says_float32(storage):
    artifact = merge_files(storage, [model_files(INIT), model_files(MEMBERS[0])])
    for prefix in ("merged/", "next-init/"):
        assert artifact.read(f"{prefix}tokenizer.json") == b'{"version": "1.0"}'
        assert artifact.read(f"{prefix}generation_config.json") == b'{"do_sample": true}'
        assert artifact.read(f"{prefix}chat_template.jinja") == b"{{ messages }}"
        config = json.loads(artifact.read(f"{prefix}config.json"))
        assert config == {"model_type": "tiny", "dtype": "float32", "text_config": {"torch_dtype": "float32"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"torch_dtype": "bfloat16"}, {"torch_dtype": "float32"}),
        ({"model_type": "x"}, {"model_type": "x", "dtype": "float32"}),
        ({"dtype": None, "n": [1]}, {"dtype": "float32", "n": [1]}),
    ],
)
def test_the_dtype_of_a_config_keeps_the_name_it_has(storage, before, after):
    init = {**model_files(INIT), "config.json": json.dumps(before).encode()}
    artifact = merge_files(storage, [init, model_files(MEMBERS[0])])
    assert json.loads(artifact.read("merged/config.json")) == after


def test_the_next_merge_starts_from_the_next_init_of_the_last(storage):
    first = merge_files(storage, [model_files(INIT), *[model_files(m) for m in MEMBERS[:2]]])
    store = Store.open(storage)
    init = InputArtifact(role="init", kind=StageKind.MERGE, key=KEY, manifest_digest=first.manifest.digest)
    next_init = weights_of(first, "next-init/")
    members = [moved(next_init, seed) for seed in (7, 8)]
    inputs = [
        init,
        *[
            publish(store, model_files(member), key=f"{number + 50:064d}", role=f"member/{number}")
            for number, member in enumerate(members, 1)
        ],
    ]
    stage = merge_stage(storage, inputs).model_copy(update={"key": "2" * 64})
    second = run_merge(stage)
    assert_one_rounding(weights_of(second, "merged/"), reference_merge(next_init, members)[0])
    assert [name for name in second.names() if "merge.json" in name] == ["merge.json"]


def test_diagnostics_are_those_of_the_vectors(storage):
    artifact = merge_files(storage, [model_files(model) for model in (INIT, *MEMBERS[:2])])
    report = json.loads(artifact.read("merge.json"))
    groups = {group["group"]: group for group in report["groups"]}
    assert list(groups) == [
        "lm_head", "model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.10", "model.layers.2", "model.norm",
    ]  # fmt: skip
    group = groups["model.layers.10"]
    assert group["tensors"] == [name for name in NAMES if name.startswith("model.layers.10.")]
    flat = [np.concatenate([w[n].ravel() for n in group["tensors"]]).astype(np.float64) for w in (INIT, *MEMBERS[:2])]
    one, two = flat[1] - flat[0], flat[2] - flat[0]
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    omega = math.acos(cosine)
    assert group["initNorm"] == pytest.approx(np.linalg.norm(flat[0]), rel=1e-12)
    assert group["norms"] == pytest.approx([np.linalg.norm(one), np.linalg.norm(two)], rel=1e-12)
    assert group["cosines"][0][1] == pytest.approx(cosine, abs=1e-12)
    assert group["angles"] == pytest.approx([math.degrees(omega)], rel=1e-12)
    assert group["weights"] == pytest.approx([math.sin(omega / 2) / math.sin(omega)] * 2, rel=1e-12)
    assert group["mergedNorm"] == pytest.approx(np.linalg.norm(group["weights"][0] * (one + two)), rel=1e-12)
    full = flat[1] @ flat[2] / np.linalg.norm(flat[1]) / np.linalg.norm(flat[2])
    assert group["weightCosines"][1][0] == pytest.approx(full, rel=1e-12)
    assert group["degenerate"] == []
    assert report["litiRate"] == "0.3"
    assert (report["granularity"], report["order"], report["members"]) == ("Layer", "Paper", ["member/1", "member/2"])


def test_the_outcome_sums_up_whole_task_vectors(storage):
    artifact = merge_files(storage, [model_files(model) for model in (INIT, *MEMBERS[:2])])
    outcome = artifact.manifest.outcome
    whole = [np.concatenate([(w[n] - INIT[n].astype(np.float64)).ravel() for n in NAMES]) for w in MEMBERS[:2]]
    norms = [np.linalg.norm(vector) for vector in whole]
    assert outcome["norms"] == pytest.approx(norms, rel=1e-12)
    assert outcome["cosine"] == pytest.approx(whole[0] @ whole[1] / norms[0] / norms[1], rel=1e-9)
    assert outcome["groups"] == 7
    assert outcome["minCosine"] < outcome["cosine"] < outcome["maxCosine"]
    assert 0.999 < outcome["minWeightCosine"] <= 1
    assert outcome["degenerate"] == {}


def test_one_member_has_a_summary_without_pairs(storage):
    outcome = merge_files(storage, [model_files(INIT), model_files(MEMBERS[0])]).manifest.outcome
    assert outcome["cosine"] is None
    assert outcome["minCosine"] is None
    assert len(outcome["norms"]) == 1


def test_frozen_and_antiparallel_groups_are_merged_by_lerp_and_reported(storage):
    one, two = dict(MEMBERS[0]), dict(MEMBERS[1])
    one["model.norm.weight"] = INIT["model.norm.weight"]
    one["lm_head.weight"], two["lm_head.weight"] = INIT["lm_head.weight"] + 1, INIT["lm_head.weight"] - 1
    one["model.embed_tokens.weight"] = two["model.embed_tokens.weight"] = INIT["model.embed_tokens.weight"]
    artifact = merge_files(storage, [model_files(model) for model in (INIT, one, two)])
    merged = weights_of(artifact, "merged/")
    groups = {group["group"]: group for group in json.loads(artifact.read("merge.json"))["groups"]}
    assert groups["model.norm"]["degenerate"] == ["Zero"]
    assert groups["model.norm"]["cosines"][0] == [None, None]
    halfway = (INIT["model.norm.weight"].astype(np.float64) + two["model.norm.weight"]) / 2
    assert merged["model.norm.weight"].tolist() == halfway.astype(np.float32).tolist()
    assert groups["lm_head"]["degenerate"] == ["Antiparallel"]
    np.testing.assert_allclose(merged["lm_head.weight"], INIT["lm_head.weight"], rtol=0, atol=5e-7)
    assert merged["model.embed_tokens.weight"].tobytes() == INIT["model.embed_tokens.weight"].tobytes()
    assert artifact.manifest.outcome["degenerate"] == {"Zero": 2, "Antiparallel": 1}


def without_head(weights):
    return {name: value for name, value in weights.items() if name != "lm_head.weight"}


def tied(weights):
    return {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}


def test_a_tied_head_that_nobody_stores_is_nothing_to_merge(storage):
    artifact = merge_files(storage, [model_files(without_head(model)) for model in (INIT, *MEMBERS)])
    assert_one_rounding(
        weights_of(artifact, "merged/"), reference_merge(without_head(INIT), [without_head(m) for m in MEMBERS])[0]
    )


@pytest.mark.parametrize("storing", [(0,), (1,), (0, 2)])
def test_a_tied_head_that_some_inputs_store_as_a_copy_is_left_out(storage, storing):
    models = [
        model_files(tied(model) if number in storing else without_head(model), dtype="BF16")
        for number, model in enumerate((INIT, *MEMBERS[:2]))
    ]
    artifact = merge_files(storage, models)
    stored = [rounded(without_head(model), "BF16") for model in (INIT, *MEMBERS[:2])]
    assert_one_rounding(weights_of(artifact, "merged/"), reference_merge(stored[0], stored[1:])[0])
    assert json.loads(artifact.read("merge.json"))["tiedCopies"] == ["lm_head.weight"]


BAD = {
    "a tensor is missing": (without_head(MEMBERS[0]), InputError, "lm_head.weight is in init but not in member/1"),
    "a tensor is extra": (
        {**MEMBERS[0], "value_head.weight": np.ones(3, np.float32)},
        InputError,
        "value_head.weight is in member/1 but not in init",
    ),
    "a shape differs": (
        {**MEMBERS[0], "lm_head.weight": np.ones((14, 6), np.float32)},
        InputError,
        r"tensor lm_head.weight has shape \[13, 6\] in init but \[14, 6\] in member/1",
    ),
    "a shape is transposed": (
        {**MEMBERS[0], "lm_head.weight": np.ones((6, 13), np.float32)},
        InputError,
        r"has shape \[13, 6\] in init but \[6, 13\] in member/1",
    ),
}


@pytest.mark.parametrize(("member", "error", "message"), BAD.values(), ids=BAD)
def test_inputs_that_do_not_fit_together_are_refused_in_one_line(storage, member, error, message):
    with pytest.raises(error, match=message) as caught:
        merge_files(storage, [model_files(INIT), model_files(member), model_files(MEMBERS[1])])
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert Store.open(storage).stat(artifacts.marker("merge", KEY)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("source", [0, 2])
def test_nan_and_inf_are_refused_with_tensor_input_and_place(storage, value, dtype, source):
    models = [dict(model) for model in (INIT, *MEMBERS[:2])]
    bad = models[source]["model.layers.2.mlp.up.weight"].copy()
    bad[3, 4] = value
    models[source]["model.layers.2.mlp.up.weight"] = bad
    role = ["init", "member/1", "member/2"][source]
    message = rf"tensor model.layers.2.mlp.up.weight of {role} has {value} at \[3, 4\]"
    with pytest.raises(NumericsError, match=message):
        merge_files(storage, [model_files(model, dtype=dtype) for model in models])
    assert Store.open(storage).stat(artifacts.marker("merge", KEY)) is None


def test_the_place_of_a_nan_is_right_in_a_tensor_of_several_blocks(storage):
    init = {"w": np.ones((3, BLOCK_ELEMENTS), np.float32)}
    bad = {"w": init["w"].copy()}
    bad["w"][2, 5] = np.nan
    with pytest.raises(NumericsError, match=r"tensor w of member/1 has nan at \[2, 5\]"):
        merge_files(storage, [model_files(init), model_files(bad)])


def test_a_merge_beyond_float32_is_refused(storage):
    init = {"w": np.full(4, -3e38, np.float32)}
    one = {"w": np.array([3e38, 3e38, -3e38, -3e38], np.float32)}
    two = {"w": np.array([3e38, -3e38, 3e38, -3e38], np.float32)}
    with pytest.raises(NumericsError, match="merging tensor w gives values beyond float32"):
        merge_files(storage, [model_files(model) for model in (init, one, two)])


def test_an_unusable_input_is_named_by_its_role(storage):
    with pytest.raises(InputError, match=r"^member/2: no model.safetensors"):
        merge_files(storage, [model_files(INIT), model_files(MEMBERS[0]), {"config.json": b"{}"}])


def test_an_input_published_anew_is_refused_by_its_digest(storage):
    store = Store.open(storage)
    inputs = inputs_of(store, [model_files(INIT), model_files(MEMBERS[0])])
    store.delete(artifacts.marker("import", inputs[1].key))
    publish(store, model_files(MEMBERS[1]), key=inputs[1].key, role="member/1")
    with pytest.raises(InputError, match=r"member/1: .* has digest"):
        run_merge(merge_stage(storage, inputs))


def test_a_stage_without_members_or_of_another_kind_is_a_mistake_of_the_planner(storage):
    inputs = inputs_of(Store.open(storage), [model_files(INIT)])
    with pytest.raises(FinalError, match="has no members"):
        run_merge(merge_stage(storage, inputs))
    wrong = merge_stage(storage, inputs).model_copy(
        update={"task": ImportTask(what="Model", uri="memory://x", revision="main")}
    )
    with pytest.raises(FinalError, match="a task of kind import"):
        run_merge(wrong)


def interrupted(stage, *, groups, **limits):
    context = context_of(stage)
    context.stop = StopAfter(groups)
    with pytest.raises(Interrupted):
        main(context, **limits)
    return context.store


@pytest.fixture
def opened_inputs(monkeypatch):
    """Names of the tensors of each read."""
    reads = []
    read = Checkpoint.read_flat_into
    monkeypatch.setattr(
        Checkpoint, "read_flat_into", lambda self, names, into: (reads.append(names), read(self, names, into))[1]
    )
    return reads


@pytest.mark.parametrize("groups", range(7))
@pytest.mark.parametrize("granularity", [BY_LAYER, BY_TENSOR])
def test_stopped_between_any_two_groups_and_started_again_the_output_is_the_same(storage, groups, granularity):
    inputs = inputs_of(Store.open(storage), [model_files(model) for model in (INIT, *MEMBERS)])
    whole = run_merge(merge_stage(storage, inputs, granularity=granularity), max_shard_bytes=400)
    expected = {name: whole.read(name) for name in whole.names()}
    store = Store.open(storage)
    store.delete_tree(artifacts.stage("merge", KEY))
    first = merge_stage(storage, inputs, granularity=granularity, attempt="a1")
    store = interrupted(first, groups=groups, max_shard_bytes=400)
    assert store.stat(artifacts.marker("merge", KEY)) is None
    second = merge_stage(storage, inputs, granularity=granularity, attempt="a2")
    interrupted(second, groups=1, max_shard_bytes=400)
    again = run_merge(merge_stage(storage, inputs, granularity=granularity, attempt="a3"), max_shard_bytes=400)
    assert {name: again.read(name) for name in again.names()} == expected
    assert again.manifest.content_digest == whole.manifest.content_digest


def test_shards_that_an_earlier_attempt_finished_are_not_computed_again(storage, opened_inputs):
    inputs = inputs_of(Store.open(storage), [model_files(model) for model in (INIT, *MEMBERS[:2])])
    interrupted(merge_stage(storage, inputs, attempt="a1"), groups=5, max_shard_bytes=400)
    opened_inputs.clear()
    artifact = run_merge(merge_stage(storage, inputs, attempt="a2"), max_shard_bytes=400)
    kept = [file.name for file in artifact.manifest.files if "/a1/" in file.path]
    shards = [f"model-{number:05d}-of-00005.safetensors" for number in (1, 2, 3)]
    assert kept == [prefix + shard for prefix in ("merged/", "next-init/") for shard in shards]
    assert {name for names in opened_inputs for name in names} == {
        name for name in NAMES if name.startswith(("model.layers.10.", "model.layers.2.", "model.norm."))
    }


def test_a_whole_model_in_one_group_may_be_stopped_and_resumed_too(storage, monkeypatch):
    """Read in blocks, since it does not fit: between any two of them."""
    monkeypatch.setattr(merge_weights, "weights_bytes", lambda *_: 1)
    monkeypatch.setattr(merge_reading, "weights_bytes", lambda *_: 1)
    inputs = inputs_of(Store.open(storage), [model_files(model) for model in (INIT, *MEMBERS[:2])])
    whole = run_merge(merge_stage(storage, inputs, granularity=GLOBAL), max_shard_bytes=400)
    expected = bytes_of(whole)
    store = Store.open(storage)
    store.delete_tree(artifacts.stage("merge", KEY))

    interrupted(merge_stage(storage, inputs, granularity=GLOBAL), groups=len(NAMES) + 6, max_shard_bytes=400)
    again = run_merge(merge_stage(storage, inputs, granularity=GLOBAL, attempt="a2"), max_shard_bytes=400)

    assert bytes_of(again) == expected
    assert {file.path.split("/attempts/")[1].split("/")[0] for file in again.manifest.files} == {"a1", "a2"}


def test_nothing_is_taken_from_an_attempt_that_read_other_inputs(storage):
    store = Store.open(storage)
    inputs = inputs_of(store, [model_files(model) for model in (INIT, *MEMBERS[:2])])
    interrupted(merge_stage(storage, inputs, attempt="a1"), groups=5, max_shard_bytes=400)
    store.delete(artifacts.marker("import", inputs[1].key))
    changed = publish(store, model_files(MEMBERS[2]), key=inputs[1].key, role="member/1")
    artifact = run_merge(merge_stage(storage, [inputs[0], changed, inputs[2]], attempt="a2"), max_shard_bytes=400)
    assert not any("/a1/" in file.path for file in artifact.manifest.files)
    assert_one_rounding(weights_of(artifact, "merged/"), reference_merge(INIT, [MEMBERS[2], MEMBERS[1]])[0])


@pytest.mark.parametrize("damage", ["state", "shard"])
def test_a_damaged_resume_state_only_costs_time(storage, damage):
    store = Store.open(storage)
    inputs = inputs_of(store, [model_files(model) for model in (INIT, *MEMBERS[:2])])
    interrupted(merge_stage(storage, inputs, attempt="a1"), groups=5, max_shard_bytes=400)
    for file in store.list(artifacts.attempt("merge", KEY, "a1")):
        if damage == "state" and "/resume/" in file.path:
            store.write(file.path, b"{")
        if damage == "shard" and file.path.endswith(".safetensors"):
            store.delete(file.path)
    artifact = run_merge(merge_stage(storage, inputs, attempt="a2"), max_shard_bytes=400)
    assert not any("/a1/" in file.path for file in artifact.manifest.files)
    assert_one_rounding(weights_of(artifact, "merged/"), reference_merge(INIT, MEMBERS[:2])[0])


def test_progress_counts_groups(storage):
    inputs = inputs_of(Store.open(storage), [model_files(INIT), model_files(MEMBERS[0])])
    artifact = run_merge(merge_stage(storage, inputs))
    path = artifacts.progress("merge", KEY, artifact.manifest.attempt_id)
    found = json.loads(Store.open(storage).read(path))
    assert (found["done"], found["total"], found["unit"]) == (7, 7, "groups")
