"""Files from a source into the store: finished ones of earlier attempts are adopted, the rest is linked or streamed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warpctl import artifacts
from warpctl.errors import CorruptError
from warpctl.spec.stage_input import StageInput
from warpctl.storage.manifest import FileEntry
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.sources.base import Source, SourceFile, changed, stream_all


@dataclass
class Copier:
    """Copies one import. `on_bytes` is called with the bytes done since the last call, and may raise to stop it."""

    source: Source
    store: Store
    publication: Publication
    stage: StageInput
    wait: Callable[[float], None]
    on_bytes: Callable[[int], None]
    num_adopted: int = field(default=0, init=False)

    def copy_all(self, files: Sequence[SourceFile]) -> None:
        """Put every file into the publication, then make sure that the source is still what was listed.

        Raises `RetryableError` when it is not; nothing is committed then.
        """
        finished = self._finished()
        self._leave_listing(files)
        for file in files:
            entry = finished.get((file.name, file.fingerprint))
            if entry is not None and entry.size == file.size:
                self.publication.adopt(entry)
                self.num_adopted += 1
                self.on_bytes(file.size)
            else:
                self._copy(file)
        now = {file.name: file for file in self.source.files()}
        for file in files:
            if now.get(file.name) != file:
                raise changed(self.source, file, "it is another file now" if file.name in now else "it is gone")

    def _copy(self, file: SourceFile) -> None:
        copy_uri = self.source.copy_uri(file)
        if copy_uri is not None and (entry := self.publication.copy_file(file.name, copy_uri)) is not None:
            if entry.size != file.size:
                raise changed(self.source, file, f"it had {file.size} bytes and has {entry.size}")
            self.on_bytes(file.size)
            return
        digests = _Digests(self.source, file)
        with self.publication.open_file(file.name) as target:
            for piece in stream_all(self.source, file, wait=self.wait):
                target.write(piece)
                digests.update(piece)
                self.on_bytes(len(piece))
            digests.check()

    def _leave_listing(self, files: Sequence[SourceFile]) -> None:
        """What this attempt copies, so that a later one knows whether a finished file is still the source's."""
        path = artifacts.import_listing(self.stage.key, self.stage.attempt_id)
        body = {file.name: file.fingerprint for file in files}
        self.store.write(path, json.dumps(body, indent=1).encode())

    def _finished(self) -> dict[tuple[str, str], FileEntry]:
        """Finished files of earlier attempts by name and fingerprint."""
        listings: dict[str, dict[str, str]] = {}
        found: dict[tuple[str, str], FileEntry] = {}
        folder = artifacts.attempts(self.stage.kind, self.stage.key) + "/"
        for name, entry in self.publication.receipts().items():
            attempt_id = entry.path.removeprefix(folder).partition("/")[0]
            if attempt_id not in listings:
                text = self.store.read_or_none(artifacts.import_listing(self.stage.key, attempt_id))
                listings[attempt_id] = json.loads(text) if text else {}
            if name in listings[attempt_id]:
                found[(name, listings[attempt_id][name])] = entry
        return found


class _Digests:
    """The digests that the source promises, computed on the way."""

    def __init__(self, source: Source, file: SourceFile) -> None:
        self._source, self._file = source, file
        self._sha256 = hashlib.sha256() if file.sha256 else None
        self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.git_sha1 else None

    def update(self, piece: bytes) -> None:
        for digest in (self._sha256, self._git):
            if digest is not None:
                digest.update(piece)

    def check(self) -> None:
        for digest, promised in ((self._sha256, self._file.sha256), (self._git, self._file.git_sha1)):
            if digest is not None and digest.hexdigest() != promised:
                raise CorruptError(
                    f"{self._source.uri}: {self._file.name} has {digest.name} {digest.hexdigest()}, "
                    f"the source promises {promised}",
                    hint="nothing was published; the next attempt downloads it again",
                )
