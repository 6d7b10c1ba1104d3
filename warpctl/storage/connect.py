"""From a URI to a backend and a root; cloud libraries are imported only for their own scheme."""

from __future__ import annotations

from pathlib import Path

from warpctl.errors import UserError
from warpctl.storage.backend import Backend
from warpctl.storage.local_files import LocalFiles, local_source
from warpctl.storage.retries import Retries

SCHEMES = ("file", "memory", "gs", "s3")


def connect(uri: str, retries: Retries) -> tuple[Backend, str, str]:
    """(backend, root URI without a slash at the end, root path within the backend)."""
    local = local_source(uri)
    if local is not None:
        root = str(Path(local).expanduser().absolute())
        return LocalFiles(), f"file://{root}", root
    scheme, _, path = uri.partition("://")
    path = path.strip("/")
    if scheme not in SCHEMES or not path:
        raise UserError(
            f"{uri!r} is not a storage URI",
            hint="use a path, file:///path, gs://bucket/prefix, s3://bucket/prefix or memory://name",
        )
    if scheme == "memory":
        from warpctl.storage.memory_files import MemoryFiles

        return MemoryFiles(), f"memory://{path}", f"/{path}"
    if scheme == "gs":
        from warpctl.storage import gcs

        return gcs.connect(retries), f"gs://{path}", path
    try:
        from warpctl.storage import s3
    except ModuleNotFoundError as error:
        raise UserError(
            f"{uri} needs the package {error.name}, which is not installed", hint="pip install 'warpctl[s3]'"
        ) from error
    return s3.connect(retries), f"s3://{path}", path
