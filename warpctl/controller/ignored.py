"""Annotations that ask for something in words that mean nothing: they change nothing, so somebody must be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from warpctl import names

MAX_SHOWN = 64


def retry_instant(text: str) -> datetime | None:
    """The instant of a retry annotation, None for one that is none. Without an offset it is UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def ignored_verbs(verbs: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each verb that is ignored: which annotation, its value, what it should be."""
    found = []
    for name, text in sorted(verbs.items()):
        if wanted := _wanted_instead(name, text):
            shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
            found.append(f'the annotation {name} is ignored: it must be {wanted}, got "{shown}"')
    return tuple(found)


def _wanted_instead(name: str, text: str) -> str:
    """What the annotation should be; "" when it is that."""
    if name == names.RETRY and retry_instant(text) is None:
        return "an instant such as 2026-11-21T12:00:00Z"
    if name in (names.CANCEL, names.REFRESH) and not text:
        return "some text"
    if name == names.ABANDON and text != "true":
        return '"true"'
    return ""
