"""Object stores: python -m tests.benchmarks.store [--obstore PYTHON] [--mib 512]. The last line is JSON.

gcsfs, s3fs and (with the python of an environment that holds it) obstore read and write one object in 16 MiB chunks with 1,
4 and 8 requests in flight: against fake-gcs-server and moto, behind a proxy that adds 30 ms to each request, and on a local
disk. Each measurement is a process of its own (store_client.py); the servers and the proxy share this machine.
Then what warpctl makes of it: reading and verifying a local artifact.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.fault_proxy import Fault
from tests.servers.object_stores import ObjectStore, running_fake_gcs, running_moto

DELAY_SECONDS = 0.03
IN_FLIGHT = (1, 4, 8)
CLIENT = Path(__file__).with_name("store_client.py")


def measure(python: str, name: str, operation: str, uri: str, mib: int, in_flight: int) -> dict[str, Any]:
    """What one process says of itself, or why it failed."""
    command = [python, str(CLIENT), name, operation, uri, str(mib), str(in_flight)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"PYTHONPATH": "."}
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or ["no words"]
        return {"error": lines[0][:300]}
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def at(server: ObjectStore) -> Iterator[str]:
    """The server behind its delay, in the environment of the clients; gives the URI of a file."""
    server.proxy.fail(Fault(delay_seconds=DELAY_SECONDS), times=10**9)
    os.environ.update(server.environment)
    yield f"{server.scheme}://{server.bucket}/bench/object"


def ours(place: str, uri: str, mib: int) -> list[dict[str, Any]]:
    """warpctl: a file published, read with read_into, and read chunk after chunk and joined."""
    found = []
    for operation in ("write", "read", "read in turn"):
        got = measure(sys.executable, "warpctl", operation, uri, mib, 0)
        found.append(
            {"place": place, "client": "warpctl", "operation": operation, "in_flight": "own"} | _rated(got, mib)
        )
        print(_line(found[-1]), flush=True)
    return found


def _rated(got: dict[str, Any], mib: int) -> dict[str, Any]:
    return got | ({"mb_s": round(mib * 1.048576 / got["seconds"], 1)} if "seconds" in got else {})


def rows(place: str, uri: str, clients: dict[str, str], mib: int) -> list[dict[str, Any]]:
    found = []
    for in_flight in IN_FLIGHT:
        for operation in ("write", "read"):
            for name, python in clients.items():
                written_by = name if operation == "write" else next(iter(clients))
                got = measure(python, name, operation, f"{uri}-{written_by}", mib, in_flight)
                row = {"place": place, "client": name, "operation": operation, "in_flight": in_flight} | _rated(
                    got, mib
                )
                print(_line(row), flush=True)
                found.append(row)
    return found + ours(place, f"{uri}-store", mib)


def _line(row: dict[str, Any]) -> str:
    head = f"| {row['place']} | {row['client']} | {row['operation']} | {row['in_flight']} |"
    if "error" in row:
        return f"{head} failed: {row['error']} | | |"
    return f"{head} {row['mb_s']:.0f} | {row['cpu_s']:.2f} | {row['peak_mib']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--obstore", default="", help="python of an environment with obstore and fsspec")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--moto-mib", type=int, default=128, help="moto copies the whole object for each range")
    parser.add_argument("--places", default="gcs,s3,disk")
    args = parser.parse_args()
    also = {"obstore": args.obstore} if args.obstore else {}
    places = args.places.split(",")
    found: list[dict[str, Any]] = []
    print(
        "| place | client | operation | in flight | MB/s | cpu-s | peak MiB |\n| --- | --- | --- | ---: | ---: | ---: | ---: |"
    )
    if "gcs" in places:
        with running_fake_gcs() as server, at(server) as uri:
            found += rows("fake-gcs-server + 30 ms", uri, {"gcsfs": sys.executable} | also, args.mib)
    if "s3" in places:
        with running_moto() as server, at(server) as uri:
            found += rows("moto + 30 ms", uri, {"s3fs": sys.executable} | also, args.moto_mib)
    if "disk" in places:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as folder:
            found += rows("local disk", f"file://{folder}/object", {"file": sys.executable} | also, args.mib)
    print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
