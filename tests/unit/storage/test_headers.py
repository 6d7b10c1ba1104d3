"""Damaged headers are refused with what is wrong; the layout depends on names, shapes and the limit alone."""

from __future__ import annotations

import json

import pytest

from warpctl.errors import InputError
from warpctl.storage.headers import TensorSpec, header_length, index, parse_header, split_into_shards

GOOD = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def parse(header, *, file_bytes=10_000):
    data = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return parse_header(data, file="model.safetensors", file_bytes=file_bytes)


def test_offsets_are_turned_into_positions_in_the_file():
    data = json.dumps({"__metadata__": {"format": "pt"}, **GOOD}).encode()
    (tensor,) = parse(data)
    assert (tensor.start, tensor.end) == (8 + len(data), 8 + len(data) + 24)
    assert (tensor.shape, tensor.num_elements, tensor.num_bytes) == ((2, 3), 6, 24)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "its header is not JSON"),
        (b"\xff\xfe", "its header is not JSON"),
        (b"[]", "not a JSON object"),
        ({"w": {"dtype": "F32", "shape": [2]}}, "entry of w is malformed"),
        ({"w": 3}, "entry of w is malformed"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, "entry of w is malformed"),
        ({"w": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 8]}}, "entry of w is malformed"),
        ({"w": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}, "tensor w is I64, weights must be one of F32"),
        ({"w": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}, "tensor w is F64"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}, r"shape \[2\] of F32 \(8 bytes\)"),
        ({"w": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, "has shape"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, "has shape"),
    ],
)
def test_a_damaged_header_is_refused_with_what_is_wrong(header, message):
    with pytest.raises(InputError, match=message):
        parse(header)


def test_a_truncated_file_is_refused_with_both_ends():
    with pytest.raises(InputError, match=r"ends at byte 50, its tensor w at byte 9\d"):
        parse(GOOD, file_bytes=50)


@pytest.mark.parametrize("head", [b"", b"1234567", (1).to_bytes(8, "little"), (10**9).to_bytes(8, "little")])
def test_a_file_that_is_no_safetensors_file_is_refused(head):
    with pytest.raises(InputError, match="is not a safetensors file"):
        header_length(head, file="x")


SPECS = [TensorSpec("c", (5,)), TensorSpec("a", (10,)), TensorSpec("b", (5,)), TensorSpec("d", ())]


def test_a_checkpoint_that_fits_is_one_file_with_sorted_names_and_an_aligned_start():
    (shard,) = split_into_shards(SPECS, max_shard_bytes=84)
    assert shard.file == "model.safetensors"
    assert [tensor.name for tensor in shard.tensors] == ["a", "b", "c", "d"]
    assert len(shard.head) % 8 == 0
    assert shard.size == len(shard.head) + 4 * 21


def test_a_shard_ends_before_the_tensor_that_would_exceed_the_limit():
    shards = split_into_shards(SPECS, max_shard_bytes=60)
    assert [[tensor.name for tensor in shard.tensors] for shard in shards] == [["a", "b"], ["c", "d"]]
    assert [shard.file for shard in shards] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_tensor_above_the_limit_gets_a_file_of_its_own():
    shards = split_into_shards(SPECS, max_shard_bytes=30)
    assert [[tensor.name for tensor in shard.tensors] for shard in shards] == [["a"], ["b"], ["c", "d"]]


def test_the_limit_counts_bytes_of_the_stored_type():
    assert len(split_into_shards(SPECS, dtype="BF16", max_shard_bytes=42)) == 1
    assert len(split_into_shards(SPECS, dtype="F32", max_shard_bytes=42)) == 3


def test_the_layout_does_not_depend_on_the_order_in_which_tensors_are_named():
    assert split_into_shards(SPECS[::-1], max_shard_bytes=60) == split_into_shards(SPECS, max_shard_bytes=60)


def test_the_index_names_the_file_of_each_tensor_and_the_total_size():
    found = json.loads(index(split_into_shards(SPECS, max_shard_bytes=60)))
    assert found["metadata"] == {"total_size": 84}
    assert found["weight_map"]["c"] == "model-00002-of-00002.safetensors"
    assert list(found["weight_map"]) == ["a", "b", "c", "d"]
