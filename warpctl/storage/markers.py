"""Reads commit markers by exact path, and no more often than something can have changed.

A marker that is there stays: it is read once, and the files that it names are looked at once, because a cache hit must not point
at something that is gone. An absent one is read again only when the caller's token (what it knows of the stage's attempts)
differs from last time: never listed, never polled.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from warpctl import artifacts
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

CONCURRENT_READS = 16


_OF_THREAD = threading.local()


def _readers() -> ThreadPoolExecutor:
    """One pool for each thread that looks: made once, and a store that hangs holds up no look at another."""
    if not hasattr(_OF_THREAD, "pool"):
        _OF_THREAD.pool = ThreadPoolExecutor(CONCURRENT_READS, "markers")
    pool: ThreadPoolExecutor = _OF_THREAD.pool
    return pool


@dataclass(frozen=True, slots=True)
class Marker:
    """What is kept of a marker that was read; its manifest is ten times as large, and a controller keeps thousands.

    `is_whole`: the files that it names are there with the sizes that it says. `parents`: content digests by role.
    """

    manifest_digest: str
    content_digest: str
    attempt_id: str
    parents: Mapping[str, str]
    gpu_seconds: float
    ended_at: str
    is_whole: bool


@dataclass
class Markers:
    """The markers of one store, as one engine has seen them."""

    store: Store
    _present: dict[str, Marker] = field(default_factory=dict)
    _absent: dict[str, object] = field(default_factory=dict)

    def look(self, stages: Mapping[str, str], tokens: Mapping[str, object]) -> dict[str, Marker]:
        """Markers that are there, by stage key; `stages` maps keys to kinds, `tokens` keys to what is known of attempts."""
        unknown = {
            key: kind
            for key, kind in stages.items()
            if key not in self._present and (key not in self._absent or self._absent[key] != tokens.get(key))
        }
        each = map if len(unknown) < 2 else _readers().map  # one read needs no other thread
        for key, marker in each(lambda item: (item[0], self.read(item[1], item[0])), unknown.items()):
            if marker is None:
                self._absent[key] = tokens.get(key)
            else:
                self._present[key] = marker
        return {key: self._present[key] for key in stages if key in self._present}

    def read(self, kind: str, key: str) -> Marker | None:
        """Read one marker now."""
        path = artifacts.marker(kind, key)
        raw = self.store.read_or_none(path)
        if raw is None:
            return None
        manifest = Manifest.from_bytes(raw, source=self.store.uri(path))
        sizes = [self.store.stat(file.path) for file in manifest.files]
        whole = all(
            found is not None and found.size == file.size for found, file in zip(sizes, manifest.files, strict=True)
        )
        return Marker(
            manifest_digest=manifest.digest,
            content_digest=manifest.content_digest,
            attempt_id=manifest.attempt_id,
            parents={parent.role: parent.content_digest for parent in manifest.parents},
            gpu_seconds=manifest.gpu_seconds,
            ended_at=manifest.ended_at,
            is_whole=whole,
        )

    def forget(self, key: str) -> None:
        """The marker was removed, or may have been."""
        self._present.pop(key, None)
        self._absent.pop(key, None)
