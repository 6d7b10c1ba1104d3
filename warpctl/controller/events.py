"""Kubernetes Events: one for each transition, after the status write that tells of it has worked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from warpctl.errors import WarpctlError
from warpctl.kube.api import Api
from warpctl.kube.resources import EVENTS, WARPRUNS

if TYPE_CHECKING:
    import structlog

    from warpctl.controller.status_update import Transition
    from warpctl.controller.world import WarpRunObject

SOURCE = "warpctl-controller"


@dataclass
class EventRecorder:
    """Sends Events; one that cannot be sent is a log line and nothing more."""

    api: Api
    identity: str
    log: structlog.stdlib.BoundLogger
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def send(self, run: WarpRunObject, transition: Transition) -> None:
        """Tell of one transition of `run`, in the log too."""
        now = self.now()
        level = self.log.warning if transition.is_warning else self.log.info
        level(transition.reason, run=f"{run.namespace}/{run.name}", message=transition.message)
        stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        seconds = stamp[:19] + "Z"
        body = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # As client-go names them: the object and something that no other Event has.
            "metadata": {
                "name": f"{run.name}.{int(now.timestamp() * 1e6):x}{next(self._count) % 4096:03x}",
                "namespace": run.namespace,
            },
            "involvedObject": {
                "apiVersion": WARPRUNS.api_version,
                "kind": WARPRUNS.kind,
                "namespace": run.namespace,
                "name": run.name,
                "uid": run.uid,
            },
            "type": "Warning" if transition.is_warning else "Normal",
            "reason": transition.reason,
            "message": transition.message[:1024],
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "eventTime": stamp,
            "count": 1,
            "action": "Reconcile",
            "reportingComponent": SOURCE,
            "reportingInstance": self.identity[:128],
            "source": {"component": SOURCE},
        }
        try:
            self.api.create(EVENTS, run.namespace, body)
        except WarpctlError as error:
            self.log.warning("event not sent", error=error.message)
