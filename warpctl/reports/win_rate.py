"""Win rates: policies judged pairwise on the same prompts by a scalar reward, the held-out one where there is one.

Completion g of a prompt from one policy meets completion g of the same prompt from the other (they were sampled with
the same noise). The one with the higher score wins; equal scores and equal texts are ties and count one half. A scalar
reward scores each completion alone: the order of presentation cannot matter, so one order is judged.

Length-controlled win rate, in the manner of AlpacaEval-LC (arXiv 2404.04475): the outcome w of a comparison is regressed on
the difference d of lengths in tokens,

    P(first wins) = sigmoid(theta + phi tanh(d / std(d))),        length-controlled = sigmoid(theta),

what the rate would be at equal lengths. Ties enter as w = 1/2. AlpacaEval's third term, the difficulty of each prompt, needs
many models judged on one set of prompts and is left out. Both coefficients have a normal prior of standard deviation
`PRIOR_STD`: a policy that always wins keeps a finite theta.

Intervals: bootstrap over prompts. Shapes: N prompts, G completions each, R replicates, C the two coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from warpctl.errors import InputError
from warpctl.reports.bootstrap import interval, replicate_counts
from warpctl.reports.estimate import LITI_PREFIX, REWARD, Estimate, Evaluated
from warpctl.reports.evaluation import SFT_POINT, EvaluatedPoint, NamedPoint
from warpctl.reports.table import point_label

Floats = NDArray[np.float64]

NUM_REPLICATES = 1000
PRIOR_STD = 10.0
NEWTON_STEPS = 25
"""At most; it stops as soon as no coefficient moves by more than 1e-9 (1e-4 in replicates, which start at the fit)."""
GRADES = ((0.5, 0.5), (1.0, 1.0), (np.inf, 1.5))
"""(below this difference of scores in standard deviations of SFT's scores, grade): slightly better, better, much better.

The grades 0.5, 1, 1.5 are WARP's (arXiv 2406.16768, section 4: its raters chose among them). The thresholds are ours: a reward
model gives no such words.
"""
MERGED = f"{LITI_PREFIX}1"


@dataclass(frozen=True)
class WinRate:
    """How often the first policy beats the second."""

    first: str
    """As people call it: `RL run 2, iteration 1`."""
    second: str
    win_rate: float
    """Share of comparisons that the first one wins, ties one half."""
    low: float
    high: float
    length_controlled: float
    """The win rate that the regression gives at equal lengths."""
    length_controlled_low: float
    length_controlled_high: float
    graded: Estimate | None
    """Mean grade in [-1.5, 1.5], positive where the first one is better (`GRADES`); None without SFT's scores."""
    num_prompts: int
    num_comparisons: int
    num_ties: int
    judge: str
    """The reward that judged: a held-out reward's name, or `reward` (the trained-on one)."""
    is_held_out: bool
    """False: the judge is what the policies were trained on, which flatters the one that exploits it more."""


def win_rates(
    evaluated: Sequence[Evaluated],
    *,
    confidence_level: float = 0.95,
    judge: str | None = None,
    seed: int = 0,
    num_replicates: int = NUM_REPLICATES,
) -> tuple[WinRate, ...]:
    """Win rates of a run: in each iteration its merged policy against its members and SFT, and members against SFT;
    the merged policy against the one of the iteration before; the last merged policy against each control's whole run.

    `judge`: a held-out reward, or `reward`; by default the first held-out reward, else the trained-on reward. Pairs that
    the judge did not score both are left out. The points of one run share their prompts.
    """
    points = {(named.control, named.iteration, named.name): (named, point) for named, point in evaluated}
    sft = next((pair for pair in evaluated if pair[0].name == SFT_POINT), None)
    name = judge or next((name for _, point in evaluated for name in point.held_out), REWARD)
    return tuple(
        _rate(*pair, sft=sft, judge=name, level=confidence_level, seed=seed, num_replicates=num_replicates)
        for pair in _contests(points, sft)
        if all(_is_judged(point, name) for _, point in pair)
    )


def _contests(
    points: dict[tuple[str, int, str], Evaluated], sft: Evaluated | None
) -> list[tuple[Evaluated, Evaluated]]:
    contests: list[tuple[Evaluated, Evaluated]] = []
    iterations = sorted({iteration for control, iteration, _ in points if iteration and not control})
    before = None
    for iteration in iterations:
        members = [points[key] for key in sorted(points) if key[:2] == ("", iteration) and key[2].startswith("member/")]
        merged = points.get(("", iteration, MERGED))
        rivals = [sft, *members, before] if merged else []
        contests += [(merged, rival) for rival in rivals if rival and merged]
        contests += [(member, sft) for member in members if sft]
        before = merged or before
    if before:
        contests += [(before, points[key]) for key in sorted(points) if key[0] and key[2] == MERGED]
    return contests


def _rate(
    first: Evaluated,
    second: Evaluated,
    *,
    sft: Evaluated | None,
    judge: str,
    level: float,
    seed: int,
    num_replicates: int,
) -> WinRate:
    (first_named, a), (second_named, b) = first, second
    if (a.prompts, a.num_generations) != (b.prompts, b.num_generations):
        raise InputError("policies that were not evaluated on the same prompts cannot be compared pairwise")
    shape = (len(a.prompts), a.num_generations)
    a_scores, b_scores = _scores(a, judge), _scores(b, judge)
    sft_scores = _scores(sft[1], judge) if sft and _is_judged(sft[1], judge) else np.zeros(0)
    gains = a_scores - b_scores
    # The same text in another batch may score a rounding apart: it is a tie.
    gains[np.array([one == other for one, other in zip(a.completions, b.completions, strict=True)])] = 0.0
    wins_NG = outcomes(gains).reshape(shape)
    lengths_NG = (np.asarray(a.lengths) - np.asarray(b.lengths)).astype(np.float64).reshape(shape)
    counts_RN = replicate_counts(shape[0], generator=np.random.default_rng(seed), num_replicates=num_replicates)
    low, high = interval(counts_RN @ wins_NG.mean(axis=1) / shape[0], level=level)
    controlled, controlled_R = length_controlled(wins_NG, lengths_NG, counts_RN)
    controlled_low, controlled_high = interval(controlled_R, level=level)
    graded = None
    if sft_scores.size and sft_scores.std() > 0:
        grades_N = grade(gains / sft_scores.std()).reshape(shape).mean(axis=1)
        graded_low, graded_high = interval(counts_RN @ grades_N / shape[0], level=level)
        graded = Estimate(float(grades_N.mean()), float(graded_low), float(graded_high))
    return WinRate(
        first=name_of(first_named),
        second=name_of(second_named),
        win_rate=float(wins_NG.mean()),
        low=float(low),
        high=float(high),
        length_controlled=controlled,
        length_controlled_low=float(controlled_low),
        length_controlled_high=float(controlled_high),
        graded=graded,
        num_prompts=shape[0],
        num_comparisons=wins_NG.size,
        num_ties=int((wins_NG == 0.5).sum()),  # a tie is one half by definition
        judge=judge,
        is_held_out=judge != REWARD,
    )


def name_of(named: NamedPoint) -> str:
    """`SFT`; `RL run 2, iteration 1`; `whole run, control NoAnchor`."""
    if named.name == SFT_POINT:
        return point_label(named)
    return f"{point_label(named)}, {f'control {named.control}' if named.control else f'iteration {named.iteration}'}"


def _is_judged(point: EvaluatedPoint, judge: str) -> bool:
    return judge == REWARD or judge in point.held_out


def _scores(point: EvaluatedPoint, judge: str) -> Floats:
    return np.asarray(point.reward if judge == REWARD else point.held_out[judge], dtype=np.float64)


def outcomes(gains: ArrayLike) -> Floats:
    """1 where the first one scores higher, 0 where lower, 1/2 at a tie; any shape."""
    return (np.sign(np.asarray(gains, dtype=np.float64)) + 1.0) / 2.0


def grade(gains: ArrayLike) -> Floats:
    """Graded preference in {-1.5, -1, -0.5, 0, 0.5, 1, 1.5} of differences in standard deviations (`GRADES`); any shape."""
    values = np.asarray(gains, dtype=np.float64)
    places = np.searchsorted([limit for limit, _ in GRADES], np.abs(values), side="right")
    grades: Floats = np.sign(values) * np.array([given for _, given in GRADES])[np.minimum(places, len(GRADES) - 1)]
    return grades


def length_controlled(wins_NG: ArrayLike, lengths_NG: ArrayLike, counts_RN: ArrayLike) -> tuple[float, Floats]:
    """Win rate at equal lengths, and the same in each replicate (R,).

    `wins_NG`: 1, 1/2 or 0. `lengths_NG`: tokens of the first minus tokens of the second. `counts_RN`: how often each
    replicate drew each prompt. The scale of the length differences is that of the whole sample, in replicates too.
    """
    wins, lengths = np.asarray(wins_NG, dtype=np.float64), np.asarray(lengths_NG, dtype=np.float64)
    weights_RN = np.asarray(counts_RN, dtype=np.float64)
    num_prompts, num_generations = wins.shape
    scale = lengths.std()
    term = np.tanh(lengths.ravel() / scale) if scale > 0 else np.zeros(lengths.size)
    whole = np.ones((1, num_prompts))
    fit = _fit(wins.ravel(), term, np.repeat(whole, num_generations, axis=1), np.zeros((1, 2)), tolerance=1e-9)
    start = np.repeat(fit, len(weights_RN), axis=0)
    fits = _fit(wins.ravel(), term, np.repeat(weights_RN, num_generations, axis=1), start, tolerance=1e-4)
    return float(_sigmoid(fit[0, 0])), _sigmoid(fits[:, 0])


def _fit(wins_N: Floats, term_N: Floats, weights_RN: Floats, start_RC: Floats, *, tolerance: float) -> Floats:
    """Newton's method for the penalised logistic regression, all replicates at once: (R, 2), theta and phi.

    The penalised likelihood is strictly concave; a step that would leap (separated data) is cut to 4 in log-odds.
    """
    coefficients_RC = start_RC.copy()
    for _ in range(NEWTON_STEPS):
        chance_RN = _sigmoid(coefficients_RC[:, :1] + coefficients_RC[:, 1:] * term_N)
        residual_RN = weights_RN * (wins_N - chance_RN)
        curvature_RN = weights_RN * chance_RN * (1.0 - chance_RN)
        gradient_RC = np.stack([residual_RN.sum(axis=1), residual_RN @ term_N], axis=1) - coefficients_RC / PRIOR_STD**2
        a_R = curvature_RN.sum(axis=1) + PRIOR_STD**-2
        b_R, c_R = curvature_RN @ term_N, curvature_RN @ term_N**2 + PRIOR_STD**-2
        determinant_R = a_R * c_R - b_R**2
        step_RC = np.stack(
            [
                (c_R * gradient_RC[:, 0] - b_R * gradient_RC[:, 1]) / determinant_R,
                (a_R * gradient_RC[:, 1] - b_R * gradient_RC[:, 0]) / determinant_R,
            ],
            axis=1,
        )
        coefficients_RC += np.clip(step_RC, -4.0, 4.0)
        if np.abs(step_RC).max() < tolerance:
            break
    return coefficients_RC


def _sigmoid(values: Floats) -> Floats:
    # tanh does not overflow where exp(-x) would
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result
