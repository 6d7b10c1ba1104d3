"""Why the Job controller could not create pods: a quota, an admission policy. Only its Events say so.

An API server looks through every Event of a namespace to answer by field, so one list serves all Jobs of the namespace, and is kept
for a while: asked for Job by Job, a thousand that wait for a slow scheduler made it slower still.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import EVENTS

KEPT_SECONDS = 12.0
MAX_MESSAGE = 400


@dataclass
class Refusals:
    """The newest refusal of each Job. Safe to use from many threads; one of them asks."""

    api: Api
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    _locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def of(self, namespace: str, job_uid: str) -> str:
        """What was said of this Job; "" when nothing was, or when nobody can say."""
        with self._locks[namespace]:
            known = self._known.get(namespace)
            if known is None or self.clock() - known[0] > KEPT_SECONDS:
                known = (self.clock(), self._ask(namespace, known[1] if known else {}))
                self._known[namespace] = known
        return known[1].get(job_uid, "")

    def _ask(self, namespace: str, before: Mapping[str, str]) -> Mapping[str, str]:
        try:
            events = self.api.list(EVENTS, namespace, fields="reason=FailedCreate,involvedObject.kind=Job").items
        except ClusterError:
            return before
        return {each["involvedObject"]["uid"]: each["message"][:MAX_MESSAGE] for each in sorted(events, key=_time)}


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
