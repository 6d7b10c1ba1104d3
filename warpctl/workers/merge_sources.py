"""What a merge reads: init and members, checked against each other, and their weights in blocks of float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from warpctl.errors import InputError, NumericsError
from warpctl.merging.task_vector import BLOCK_ELEMENTS, blocks
from warpctl.storage.tensors import Checkpoint, TensorSpec, to_float32

WINDOW_ELEMENTS = 512 * BLOCK_ELEMENTS
"""Elements of one tensor read at a time when a group is too large to be held: 64 MiB of float32 from each input."""

Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """One input, by its role (`init`, `member/2`)."""

    role: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Sources:
    """K = M + 1 inputs with the same tensors, the init first. `tied_copies` were stored by some and left out."""

    all: tuple[Source, ...]
    specs: tuple[TensorSpec, ...]
    tied_copies: tuple[str, ...]

    @classmethod
    def check(cls, sources: Sequence[Source]) -> Sources:
        """InputError names the first tensor, in sorted order, that is not in all inputs or differs in shape."""
        union = sorted({name for source in sources for name in source.checkpoint.tensors})
        common = [name for name in union if all(name in source.checkpoint.tensors for source in sources)]
        tied_copies = []
        for name in (name for name in union if name not in set(common)):
            holders = [source for source in sources if name in source.checkpoint.tensors]
            if not any(_is_copy(name, other, holders) for other in common):
                lacking = next(source for source in sources if source not in holders)
                raise InputError(
                    f"tensor {name} is in {holders[0].role} but not in {lacking.role}",
                    hint="all inputs of a merge must be the same architecture, saved the same way",
                )
            tied_copies.append(name)
        for name in common:
            first = sources[0].checkpoint.tensors[name].shape
            for source in sources[1:]:
                shape = source.checkpoint.tensors[name].shape
                if shape != first:
                    raise InputError(
                        f"tensor {name} has shape {list(first)} in {sources[0].role} but {list(shape)} in {source.role}",
                        hint="all inputs of a merge must be the same architecture, with the same vocabulary",
                    )
        specs = tuple(TensorSpec(name, sources[0].checkpoint.tensors[name].shape) for name in common)
        return cls(tuple(sources), specs, tuple(tied_copies))

    def group(self, names: Sequence[str], *, max_held_bytes: int) -> GroupWeights:
        """The weights of some tensors: read now and held if they fit `max_held_bytes`, else read when they are used."""
        checkpoints = [source.checkpoint for source in self.all]
        num_bytes = sum(checkpoint.tensors[name].num_bytes for checkpoint in checkpoints for name in names)
        held = [checkpoint.read_flat(names) for checkpoint in checkpoints] if num_bytes <= max_held_bytes else None
        return GroupWeights(self.all, held)


def _is_copy(name: str, other: str, holders: Iterable[Source]) -> bool:
    """Whether each input that stores `name` stores the same bits as `other`: a tied head that was saved twice."""
    for source in holders:
        one, two = (source.checkpoint.tensors[tensor] for tensor in (name, other))
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            return False
    for source in holders:
        for window in _windows(source.checkpoint.tensors[name].num_elements):
            one_N, two_N = (source.checkpoint.read_part(tensor, window) for tensor in (name, other))
            if one_N.tobytes() != two_N.tobytes():
                return False
    return True


def _windows(num_elements: int) -> Iterator[slice]:
    for start in range(0, max(num_elements, 1), WINDOW_ELEMENTS):
        yield slice(start, min(start + WINDOW_ELEMENTS, num_elements))


class GroupWeights:
    """The weights of one group from all inputs."""

    def __init__(self, sources: Sequence[Source], held: Sequence[Mapping[str, Stored]] | None) -> None:
        self._sources = sources
        self._held = held
        self._buffer_KN = np.empty((len(sources), BLOCK_ELEMENTS))

    def windows(self, name: str) -> Iterator[list[Stored]]:
        """A tensor, flattened, in parts that are in memory together: of each input as it is stored, read-only.

        Parts begin at multiples of BLOCK_ELEMENTS.
        """
        num_elements = self._sources[0].checkpoint.tensors[name].num_elements
        for window in _windows(num_elements) if self._held is None else [slice(0, num_elements)]:
            yield self._stored(name, window)

    def blocks(self, name: str) -> Iterator[Float64]:
        """Blocks of a tensor, flattened, in order: float64 (K, N), one buffer that the next block overwrites.

        Where blocks begin depends on the tensor alone, never on how it is read.
        """
        for stored_K in self.windows(name):
            for block in blocks(stored_K[0].size):
                block_KN = self._buffer_KN[:, : block.stop - block.start]
                for row, stored_N in enumerate(stored_K):
                    block_KN[row] = to_float32(stored_N[block])
                yield block_KN

    def refuse_not_finite(self, name: str) -> None:
        """Raise NumericsError for the first NaN or Inf of a tensor; nothing if there is none."""
        start = 0
        for block_KN in self.blocks(name):
            for source, row_N in zip(self._sources, block_KN, strict=True):
                bad_N = np.flatnonzero(~np.isfinite(row_N))
                if bad_N.size:
                    shape = source.checkpoint.tensors[name].shape
                    place = [int(index) for index in np.unravel_index(start + int(bad_N[0]), shape)]
                    raise NumericsError(
                        f"tensor {name} of {source.role} has {row_N[bad_N[0]]} at {place}",
                        hint="that RL run diverged: look at its metrics, lower its learning rate"
                        if source.role != "init"
                        else "the model that the run starts from is not usable",
                    )
            start += block_KN.shape[1]

    def _stored(self, name: str, window: slice) -> list[Stored]:
        if self._held is not None:
            return [held[name] for held in self._held]
        return [source.checkpoint.read_part(name, window) for source in self._sources]
