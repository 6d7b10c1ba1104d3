"""Annotations whose values mean nothing are told of; those that mean something are not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from warpctl import names
from warpctl.controller.ignored import ignored_verbs, retry_instant

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        (names.RETRY, "true", "an instant of the past such as 2026-11-21T12:00:00Z"),
        (names.RETRY, "", "an instant of the past such as 2026-11-21T12:00:00Z"),
        (names.RETRY, "1795262400", "an instant of the past such as 2026-11-21T12:00:00Z"),
        (names.RETRY, "2026-13-41T12:00:00Z", "an instant of the past such as 2026-11-21T12:00:00Z"),
        (names.RETRY, "2062-11-21T12:00:00Z", "an instant of the past such as 2026-11-21T12:00:00Z"),
        (names.CANCEL, "", "some text"),
        (names.REFRESH, "", "some text"),
        (names.ABANDON, "yes", '"true"'),
    ],
)
def test_a_value_that_means_nothing_is_named_with_what_it_should_be(name: str, text: str, wanted: str) -> None:
    assert ignored_verbs({name: text}, NOW) == (f'the annotation {name} is ignored: it must be {wanted}, got "{text}"',)


def test_values_that_mean_something_are_not_told_of() -> None:
    verbs = {names.RETRY: "2026-11-21T12:00:00Z", names.CANCEL: "by alice", names.REFRESH: "1", names.ABANDON: "true"}
    assert ignored_verbs(verbs, NOW) == ()


def test_several_are_told_of_in_an_order_that_does_not_change() -> None:
    found = ignored_verbs({names.RETRY: "x", names.CANCEL: ""}, NOW)
    assert [names.CANCEL in found[0], names.RETRY in found[1]] == [True, True]
    assert found == ignored_verbs({names.CANCEL: "", names.RETRY: "x"}, NOW)


def test_a_long_value_is_cut() -> None:
    (sentence,) = ignored_verbs({names.RETRY: "x" * 5000}, NOW)
    assert len(sentence) < 256


def test_an_instant_without_an_offset_is_utc() -> None:
    assert retry_instant("2026-11-21T12:00:00", NOW) == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert retry_instant("2026-11-21T13:00:00+01:00", NOW) == datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_clock_that_is_a_little_ahead_is_forgiven() -> None:
    assert retry_instant("2026-11-21T12:04:00Z", NOW) == datetime(2026, 11, 21, 12, 4, tzinfo=UTC)
    assert retry_instant("2026-11-21T12:06:00Z", NOW) is None
