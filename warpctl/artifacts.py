"""Every path in the artifact store (layout v1). No other module builds one.

Paths are relative to the storage root and always use forward slashes:

    stages/<kind>/<key>/attempts/<attempt>/files/<name>         each written once
    stages/<kind>/<key>/attempts/<attempt>/receipts/<name>.json a finished file of an unfinished attempt
    stages/import/<key>/attempts/<attempt>/listing.json         what an import's attempt found at its source
    stages/<kind>/<key>/attempts/<attempt>/resume/<step>/...    a resume state, its own marker last
    stages/<kind>/<key>/attempts/<attempt>/metrics/<n>.jsonl    metric segments (timings/<n>.jsonl apart)
    stages/<kind>/<key>/attempts/<attempt>/progress.json        overwritten: a view
    stages/<kind>/<key>/attempts/<attempt>/log.txt              the worker's log, when it ended
    stages/<kind>/<key>/attempts/<attempt>/failure.json         step and batch of a numeric failure
    stages/<kind>/<key>/committed.json                          created once: the success
    points/<point key>.json                                     one evaluated point, created once
    runs/<namespace>/<name>/wanted.json                         roots of garbage collection
    runs/<namespace>/<name>/deleting.json                       what a run wanted that is being deleted with its artifacts
    runs/<namespace>/<name>/report/...                          views
    runs/<namespace>/<name>/tensorboard/...                     event files of a tracker: views

URIs are `str`, not `Path`, which would collapse the `//` of `gs://`.
"""

from __future__ import annotations

from typing import Final

LAYOUT_VERSION: Final = 1
STAGES: Final = "stages"
POINTS: Final = "points"
RUNS: Final = "runs"
PROBES: Final = "probes"
"""Objects that a probe of the store could not delete again lie below this path; gc sweeps them."""


def stage(kind: str, key: str) -> str:
    return f"{STAGES}/{kind}/{key}"


def marker(kind: str, key: str) -> str:
    """The commit marker; its existence is the stage's success."""
    return f"{stage(kind, key)}/committed.json"


def attempts(kind: str, key: str) -> str:
    return f"{stage(kind, key)}/attempts"


def attempt(kind: str, key: str, attempt_id: str) -> str:
    return f"{attempts(kind, key)}/{attempt_id}"


def file(kind: str, key: str, attempt_id: str, name: str) -> str:
    return f"{attempt(kind, key, attempt_id)}/files/{name}"


def receipt(kind: str, key: str, attempt_id: str, name: str) -> str:
    return f"{attempt(kind, key, attempt_id)}/receipts/{name}.json"


def import_listing(key: str, attempt_id: str) -> str:
    """Fingerprints of the source's files: a later attempt adopts a finished file only when its source is the same."""
    return f"{attempt('import', key, attempt_id)}/listing.json"


def resume(kind: str, key: str, attempt_id: str, step: int) -> str:
    """A resume state's folder; steps are zero-padded so that names sort by step."""
    return f"{attempt(kind, key, attempt_id)}/resume/{step:08d}"


def metrics(kind: str, key: str, attempt_id: str, segment: int) -> str:
    return f"{attempt(kind, key, attempt_id)}/metrics/{segment:06d}.jsonl"


def timings(kind: str, key: str, attempt_id: str, segment: int) -> str:
    return f"{attempt(kind, key, attempt_id)}/timings/{segment:06d}.jsonl"


def progress(kind: str, key: str, attempt_id: str) -> str:
    return f"{attempt(kind, key, attempt_id)}/progress.json"


def log(kind: str, key: str, attempt_id: str) -> str:
    return f"{attempt(kind, key, attempt_id)}/log.txt"


def failure(kind: str, key: str, attempt_id: str) -> str:
    """What a worker dumps of a numeric failure."""
    return f"{attempt(kind, key, attempt_id)}/failure.json"


def point(key: str) -> str:
    return f"{POINTS}/{key}.json"


def run(namespace: str, name: str) -> str:
    return f"{RUNS}/{namespace}/{name}"


def wanted(namespace: str, name: str) -> str:
    return f"{run(namespace, name)}/wanted.json"


def deleting(namespace: str, name: str) -> str:
    """Stages that are being swept because their run is deleted."""
    return f"{run(namespace, name)}/deleting.json"


def tensorboard(namespace: str, name: str) -> str:
    """Folder of a run's TensorBoard event files."""
    return f"{run(namespace, name)}/tensorboard"


def report(namespace: str, name: str, file_name: str) -> str:
    return f"{run(namespace, name)}/report/{file_name}"
