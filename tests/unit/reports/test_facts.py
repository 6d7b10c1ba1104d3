"""What attempts cost: what a successor went on from is kept, the rest is lost."""

import pytest

from warpctl.reports.facts import AttemptProgress, kept_and_lost


def attempt(number, seconds, done, done_at_start=0):
    return AttemptProgress(number=number, seconds=seconds, done=done, done_at_start=done_at_start)


@pytest.mark.parametrize(
    ("attempts", "published", "kept", "lost"),
    [
        ([attempt(1, 100, 40)], 1, 0, 0),
        ([attempt(1, 100, 40), attempt(2, 50, 40, 30)], 2, 75, 25),  # resumed at 30 of 40
        ([attempt(1, 100, 40), attempt(2, 50, 40, 0)], 2, 0, 100),  # from the start
        ([attempt(2, 60, 30, 10), attempt(1, 100, 20), attempt(3, 9, 40, 30)], 3, 50 + 60, 50),
        ([attempt(1, 100, 0), attempt(2, 50, 40)], 2, 0, 100),  # died before its first step
        ([attempt(1, 100, 40), attempt(2, 50, 10)], 1, 0, 50),  # a straggler after the commit
    ],
)
def test_seconds_of_the_other_attempts(attempts, published, kept, lost):
    assert kept_and_lost(attempts, published=published) == (pytest.approx(kept), pytest.approx(lost))
