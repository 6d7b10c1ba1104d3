"""What the cluster has noted about a run lately: its Events, newest last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from warpctl.cli.durations import duration_text
from warpctl.cli.table import table_text
from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import EVENTS

NEWEST = 12


def events_text(api: Api, namespace: str, uid: str) -> str:
    """A table of at most 12 of the object with this uid; "" when there are none, or when this user may not read them."""
    try:
        found = api.list(EVENTS, namespace, fields=f"involvedObject.uid={uid}").items
    except ClusterError:
        return ""
    now = datetime.now(UTC)
    newest = sorted(found, key=_time)[-NEWEST:]
    rows = [
        [duration_text((now - _time(each)).total_seconds()), each.get("type", ""), each["reason"], each["message"]]
        for each in newest
    ]
    return table_text(["AGE", "TYPE", "REASON", "MESSAGE"], rows) if rows else ""


def _time(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(
        event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    )
