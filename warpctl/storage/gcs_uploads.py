"""Large files to GCS: parts side by side as objects of their own, composed; or one after the other where nothing may be deleted.

GCS's own upload in parts, the resumable one, takes a part only when it has the one before it.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

from warpctl.storage.backend import TEMPORARY_PREFIX
from warpctl.storage.crc32c import crc32c, joined_crc32c
from warpctl.storage.gcs_requests import RetryingGcs, describe_difference, is_denied
from warpctl.storage.uploads import PART_BYTES, PARTS_AT_ONCE

_asking: Final = threading.Lock()


class GcsUpload:
    """One request for a file that fits; parts in either way for a larger one."""

    def __init__(self, fs: RetryingGcs, path: str) -> None:
        self._fs = fs
        self._path = path
        self._parts: _Parts = _Composed(fs, path)
        self._crc = 0

    def put(self, data: memoryview) -> None:
        self._crc = crc32c(data)
        self._fs.put_object(self._path, data, self._crc)

    def begin(self) -> int:
        if lets_delete(self._fs, self._path):
            return PARTS_AT_ONCE
        self._parts = _Resumable(self._fs, self._path)
        return 1

    def send(self, number: int, part: memoryview) -> None:
        self._parts.send(number, part)

    def finish(self, num_parts: int) -> None:
        self._crc = self._parts.finish(num_parts)

    def abort(self) -> None:
        self._parts.abort()

    def mismatch(self, details: Mapping[str, Any]) -> str:
        return describe_difference(dict(details), self._crc)


class _Parts(Protocol):
    def send(self, number: int, part: memoryview) -> None: ...

    def finish(self, num_parts: int) -> int:
        """Make the object; the CRC32C of all that was sent."""
        ...

    def abort(self) -> None: ...


class _Composed:
    """Parts lie beside the object under temporary names that nobody else uses, and go when it is there.

    No listing shows such names; gc collects what a killed process leaves.
    """

    def __init__(self, fs: RetryingGcs, path: str) -> None:
        self._fs = fs
        self._path = path
        self._stem = temporary_beside(path)
        self._names: list[str] = []
        self._parts: dict[int, tuple[int, int]] = {}

    def send(self, number: int, part: memoryview) -> None:
        name = self._name(number)
        self._names.append(name)
        crc = crc32c(part)
        self._fs.put_object(name, part, crc)
        self._parts[number] = crc, len(part)

    def finish(self, num_parts: int) -> int:
        self._fs.compose(self._path, [self._name(number) for number in range(num_parts)], self._names)
        self._delete()
        crc = 0
        for number in range(num_parts):
            crc = joined_crc32c(crc, *self._parts[number])
        return crc

    def abort(self) -> None:
        self._delete()

    def _name(self, number: int) -> str:
        return f"{self._stem}-{number:05d}"

    def _delete(self) -> None:
        self._fs.delete_all(self._names)
        self._names.clear()


class _Resumable:
    """One request after the other. It needs no right to delete and leaves no object behind when it is given up."""

    def __init__(self, fs: RetryingGcs, path: str) -> None:
        self._file = fs.open(path, "wb", block_size=PART_BYTES)
        self._crc = 0

    def send(self, number: int, part: memoryview) -> None:  # noqa: ARG002 - they come in order
        self._crc = crc32c(part, self._crc)
        self._file.write(part)  # sends it when it is a whole part

    def finish(self, num_parts: int) -> int:  # noqa: ARG002 - GCS counts bytes
        self._file.close()
        return self._crc

    def abort(self) -> None:
        # The file's finaliser would complete the upload while `closed` is False.
        with contextlib.suppress(Exception):
            self._file.discard()
        self._file.closed = True


def lets_delete(fs: RetryingGcs, path: str) -> bool:
    """May this identity delete what it makes in this bucket? Asked once, of an empty object that it makes beside `path`.

    Not where it may only create objects, nor where a retention policy or a hold keeps them. Then parts would stay.
    """
    bucket = path.partition("/")[0]
    with _asking:
        if bucket not in fs.lets_delete:
            name = temporary_beside(path)
            fs.put_object(name, memoryview(b""), crc32c(memoryview(b"")))
            try:
                fs.rm_file(name)
            except FileNotFoundError:  # the answer to the first request was lost
                fs.lets_delete[bucket] = True
            except Exception as error:
                if not is_denied(error):
                    raise
                fs.lets_delete[bucket] = False
            else:
                fs.lets_delete[bucket] = True
        return fs.lets_delete[bucket]


def temporary_beside(path: str) -> str:
    """A name in the same folder that no listing shows, and that nobody else takes."""
    return f"{path.rpartition('/')[0]}/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
