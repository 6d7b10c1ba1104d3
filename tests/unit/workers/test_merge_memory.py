"""The least memory of a merge: the stage goes on with less, and says so."""

from __future__ import annotations

import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import inputs_of, merge_stage, run_merge
from warpctl.spec.stage_input import Resources
from warpctl.storage.store import Store
from warpctl.workers.merge_memory import least_memory_bytes, upload_bytes
from warpctl.workers.merge_reading import LEAST_WEIGHTS_BYTES, weights_bytes


@pytest.mark.parametrize(("inputs", "mib"), [(2, 360), (3, 400), (9, 640)])
def test_the_least_memory_is_the_least_that_leaves_buffers_their_size(inputs, mib):
    least = least_memory_bytes(inputs, ["/disk", "file:///disk"])
    assert least == mib * 1024**2
    assert weights_bytes(least, inputs) == LEAST_WEIGHTS_BYTES < weights_bytes(least + 8, inputs)


@pytest.mark.parametrize(("targets", "mib"), [(1, 80), (2, 128), (3, 144), (4, 160)])
def test_results_in_buckets_take_a_part_each_and_those_on_their_way(targets, mib):
    """16 MiB each, and as many on their way, but no more than four of a result and six in all."""
    in_buckets = ["gs://bucket/a", "s3://bucket/b", "gs://bucket/c", "s3://bucket/d"][:targets]

    assert upload_bytes([*in_buckets, "/disk", ""]) == mib * 1024**2
    assert least_memory_bytes(3, in_buckets) == (400 + mib) * 1024**2


@pytest.mark.parametrize(("mib", "is_warned"), [(0, False), (399, True), (400, False)])
def test_a_memory_that_cannot_be_kept_to_is_warned_of_and_the_merge_goes_on(tmp_path, capsys, mib, is_warned):
    init, storage = random_weights(0), str(tmp_path / "store")
    inputs = inputs_of(Store.open(storage), [model_files(model) for model in (init, moved(init, 1), moved(init, 2))])
    resources = Resources(memory_bytes=mib * 1024**2)
    run_merge(merge_stage(storage, inputs).model_copy(update={"resources": resources}))
    said = capsys.readouterr().out
    assert ("less than a merge of so many inputs can keep to" in said) is is_warned
    assert ("least_bytes=419430400" in said) is is_warned
