"""The floor of part d, in the environment that has obstore: read some objects and write as many bytes, at the same time.

    python obstore_side.py ENDPOINT BUCKET BYTES_TO_WRITE TARGET OBJECT...

obstore reads, in ranges. It cannot write to fake-gcs-server, which knows neither the PUT nor the multipart uploads of the XML
API that obstore speaks, so the parts go up by the JSON API's plain uploads and are composed into one object.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import obstore
from obstore.store import GCSStore

CHUNK_BYTES = 16 << 20
IN_FLIGHT = 8
MOST_PARTS = 32
"""Of one composed object."""


def read_all(store: GCSStore, objects: list[str]) -> None:
    sizes = {name: int(obstore.head(store, name)["size"]) for name in objects}
    ranges = [
        (name, at, min(at + CHUNK_BYTES, size)) for name, size in sizes.items() for at in range(0, size, CHUNK_BYTES)
    ]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        total = sum(pool.map(lambda one: len(obstore.get_range(store, one[0], start=one[1], end=one[2])), ranges))
    if total != sum(sizes.values()):
        raise SystemExit(f"error: {total} bytes came")


def post(endpoint: str, target: str, body: bytes, kind: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=300)
    try:
        connection.request("POST", target, body, {"Content-Type": kind})
        answer = connection.getresponse()
        if answer.status >= 300:
            raise SystemExit(f"error: {target}: {answer.status} {answer.read()[:300]!r}")
        answer.read()
    finally:
        connection.close()


def write(endpoint: str, bucket: str, target: str, num_bytes: int) -> None:
    part_bytes = max(CHUNK_BYTES, -(-num_bytes // MOST_PARTS))
    data = b"\x3d" * min(part_bytes, num_bytes)
    parts = [f"{target}.part-{number:02d}" for number in range(-(-num_bytes // part_bytes))]

    def upload(number: int) -> None:
        size = min(part_bytes, num_bytes - number * part_bytes)
        name = quote(parts[number], safe="")
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
        post(endpoint, path, data[:size], "application/octet-stream")

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(upload, range(len(parts))))
    body = json.dumps({"sourceObjects": [{"name": part} for part in parts]}).encode()
    post(endpoint, f"/storage/v1/b/{bucket}/o/{quote(target, safe='')}/compose", body, "application/json")


def main() -> None:
    endpoint, bucket, num_bytes, target, *objects = sys.argv[1:]
    account = {
        "gcs_base_url": endpoint,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    store = GCSStore(bucket, service_account_key=json.dumps(account), client_options={"allow_http": True})
    writer = threading.Thread(target=write, args=(endpoint, bucket, target, int(num_bytes)))
    writer.start()
    read_all(store, objects)
    writer.join()
    if int(num_bytes) != int(obstore.head(store, target)["size"]):
        raise SystemExit("error: not all bytes were written")


if __name__ == "__main__":
    main()
