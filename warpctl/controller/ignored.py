"""Annotations that ask for something in words that mean nothing: they change nothing, so somebody must be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from warpctl import names

MAX_SHOWN = 64
MAX_AHEAD = timedelta(minutes=5)


def retry_instant(text: str, now: datetime) -> datetime | None:
    """The instant of a retry annotation, None for one that is none. Without an offset it is UTC.

    One that lies ahead by more than clocks differ would pardon every failure until then, each at once: a loop.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return instant if instant <= now + MAX_AHEAD else None


def ignored_verbs(verbs: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    """A sentence for each verb that is ignored: which annotation, its value, what it should be."""
    found = []
    for name, text in sorted(verbs.items()):
        if wanted := _wanted_instead(name, text, now):
            shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
            found.append(f'the annotation {name} is ignored: it must be {wanted}, got "{shown}"')
    return tuple(found)


def _wanted_instead(name: str, text: str, now: datetime) -> str:
    """What the annotation should be; "" when it is that."""
    if name == names.RETRY and retry_instant(text, now) is None:
        return "an instant of the past such as 2026-11-21T12:00:00Z"
    if name in (names.CANCEL, names.REFRESH) and not text:
        return "some text"
    if name == names.ABANDON and text != "true":
        return '"true"'
    return ""
