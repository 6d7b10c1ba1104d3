"""Write one checkpoint of noise: python -m tests.benchmarks.merge.checkpoint ARCHITECTURE FOLDER MEMBER [--sparse].

Member 0 is the init. A member is the init with a quarter of its values one place up and a quarter one place down in bfloat16:
task vectors as small as those of RL, and orthogonal to each other. In a --sparse checkpoint all but the first rows of each
tensor are holes of the file, which read as zeros.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.merge.architecture import Architecture
from warpctl.storage.file_names import CONFIG, INDEX
from warpctl.storage.headers import TensorInfo, TensorSpec, index, split_into_shards

SHARD_BYTES = 1024**3
BLOCK_ELEMENTS = 1 << 22
SPARSE_ROWS = 4
"""Of each tensor, that are not zero in a sparse checkpoint."""
SIGN_AND_FRACTION, AROUND_A_THIRTIETH = np.uint16(0x80FF), np.uint16(0x3D00)
"""bfloat16s of both signs from 2**-5 to 2**-3."""


def random_bits(seed: tuple[int, ...], count: int) -> np.ndarray:
    """uint16 (N,)."""
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 1 << 64, -(-count // 4), dtype=np.uint64)
    return words.view(np.uint16)[:count]


def values(place: int, block: int, count: int, member: int) -> np.ndarray:
    """Bits of bfloat16s (N,): of one block of the tensor at this place."""
    bits = (random_bits((0, place, block), count) & SIGN_AND_FRACTION) | AROUND_A_THIRTIETH
    if member:
        step = random_bits((member, place, block), count)
        bits += step & np.uint16(1)
        bits -= (step >> np.uint16(1)) & np.uint16(1)
    return bits


def tensor_blocks(tensor: TensorInfo, place: int, member: int) -> Iterator[np.ndarray]:
    for block, start in enumerate(range(0, tensor.num_elements, BLOCK_ELEMENTS)):
        yield values(place, block, min(BLOCK_ELEMENTS, tensor.num_elements - start), member)


def first_rows(tensor: TensorInfo, place: int, member: int) -> np.ndarray:
    rows = SPARSE_ROWS if len(tensor.shape) > 1 else tensor.shape[0]
    return values(place, 0, min(rows, tensor.shape[0]) * math.prod(tensor.shape[1:]), member)


def write(architecture: Architecture, folder: Path, *, member: int, is_sparse: bool) -> None:
    specs = [TensorSpec(name, shape) for name, shape in architecture.shapes().items()]
    places = {spec.name: place for place, spec in enumerate(specs)}
    shards = split_into_shards(specs, dtype="BF16", max_shard_bytes=SHARD_BYTES)
    folder.mkdir(parents=True)
    for shard in shards:
        with (folder / shard.file).open("wb") as file:
            file.write(shard.head)
            for tensor in shard.tensors:
                place = places[tensor.name]
                if is_sparse:
                    file.seek(tensor.start)
                    file.write(first_rows(tensor, place, member).data)
                    file.truncate(tensor.end)
                    continue
                for bits in tensor_blocks(tensor, place, member):
                    file.write(bits.data)
    if len(shards) > 1:
        (folder / INDEX).write_bytes(index(shards))
    (folder / CONFIG).write_text(json.dumps(architecture.config(), indent=2))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("architecture", type=Architecture.from_json)
    parser.add_argument("folder", type=Path)
    parser.add_argument("member", type=int)
    parser.add_argument("--sparse", action="store_true")
    chosen = parser.parse_args()
    write(chosen.architecture, chosen.folder, member=chosen.member, is_sparse=chosen.sparse)


if __name__ == "__main__":
    main()
