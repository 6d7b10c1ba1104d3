"""Of part d: the merge stage on 1, 2 and 4 nodes that do not speak with each other, from gs:// to gs://."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.benchmarks.merge.measure import Contestant, Sample, in_turns, middle
from tests.benchmarks.merge.models import Models
from tests.benchmarks.merge.sides import Settings, Stage

NODES = (1, 2, 4)
SHARDS = 8
"""So that four nodes have about as much to do."""
SHARE = "stages/merge/"


class Bucket:
    """A bucket of fake-gcs-server by plain requests: this process is to stay small."""

    def __init__(self, endpoint: str, name: str) -> None:
        self._objects = f"{endpoint}/storage/v1/b/{name}/o"

    def names(self, prefix: str) -> list[str]:
        found = json.loads(self._ask("GET", f"?prefix={quote(prefix, safe='')}&maxResults=10000"))
        return [each["name"] for each in found.get("items", ())]

    def read(self, name: str) -> bytes:
        return self._ask("GET", f"/{quote(name, safe='')}?alt=media")

    def delete(self, name: str) -> None:
        self._ask("DELETE", f"/{quote(name, safe='')}")

    def _ask(self, method: str, rest: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self._objects + rest, method=method)) as answer:
            found: bytes = answer.read()
        return found


def several_nodes(
    settings: Settings,
    made: Models,
    stage: Stage,
    bucket: Bucket,
    *,
    folder: str,
    environment: dict[str, str],
    num_requests: Callable[[], int],
) -> dict[str, Any]:
    """Seconds, requests and peaks of 1, 2 and 4 nodes in turns; SystemExit where their artifacts differ.

    `folder` is the store's in the bucket. What a run has written is deleted: the server holds it in memory.
    """
    max_shard_bytes = 2 * made.architecture.num_bytes // SHARDS  # float32, where the model has bfloat16
    requests = dict.fromkeys(map(_name, NODES), 0)
    digests: dict[str, set[str]] = {name: set() for name in requests}
    num_shards: set[int] = set()

    def contestant(count: int) -> Contestant:
        name = _name(count)

        def clear() -> None:
            requests[name] += num_requests()
            for path in bucket.names(f"{folder}/{SHARE}"):
                if path.endswith("/committed.json"):
                    manifest = json.loads(bucket.read(path))
                    digests[name].add(manifest["contentDigest"])
                    num_shards.add(sum(file["name"].startswith("merged/model-") for file in manifest["files"]))
                bucket.delete(path)
            num_requests()

        command = ("-m", "tests.benchmarks.merge.node_side", str(count), str(max_shard_bytes))
        nowhere = Path(settings.folder) / "gs"
        return Contestant(name, lambda: stage.command(*command), nowhere, num_requests, environment, clear)

    samples = in_turns([contestant(count) for count in NODES], settings.repeat)
    if len(set().union(*digests.values())) != 1 or not all(digests.values()):
        raise SystemExit(f"error: nodes published different artifacts: {digests}")
    rows = {name: middle(each) for name, each in samples.items()}
    shards = next(iter(num_shards))
    print(
        f"  the merge stage (both outputs, float32) on several nodes of this machine, {shards} shards each, one digest:"
    )
    print_rows(rows, {name: count / settings.repeat for name, count in requests.items()})
    return {
        "gs_workers_s": {str(count): round(rows[_name(count)].ended, 3) for count in NODES},
        "gs_workers_cpu_s": {str(count): round(rows[_name(count)].cpu, 3) for count in NODES},
        "gs_workers_requests": {str(count): round(requests[_name(count)] / settings.repeat) for count in NODES},
        "gs_workers_peak_rss_mib": {str(count): round(rows[_name(count)].peak_mib) for count in NODES},
    }


def print_rows(rows: Mapping[str, Sample], requests: Mapping[str, float]) -> None:
    for name, row in rows.items():
        print(
            f"  {name:<26}{row.ended:>8.2f} s{row.cpu:>8.2f} cpu-s{row.peak_mib:>8.0f} MiB{requests[name]:>8.0f} requests"
        )


def _name(count: int) -> str:
    return f"{count} node{'s' * (count > 1)}"
