"""The KL-reward front: which points are on it, how much it dominates, what it gives at a fixed KL and
between two.

Low KL to the SFT policy is good, high reward is good. Arrays end in the axis of points (P); leading axes are free, so
that bootstrap replicates (R, P) go through the same functions as the estimates (P,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def non_dominated(kl: ArrayLike, reward: ArrayLike) -> Flags:
    """True for each point that no other one beats: none has at most its KL and at least its reward, one of them strictly.

    Shape (..., P) in and out. Equal points do not dominate each other. ValueError for a number that is not finite.
    """
    kl_P, reward_P = _points(kl, reward)
    order = np.lexsort((-reward_P, kl_P), axis=-1)  # by KL, the better reward first among equals
    is_on_front_P = _is_on_front(np.take_along_axis(kl_P, order, -1), np.take_along_axis(reward_P, order, -1))
    result = np.empty_like(is_on_front_P)
    np.put_along_axis(result, order, is_on_front_P, axis=-1)
    return result


def _is_on_front(sorted_kl_P: Floats, sorted_reward_P: Floats) -> Flags:
    """`non_dominated` of points that are sorted by KL, then by falling reward."""
    best_P = np.maximum.accumulate(sorted_reward_P, axis=-1)
    is_better_P = np.ones(best_P.shape, dtype=np.bool_)
    is_better_P[..., 1:] = sorted_reward_P[..., 1:] > best_P[..., :-1]
    # Equal points are neighbours in this order: each shares the verdict of the first of them.
    is_first_P = np.ones(best_P.shape, dtype=np.bool_)
    is_first_P[..., 1:] = (np.diff(sorted_kl_P, axis=-1) != 0) | (np.diff(sorted_reward_P, axis=-1) != 0)
    first_P = np.maximum.accumulate(np.where(is_first_P, np.arange(best_P.shape[-1]), 0), axis=-1)
    return np.take_along_axis(is_better_P, first_P, axis=-1)


def hypervolume(kl: ArrayLike, reward: ArrayLike, *, max_kl: float, reference_reward: ArrayLike) -> Floats:
    """Area (nats x reward) between the points and the corner (`max_kl`, `reference_reward`): (..., P) -> (...).

    The corner is fixed by the caller, never taken from the points: else a worse run could have the larger area.
    A point at or beyond `max_kl`, or at or below the reference reward, adds nothing; a negative KL estimate counts as 0.
    """
    kl_P, reward_P = _points(kl, reward)
    kl_P = np.clip(kl_P, 0.0, max_kl)
    order = np.argsort(kl_P, axis=-1, kind="stable")
    sorted_kl_P = np.take_along_axis(kl_P, order, axis=-1)
    # The height of the staircase from one point to the next is the best reward so far.
    height_P = np.maximum.accumulate(np.take_along_axis(reward_P, order, axis=-1), axis=-1)
    gain_P = np.maximum(height_P - np.asarray(reference_reward, dtype=np.float64)[..., None], 0.0)
    ends_P = np.concatenate([sorted_kl_P[..., 1:], np.full((*kl_P.shape[:-1], 1), max_kl)], axis=-1)
    area: Floats = np.sum(gain_P * (ends_P - sorted_kl_P), axis=-1)
    return area


def reward_at_kl(kl: ArrayLike, reward: ArrayLike, at: float) -> Floats:
    """Reward of the front at `at` nats, linear in sqrt(KL) between its points: (..., P) -> (...).

    From its last point to the highest KL that was evaluated it stays level (more KL bought nothing there); beyond all
    points it is NaN.
    Linear in sqrt(KL) because along LITI the KL grows like the square of the rate and the reward like the rate itself:
    linear in KL would flatter sparse fronts (lab.md). Only non-dominated points are joined.
    """
    kl_P, reward_P = _points(kl, reward)
    order = np.lexsort((-reward_P, kl_P), axis=-1)
    kl_P = np.take_along_axis(kl_P, order, axis=-1)
    reward_P = np.take_along_axis(reward_P, order, axis=-1)
    is_on_front_P = _is_on_front(kl_P, reward_P)
    is_left_P = is_on_front_P & (kl_P <= at)
    is_right_P = is_on_front_P & (kl_P >= at)
    # Sorted by KL: the neighbour below is the last of the left ones, the neighbour above the first of the right ones.
    left = kl_P.shape[-1] - 1 - np.argmax(is_left_P[..., ::-1], axis=-1)[..., None]
    right = np.argmax(is_right_P, axis=-1)[..., None]
    root_P = np.sqrt(np.maximum(kl_P, 0.0))
    left_root, right_root = (np.take_along_axis(root_P, side, axis=-1)[..., 0] for side in (left, right))
    left_reward, right_reward = (np.take_along_axis(reward_P, side, axis=-1)[..., 0] for side in (left, right))
    width = right_root - left_root
    share = np.divide(np.sqrt(at) - left_root, width, out=np.zeros_like(width), where=width > 0)
    between = np.where(is_right_P.any(axis=-1), left_reward + share * (right_reward - left_reward), left_reward)
    result: Floats = np.where(is_left_P.any(axis=-1) & (kl_P[..., -1] >= at), between, np.nan)
    return result


def area_between(kl: ArrayLike, reward: ArrayLike, *, low: float, high: float) -> Floats:
    """Integral of the front's reward over KL from `low` to `high` nats (nats x reward): (..., P) -> (...).

    The front is the curve of `reward_at_kl`: linear in sqrt(KL) between non-dominated points, integrated exactly. Before
    its first and after its last point it is held level, so that a replicate whose points fall just short of a limit has
    an area too; choose limits that the estimated points reach. ValueError unless 0 <= low < high.
    """
    if not 0.0 <= low < high:
        raise ValueError(f"the area needs limits 0 <= low < high, got {low}, {high}")
    kl_P, reward_P = _points(kl, reward)
    order = np.lexsort((-reward_P, kl_P), axis=-1)
    kl_P = np.take_along_axis(kl_P, order, axis=-1)
    reward_P = np.take_along_axis(reward_P, order, axis=-1)
    is_on_front_P = _is_on_front(kl_P, reward_P)
    place_P = np.arange(kl_P.shape[-1])
    # The front's neighbours of every gap between sorted points: the last one at or before it, the first one after it.
    before_P = np.maximum.accumulate(np.where(is_on_front_P, place_P, 0), axis=-1)
    last = before_P[..., -1:]
    after_P = np.where(is_on_front_P, place_P, kl_P.shape[-1])
    after_P = np.minimum(np.minimum.accumulate(after_P[..., ::-1], axis=-1)[..., ::-1], last)
    root_P = np.sqrt(np.maximum(kl_P, 0.0))
    ends = (np.sqrt(low), np.sqrt(high))
    left, right = before_P[..., :-1], after_P[..., 1:]
    left_root, right_root = np.take_along_axis(root_P, left, -1), np.take_along_axis(root_P, right, -1)
    left_reward, right_reward = np.take_along_axis(reward_P, left, -1), np.take_along_axis(reward_P, right, -1)
    width = right_root - left_root
    slope = np.divide(right_reward - left_reward, width, out=np.zeros_like(width), where=width > 0)
    start, end = np.clip(root_P[..., :-1], *ends), np.clip(root_P[..., 1:], *ends)
    # reward = left_reward + slope (u - left_root) with u = sqrt(KL), and dKL = 2 u du
    inside = (left_reward - slope * left_root) * (end**2 - start**2) + slope * 2 / 3 * (end**3 - start**3)
    first_kl, last_kl = (np.clip(kl_P[..., place], low, high) for place in (0, -1))
    best = np.take_along_axis(reward_P, last, -1)[..., 0]
    area: Floats = inside.sum(axis=-1) + (first_kl - low) * reward_P[..., 0] + (high - last_kl) * best
    return area


def _points(kl: ArrayLike, reward: ArrayLike) -> tuple[Floats, Floats]:
    kl_P = np.asarray(kl, dtype=np.float64)
    reward_P = np.asarray(reward, dtype=np.float64)
    if kl_P.shape != reward_P.shape or kl_P.ndim == 0 or kl_P.shape[-1] == 0:
        raise ValueError(f"KL and reward need the same shape with at least one point: {kl_P.shape}, {reward_P.shape}")
    if not (np.isfinite(kl_P).all() and np.isfinite(reward_P).all()):
        raise ValueError("KL and reward must be finite")
    return kl_P, reward_P
