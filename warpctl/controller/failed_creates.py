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
    """The newest refusal of each Job. Safe to use from many threads: one asks, the others go on with what was known, and wait only
    for a namespace of which nothing is known.
    """

    api: Api
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _known: dict[str, tuple[float, Mapping[str, str] | None]] = field(default_factory=dict)
    """Namespace -> when it was asked for, and message by Job uid, None until the first answer."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def of(self, namespace: str, job_uid: str) -> str:
        """What was said of this Job; "" when nothing was, or when nobody can say."""
        with self._changed:
            asked_at, said = self._known.get(namespace, (float("-inf"), None))
            is_old = self.clock() - asked_at > KEPT_SECONDS
            if is_old:
                self._known[namespace] = (self.clock(), said)
            elif said is None:
                self._changed.wait_for(lambda: self._known[namespace][1] is not None, KEPT_SECONDS)
                said = self._known[namespace][1]
        if is_old:
            said = self._ask(namespace, said or {})
            with self._changed:
                self._known[namespace] = (self.clock(), said)
                self._changed.notify_all()
        return (said or {}).get(job_uid, "")

    def _ask(self, namespace: str, before: Mapping[str, str]) -> Mapping[str, str]:
        try:
            events = self.api.list(EVENTS, namespace, fields="reason=FailedCreate,involvedObject.kind=Job").items
        except ClusterError:
            return before
        return {each["involvedObject"]["uid"]: each["message"][:MAX_MESSAGE] for each in sorted(events, key=_time)}


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
