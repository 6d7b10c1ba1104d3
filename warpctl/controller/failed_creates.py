"""Why the Job controller could not create pods: a quota, an admission policy. Only its Events say so.

An API server looks through every Event of a namespace to answer by field, so one list serves all Jobs of the namespace, and is kept
for a while: asked for Job by Job, a thousand that wait for a slow scheduler made it slower still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import EVENTS

KEPT_SECONDS = 12.0
MAX_MESSAGE = 400


@dataclass
class FailedCreates:
    """The newest refusal of each Job. Safe to use from many threads: one asks, the others go on with what was known."""

    api: Api
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _known: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    """Namespace -> when it was asked for, and message by Job uid."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, namespace: str, job_uid: str) -> str:
        """What was said of this Job; "" when nothing was, or when nobody can say."""
        with self._lock:
            asked_at, said = self._known.get(namespace, (float("-inf"), {}))
            is_old = self.clock() - asked_at > KEPT_SECONDS
            if is_old:
                self._known[namespace] = (self.clock(), said)
        if is_old:
            said = self._ask(namespace, said)
            with self._lock:
                self._known[namespace] = (self.clock(), said)
        return said.get(job_uid, "")

    def _ask(self, namespace: str, before: Mapping[str, str]) -> Mapping[str, str]:
        try:
            events = self.api.list(EVENTS, namespace, fields="reason=FailedCreate,involvedObject.kind=Job").items
        except ClusterError:
            return before
        return {each["involvedObject"]["uid"]: each["message"][:MAX_MESSAGE] for each in sorted(events, key=_time)}


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
