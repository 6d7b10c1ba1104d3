"""Weights of checkpoints with the same tensors, one tensor after the other, read ahead of need into a few buffers.

What combines checkpoints without their inner products (export) reads like this; a merge, which needs them first, plans in
groups; a policy alone is read chunk by chunk (policy_weights.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy.typing as npt

from warpctl.merging.groups import Group
from warpctl.storage.headers import TensorSpec
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.merge_reading import MIB, Load, Reader, plan_group
from warpctl.workers.merge_sources import Source, Sources

Stored = npt.NDArray[Any]

LOAD_BYTES = 64 * MIB
"""Read together, of all inputs: several chunks, so that they come at once."""
_LOADS = 2
"""One is worked on while the other is read."""


class Part(NamedTuple):
    """A tensor, or a row block of one that is larger than a load."""

    tensor: str
    elements: slice
    stored_K: Sequence[Stored]
    """Flat, of each input, as it is stored (bfloat16 as uint16), read-only; gone when the next part is asked for."""


@contextmanager
def weight_stream(
    specs: Sequence[TensorSpec], *inputs: Checkpoint, load_bytes: int = LOAD_BYTES
) -> Iterator[Iterator[Part]]:
    """The tensors of `specs` in that order; all inputs have them in these shapes. Memory is two loads, whatever the model."""
    sources = Sources(tuple(Source(str(number), each) for number, each in enumerate(inputs)), tuple(specs), ())
    with closing(_parts(sources, load_bytes)) as parts:
        yield parts


def _parts(sources: Sources, load_bytes: int) -> Generator[Part]:
    loads = list(_loads(sources, load_bytes))
    with Reader(sources, loads, max_bytes=_LOADS * load_bytes) as reader:
        for load in loads:
            with reader.take(load) as weights:
                for name in load.tensors:
                    elements = load.elements or slice(0, weights[name][0].size)
                    yield Part(name, elements, weights[name])


def _loads(sources: Sources, load_bytes: int) -> Iterator[Load]:
    """As many tensors together as a load holds."""
    together: list[str] = []
    num_bytes = 0
    for spec in sources.specs:
        tensor_bytes = sum(source.checkpoint.tensors[spec.name].num_bytes for source in sources.all)
        if together and num_bytes + tensor_bytes > load_bytes:
            yield from _load(sources, together, load_bytes)
            together, num_bytes = [], 0
        together.append(spec.name)
        num_bytes += tensor_bytes
    if together:
        yield from _load(sources, together, load_bytes)


def _load(sources: Sources, tensors: Sequence[str], load_bytes: int) -> Sequence[Load]:
    return plan_group(sources, Group(tensors[0], tuple(tensors)), lambda _: True, max_bytes=load_bytes).combination
