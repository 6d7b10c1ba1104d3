"""A list that is kept up to date: everything of one resource, in memory, from one list and one watch.

Level-triggered: whoever is told of a change looks at what is there now. A watch that ends, expires (410) or falls silent is begun
again; after a new list, what is no longer there is reported as gone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError, ClusterUnavailableError
from warpctl.kube.resources import Resource

T = TypeVar("T")
Key = tuple[str, str]
"""(namespace, name)"""

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0


@dataclass
class Reflector(Generic[T]):
    """The objects of `resource` in `namespace` ("": all) with `labels`, each as small as `project` makes it."""

    api: Api
    resource: Resource
    project: Callable[[Object], T]
    on_change: Callable[[T | None, T | None], None]
    """Told (before, after): None before means new, None after means gone."""
    namespace: str = ""
    labels: str = ""
    watch_seconds: float = 300.0
    silence_seconds: float = 90.0
    on_restart: Callable[[str], None] | None = None
    """Told why a watch had to be begun again."""
    is_synced: threading.Event = field(default_factory=threading.Event)
    _items: dict[Key, tuple[int, T]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _last_contact: float = 0.0
    _newest: str = ""
    """Resource version of the last event: a broken watch goes on from there."""

    def items(self) -> list[T]:
        """All that is known now."""
        with self._lock:
            return [item for _, item in self._items.values()]

    def item(self, namespace: str, name: str) -> T | None:
        """One of them."""
        with self._lock:
            found = self._items.get((namespace, name))
        return found[1] if found else None

    def seconds_since_contact(self) -> float:
        """How old this view may be."""
        return time.monotonic() - self._last_contact

    def accept(self, obj: Object) -> T:
        """Take an answer to one's own write as seen, unless a newer version is known."""
        item = self.project(obj)
        self._put(obj, item)
        return item

    def run(self, stop: threading.Event) -> None:
        """List and watch until `stop` is set."""
        version, failures = "", 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                if not version:
                    version = self._list()
                version = self._watch(version, stop)
                failures = 0
            except ClusterError as error:
                if stop.is_set():
                    return
                if error.is_expired:
                    version = ""
                    self._say(f"expired: {error.message}")
                    continue
                version = self._newest if self.is_synced.is_set() else ""
                # What worked for a while is no failure in a row: connections are cut by idle timeouts for ever.
                failures = 1 if time.monotonic() - began > BACKOFF_MAX_SECONDS else failures + 1
                self._say(error.message)
                longest = min(BACKOFF_FIRST_SECONDS * 2 ** min(failures - 1, 10), BACKOFF_MAX_SECONDS)
                asked = error.retry_after or 0.0 if isinstance(error, ClusterUnavailableError) else 0.0
                pause = max(random.uniform(longest / 2, longest), asked)  # noqa: S311  # jitter, no secret
                stop.wait(min(pause, BACKOFF_MAX_SECONDS))

    def _list(self) -> str:
        seen: set[Key] = set()
        for page in self.api.pages(self.resource, self.namespace, labels=self.labels):
            if page.is_first:
                seen.clear()
            for obj in page.items:
                seen.add(_key(obj))
                self._put(obj, self.project(obj))
            version = page.resource_version
        with self._lock:
            gone = [key for key in self._items if key not in seen]
        for key in gone:
            self._drop(key)
        self._newest = version
        self._last_contact = time.monotonic()
        self.is_synced.set()
        return version

    def _watch(self, version: str, stop: threading.Event) -> str:
        seconds = self.watch_seconds * random.uniform(0.9, 1.1)  # noqa: S311  # jitter, no secret
        events = self.api.watch(
            self.resource,
            self.namespace,
            labels=self.labels,
            version=version,
            seconds=seconds,
            silence_seconds=self.silence_seconds,
        )
        for kind, obj in events:
            if stop.is_set():
                break
            self._last_contact = time.monotonic()
            version = self._newest = obj["metadata"]["resourceVersion"]
            if kind == "DELETED":
                self._drop(_key(obj))
            elif kind in ("ADDED", "MODIFIED"):
                self._put(obj, self.project(obj))
        return version

    def _put(self, obj: Object, item: T) -> None:
        """Versions are compared as numbers, as Kubernetes promises since 1.35 and has done all along."""
        version = int(obj["metadata"]["resourceVersion"])
        key = _key(obj)
        with self._lock:
            before = self._items.get(key)
            if before is not None and before[0] >= version:
                return
            self._items[key] = (version, item)
            # Still under the lock: two threads must not tell of two versions in the wrong order.
            self.on_change(before[1] if before else None, item)

    def _drop(self, key: Key) -> None:
        with self._lock:
            before = self._items.pop(key, None)
            if before is not None:
                self.on_change(before[1], None)

    def _say(self, why: str) -> None:
        if self.on_restart is not None:
            self.on_restart(f"watch of {self.resource.plural} begins again: {why}")


def _key(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
