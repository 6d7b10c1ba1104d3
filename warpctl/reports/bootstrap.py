"""Paired bootstrap over prompts.

All points of a front are evaluated on the same prompts with the same seeds, so one resampling of the prompts is applied
to all of them: intervals of differences, and of anything computed from several points, keep the pairing.
Shapes: K quantities, N prompts, R replicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NUM_REPLICATES = 2000
_MAX_CELLS = 1 << 22  # of one block of counts (R', N): 32 MiB


def replicate_means(values_KN: ArrayLike, *, generator: np.random.Generator, num_replicates: int) -> Floats:
    """Means of each quantity over `num_replicates` resamplings of the prompts, the same ones for all: (K, N) -> (K, R).

    A prompt with several completions enters as the mean over them: the prompt is what is drawn.
    """
    values = np.asarray(values_KN, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"expected (quantities, prompts) with at least one prompt, got shape {values.shape}")
    num_prompts = values.shape[1]
    block = max(1, min(num_replicates, _MAX_CELLS // num_prompts))
    sizes = [min(block, num_replicates - start) for start in range(0, num_replicates, block)]
    return np.concatenate(
        [
            values @ replicate_counts(num_prompts, generator=generator, num_replicates=size).T / num_prompts
            for size in sizes
        ],
        axis=1,
    )


def replicate_counts(num_prompts: int, *, generator: np.random.Generator, num_replicates: int) -> Floats:
    """How often each resampling draws each prompt (R, N); a row sums to N. For statistics that are no function of means."""
    drawn_RN = generator.integers(0, num_prompts, size=(num_replicates, num_prompts))
    # One bincount over all rows at once.
    flat = (drawn_RN + np.arange(num_replicates)[:, None] * num_prompts).ravel()
    counts = np.bincount(flat, minlength=num_replicates * num_prompts)
    return counts.reshape(num_replicates, num_prompts).astype(np.float64)


def interval(replicates_R: ArrayLike, *, level: float) -> tuple[Floats, Floats]:
    """Percentile interval at `level` (such as 0.95) over the last axis: (..., R) -> low (...), high (...)."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"the confidence level must be between 0 and 1, got {level}")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(replicates_R, dtype=np.float64), [tail, 1.0 - tail], axis=-1)
    return low, high
