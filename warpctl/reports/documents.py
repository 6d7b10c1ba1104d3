"""Win rates and differences of fronts as plain data, for front.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from warpctl.reports.comparison import Comparison, Contrast
from warpctl.reports.contrasts import FrontContrast
from warpctl.reports.win_rate import WinRate


def win_rates_document(rates: Sequence[WinRate]) -> list[dict[str, Any]]:
    """One entry a pair."""
    return [
        {
            "first": rate.first,
            "second": rate.second,
            "winRate": {"mean": rate.win_rate, "low": rate.low, "high": rate.high},
            "lengthControlled": {
                "mean": rate.length_controlled,
                "low": rate.length_controlled_low,
                "high": rate.length_controlled_high,
            },
            "graded": None if rate.graded is None else asdict(rate.graded),
            "numComparisons": rate.num_comparisons,
            "numTies": rate.num_ties,
            "judge": rate.judge,
            "isHeldOut": rate.is_held_out,
        }
        for rate in rates
    ]


def contrasts_document(contrasts: Sequence[FrontContrast]) -> list[dict[str, Any]]:
    """One entry a pair of fronts; numbers are second minus first."""
    return [{"first": each.first, "second": each.second, **comparison_document(each.comparison)} for each in contrasts]


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The numbers of a comparison, by measure."""
    return {
        "klLimits": comparison.kl_limits,
        "isPaired": comparison.is_paired,
        "notes": list(comparison.notes),
        "measures": {
            line.measure: {
                "hypervolume": _contrast(line.hypervolume),
                "area": None if line.area is None else _contrast(line.area),
                "rewardAtKl": [{"kl": at, **_contrast(found)} for at, found in line.reward_at_kl.items()],
            }
            for line in comparison.measures
        },
    }


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        "first": asdict(contrast.first),
        "second": asdict(contrast.second),
        "difference": asdict(contrast.difference),
    }
