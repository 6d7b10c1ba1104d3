"""One client, one operation, one process: its seconds, cpu-seconds and peak memory as one JSON line.

python tests/benchmarks/store_client.py CLIENT OPERATION URI MIB IN_FLIGHT. It imports nothing of this repository but for
warpctl's own figures, so that another environment (that of obstore) can run it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
CHUNK_BYTES = 16 * MIB

Reader = Callable[[int, int], Any]
Writer = Callable[[int, int], None]
"""Write so many bytes with so many requests in flight."""


def chunk(index: int) -> bytes:
    """Bytes that differ from chunk to chunk."""
    return bytes([index % 251]) * CHUNK_BYTES


def gcsfs_client(path: str) -> tuple[Reader, Writer]:
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    import gcsfs

    fs = gcsfs.GCSFileSystem(token="anon", endpoint_url=os.environ["STORAGE_EMULATOR_HOST"])

    def write(size: int, in_flight: int) -> None:
        if in_flight == 1:
            write_stream(fs.open(path, "wb", block_size=CHUNK_BYTES), size)
            return
        names = [f"{path}.part-{index:05d}" for index in range(size // CHUNK_BYTES)]
        with ThreadPoolExecutor(in_flight) as pool:
            list(
                pool.map(
                    lambda at: fs.call("POST", _media(fs, names[at]), data=io.BytesIO(chunk(at))), range(len(names))
                )
            )
        fs.merge(path, names)  # at most 32 a request: 512 MiB here
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(fs.rm_file, names))

    return (lambda start, end: fs.cat_file(path, start=start, end=end)), write


def _media(fs: Any, name: str) -> str:
    bucket, _, key = name.partition("/")
    return f"{fs._location}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key.replace('/', '%2F')}"


def s3fs_client(path: str) -> tuple[Reader, Writer]:
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def write(size: int, in_flight: int) -> None:
        bucket, _, key = path.partition("/")
        upload = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]

        def send(at: int) -> dict[str, Any]:
            part = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": at + 1}
            return {"PartNumber": at + 1, "ETag": fs.call_s3("upload_part", **part, Body=chunk(at))["ETag"]}

        with ThreadPoolExecutor(in_flight) as pool:
            parts = list(pool.map(send, range(size // CHUNK_BYTES)))
        fs.call_s3(
            "complete_multipart_upload", Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    return (lambda start, end: fs.cat_file(path, start=start, end=end)), write


def obstore_client(uri: str) -> tuple[Reader, Writer]:
    import obstore
    from obstore.fsspec import FsspecStore

    scheme, _, path = uri.partition("://")
    if scheme == "gs":
        account = {"gcs_base_url": os.environ["STORAGE_EMULATOR_HOST"], "disable_oauth": True}
        account |= {"client_email": "", "private_key": "", "private_key_id": ""}
        fs = FsspecStore("gs", service_account_key=json.dumps(account), client_options={"allow_http": True})
    elif scheme == "s3":
        fs = FsspecStore("s3", client_options={"allow_http": True}, endpoint=os.environ["AWS_ENDPOINT_URL"])
    else:
        fs = FsspecStore("file")
        path = f"/{path.lstrip('/')}"

    def write(size: int, in_flight: int) -> None:
        if scheme == "file":
            bucket_store, key = fs._construct_store(""), path.lstrip("/")
        else:
            bucket, _, key = path.partition("/")
            bucket_store = fs._construct_store(bucket)
        blocks = (chunk(at) for at in range(size // CHUNK_BYTES))
        obstore.put(bucket_store, key, blocks, chunk_size=CHUNK_BYTES, max_concurrency=in_flight, use_multipart=True)

    return (lambda start, end: fs.cat_file(path, start=start, end=end)), write


def file_client(path: str) -> tuple[Reader, Writer]:
    """fsspec's own local files."""
    from fsspec.implementations.local import LocalFileSystem

    fs = LocalFileSystem()
    return (
        lambda start, end: fs.cat_file(path, start=start, end=end),
        lambda size, _: write_stream(fs.open(path, "wb"), size),
    )


def write_stream(file: Any, size: int) -> None:
    with file:
        for index in range(size // CHUNK_BYTES):
            file.write(chunk(index))


def client_of(name: str, uri: str) -> tuple[Reader, Writer]:
    path = uri.partition("://")[2]
    if name == "obstore":
        return obstore_client(uri)
    return {"gcsfs": gcsfs_client, "s3fs": s3fs_client, "file": file_client}[name](path)


def peak_mib() -> float:
    """VmHWM: the maximum of resident memory since the last write of 5 to clear_refs."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


KEY = "k" * 64
RANGE_BYTES = 128 * MIB


def publish(uri: str, size: int) -> None:
    """warpctl's own way: parts from threads, every 16 MiB hashed."""
    from tests.builders.contexts import import_publication
    from warpctl.storage.store import Store

    publication = import_publication(Store.open(uri), "attempt-1", key=KEY)
    with publication.open_file("weights") as sink:
        for index in range(size // CHUNK_BYTES):
            sink.write(chunk(index))
    publication.commit()


def read_verified(uri: str, size: int, how: str) -> None:
    """Ranges of 128 MiB into one buffer: by read_into, or chunk after chunk and joined, as it was before."""
    from warpctl.storage.artifact import Artifact
    from warpctl.storage.manifest import digest_of
    from warpctl.storage.store import Store

    store = Store.open(uri)
    artifact = Artifact.load(store, "import", KEY)
    entry = artifact.entry("weights")
    target = memoryview(bytearray(RANGE_BYTES))
    for start in range(0, size, RANGE_BYTES):
        if how == "read":
            artifact.read_into("weights", start, start + RANGE_BYTES, target)
            continue
        pieces = []
        for at in range(start, start + RANGE_BYTES, CHUNK_BYTES):
            pieces.append(store.read_range(entry.path, at, at + CHUNK_BYTES))
            if digest_of(pieces[-1]) != entry.chunks[at // CHUNK_BYTES]:
                raise SystemExit("these are not the bytes that were written")
        target = memoryview(b"".join(pieces))


def timed(work: Callable[[], object]) -> None:
    """Run it and print what it took."""
    before, start, start_cpu = peak_mib(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    seconds, end_cpu = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = end_cpu.ru_utime + end_cpu.ru_stime - start_cpu.ru_utime - start_cpu.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_mib": peak_mib(), "start_mib": before}))


def main() -> None:
    name, operation, uri, mib, in_flight = sys.argv[1:]
    size = int(mib) * MIB
    if name == "warpctl":
        for module in ("tests.builders.contexts", "warpctl.storage.artifact"):
            importlib.import_module(module)
        timed(lambda: publish(uri, size) if operation == "write" else read_verified(uri, size, operation))
        return
    reader, write = client_of(name, uri)
    if operation == "write":
        timed(lambda: write(size, int(in_flight)))
        return
    reader(0, 1)  # the connection and the imports are not what is measured
    target = bytearray(size)

    def fetch(at: int) -> None:
        target[at : at + CHUNK_BYTES] = memoryview(reader(at, at + CHUNK_BYTES))

    def read() -> None:
        with ThreadPoolExecutor(int(in_flight)) as pool:
            list(pool.map(fetch, range(0, size, CHUNK_BYTES)))

    timed(read)
    if any(target[at] != at // CHUNK_BYTES % 251 for at in range(0, size, CHUNK_BYTES)):
        raise SystemExit("these are not the bytes that were written")


if __name__ == "__main__":
    main()
