"""Leader election by a Lease: of several controllers one works, and one that cannot renew stops writing before another starts.

Only monotonic clocks are compared: how long a Lease has not changed is measured here, not read from its timestamps, so that a jump
of some machine's clock makes nobody a second leader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from warpctl.errors import WarpctlError
from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import LEASES

LOOKS = 3
"""At a Lease that others write to at the same moment."""


class NotLeaderError(WarpctlError):
    """This controller may not write: it is not, or no longer, the leader."""


@dataclass
class Leadership:
    """One candidate for the Lease `name` in `namespace`.

    15 s after the last renewal others may take over; 10 s after it this one stops writing; every 2 s it is tried.
    """

    api: Api
    namespace: str
    name: str
    identity: str
    on_gain: Callable[[], None]
    on_loss: Callable[[], None]
    lease_seconds: float = 15.0
    renew_within_seconds: float = 10.0
    retry_seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic
    on_trouble: Callable[[str], None] | None = None
    """Told why the Lease could not be asked for, once for each reason in a row."""
    _trouble: str = ""
    _renewed_at: float | None = None
    _seen: tuple[str, str] | None = None
    """(holder, resource version) of the Lease when it last changed, and since when."""
    _seen_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_leader(self) -> bool:
        """Whether the last renewal is young enough."""
        return self._renewed_at is not None and self.clock() - self._renewed_at < self.renew_within_seconds

    def require(self) -> None:
        """NotLeaderError unless this one leads: asked before every write."""
        if not self.is_leader():
            raise NotLeaderError(f"{self.identity} does not hold the lease {self.namespace}/{self.name}")

    def run(self, stop: threading.Event) -> None:
        """Campaign and renew until `stop` is set, then give the Lease back."""
        was_leader = False
        while not stop.is_set():
            self._try()
            if self.is_leader() != was_leader:
                was_leader = not was_leader
                (self.on_gain if was_leader else self.on_loss)()
            stop.wait(self.retry_seconds)
        if self.is_leader():
            self.release()

    def release(self) -> None:
        """Let the next one start without waiting; a failure costs it only the wait."""
        self._renewed_at = None
        try:
            lease = self.api.get(LEASES, self.namespace, self.name)
            if lease and lease["spec"].get("holderIdentity") == self.identity:
                self._write(lease, holder="")
        except ClusterError:
            return

    def _try(self) -> None:
        """Renew or take the Lease if that is possible; what the answer says counts from when it was asked."""
        for _ in range(LOOKS):
            asked = self.clock()
            try:
                self._renewed_at = asked if self._take(asked) else None
            except ClusterError as error:
                if error.is_conflict:
                    continue  # somebody wrote to it: the next look tells whether that was a candidate or a passer-by
                self._say(error.message)
                return  # no answer: what was renewed before still counts, for its time
            self._trouble = ""
            return

    def _take(self, now: float) -> bool:
        """Write this one's name into the Lease; False when somebody else holds it. A conflict when it changed meanwhile."""
        lease = self.api.get(LEASES, self.namespace, self.name)
        if lease is None:
            self.api.create(LEASES, self.namespace, self._body({}, holder=self.identity))
        elif self._is_free(lease, now):
            self._write(lease, holder=self.identity)
        else:
            return False
        return True

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble and self.on_trouble is not None:
            self.on_trouble(trouble)
        self._trouble = trouble

    def _is_free(self, lease: Object, now: float) -> bool:
        holder = lease["spec"].get("holderIdentity") or ""
        if holder in ("", self.identity):
            return True
        seen = (holder, lease["metadata"]["resourceVersion"])
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
            return False
        return now - self._seen_at > float(lease["spec"].get("leaseDurationSeconds") or self.lease_seconds)

    def _write(self, lease: Object, *, holder: str) -> None:
        """Replace the Lease that was read; its resourceVersion lets only one candidate win."""
        path = LEASES.path(self.namespace, self.name)
        self.api.request("PUT", path, body=self._body(lease, holder=holder), what=f"renew Lease {self.name}")

    def _body(self, lease: Object, *, holder: str) -> Object:
        now = self.api.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = lease.get("spec", {})
        changes = before.get("holderIdentity") != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(self.lease_seconds),
            "renewTime": now,
            "acquireTime": now if changes else before.get("acquireTime", now),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + int(changes and bool(holder)),
        }
        metadata = lease.get("metadata") or {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
