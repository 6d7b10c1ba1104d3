"""Signs that an RL run goes wrong while all of its numbers are still finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ENTROPY_SHARE = 0.1
TRUNCATED_SHARE = 0.5
LENGTH_FACTOR = 2.0
SATURATED_DEVIATION = 1e-4
"""A standard deviation of the scores in a batch below this teaches nothing."""


def health_warnings(first: Mapping[str, float], records: Sequence[Mapping[str, float]]) -> list[str]:
    """What is worth a look in the latest records, in words that do not change while it lasts; [] is well.

    `first` is the run's first step, `records` the latest few; compared are their means.
    """
    if not records:
        return []

    def mean(name: str) -> float:
        return sum(record[name] for record in records) / len(records)

    found = []
    if mean("entropy") < ENTROPY_SHARE * first["entropy"]:
        found.append("EntropyCollapse")
    if mean("truncatedShare") > TRUNCATED_SHARE > first["truncatedShare"] or (
        mean("length") > LENGTH_FACTOR * first["length"]
    ):
        found.append("LengthExplosion")
    if mean("scoreDeviation") < SATURATED_DEVIATION < first["scoreDeviation"]:
        found.append("RewardSaturation")
    return found
