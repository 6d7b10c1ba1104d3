"""What a merge reads: init and members, checked against each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from warpctl.errors import InputError, NumericsError
from warpctl.storage.headers import TensorSpec
from warpctl.storage.tensors import Checkpoint, to_float32

WINDOW_ELEMENTS = 1 << 20
"""Elements of one tensor that are looked at together."""


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

    def refuse_not_finite(self, name: str) -> None:
        """Raise NumericsError for the first NaN or Inf of a tensor; nothing if there is none."""
        shape = next(spec.shape for spec in self.specs if spec.name == name)
        for window in _windows(math.prod(shape)):
            for source in self.all:
                part_N = to_float32(source.checkpoint.read_part(name, window))
                bad_N = np.flatnonzero(~np.isfinite(part_N))
                if bad_N.size:
                    place = [int(index) for index in np.unravel_index(window.start + int(bad_N[0]), shape)]
                    raise NumericsError(
                        f"tensor {name} of {source.role} has {part_N[bad_N[0]]} at {place}",
                        hint="that RL run diverged: look at its metrics, lower its learning rate"
                        if source.role != "init"
                        else "the model that the run starts from is not usable",
                    )


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
