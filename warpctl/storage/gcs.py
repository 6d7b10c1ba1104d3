"""Google Cloud Storage: the file system behind gs://."""

from __future__ import annotations

import os

import aiohttp

from warpctl.storage.create_once import create_in_object_store
from warpctl.storage.gcs_requests import RetryingGcs, is_beyond_end, is_denied, is_transient
from warpctl.storage.gcs_uploads import GcsUpload
from warpctl.storage.object_files import ObjectFiles
from warpctl.storage.retries import Retries


def connect(retries: Retries) -> ObjectFiles:
    """The file system behind gs://, anonymous at STORAGE_EMULATOR_HOST when that is set, else with the usual credentials."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    fs = RetryingGcs(
        retries=retries,
        token="anon" if emulator else None,
        endpoint_url=emulator or None,
        requests_timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=retries.read_timeout_seconds, sock_read=retries.read_timeout_seconds
        ),
        use_listings_cache=False,
    )

    def identity() -> str:
        credentials = getattr(fs.credentials, "credentials", None)
        return str(getattr(credentials, "service_account_email", "") or ("anonymous" if credentials is None else "you"))

    return ObjectFiles(
        fs=fs,
        scheme="gs",
        create=lambda path, data: create_in_object_store(fs, path, data),
        list_one=lambda bucket: fs.call("GET", "b/{}/o", bucket, maxResults=1),
        transient=is_transient,
        denied=is_denied,
        beyond_end=is_beyond_end,
        describe_identity=identity,
        upload=lambda path: GcsUpload(fs, path),
    )
