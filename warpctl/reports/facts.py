"""Where a front comes from and what it cost: every published stage behind it, followed from manifest to manifest, back to
the imports, with the attempts that each one took.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from warpctl import artifacts
from warpctl.errors import InputError
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import WEIGHTS
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

TINY_WEIGHT_BYTES = 400 * 1000 * 1000
"""Below this size of the SFT policy's weights (0.1 B parameters in float32) a run shows the machinery, not the method."""


@dataclass(frozen=True)
class StageFacts:
    """One published stage."""

    stage_id: str
    kind: str
    key: str
    manifest_digest: str
    content_digest: str
    attempt_id: str
    num_attempts: int
    """Attempts that left something in the store, the published one included."""
    started_at: str
    ended_at: str
    gpu_seconds: float
    """Of the published attempt."""
    worker_seconds: float
    """Of the published attempt, by the clock."""
    kept_seconds: float
    """Of the other attempts: what a later one went on from. Attempts that were swept are not known."""
    lost_seconds: float
    """Of the other attempts: the rest."""
    versions: Mapping[str, str]
    weight_bytes: int
    """Bytes of its safetensors files."""

    @property
    def useful_seconds(self) -> float:
        """What the published artifact rests on."""
        return self.worker_seconds + self.kept_seconds

    @property
    def useful_gpu_seconds(self) -> float:
        """`useful_seconds` times the GPUs of the published attempt."""
        return self.useful_seconds * self._gpus

    @property
    def lost_gpu_seconds(self) -> float:
        """`lost_seconds` times the GPUs of the published attempt."""
        return self.lost_seconds * self._gpus

    @property
    def _gpus(self) -> float:
        return self.gpu_seconds / self.worker_seconds if self.worker_seconds else 0.0


@dataclass(frozen=True)
class AttemptProgress:
    """How far an attempt came."""

    number: int
    seconds: float
    done: float
    done_at_start: float
    """What it took over from an earlier attempt's resume state."""


def read_lineage(store: Store, manifests: Iterable[Manifest]) -> tuple[tuple[Manifest, ...], tuple[StageFacts, ...]]:
    """The given manifests and all their ancestors, in order of start; ancestors whose marker is gone are left out."""
    found: dict[str, Manifest] = {}
    waiting = list(manifests)
    while waiting:
        manifest = waiting.pop()
        if manifest.digest in found:
            continue
        found[manifest.digest] = manifest
        for parent in manifest.parents:
            if parent.manifest_digest not in found:
                try:
                    artifact = Artifact.load(store, parent.kind, parent.key, digest=parent.manifest_digest)
                except InputError:  # collected, or made anew since: the report says what is still there
                    continue
                waiting.append(artifact.manifest)
    ordered = sorted(found.values(), key=lambda manifest: (manifest.started_at, manifest.stage_id))
    return tuple(ordered), tuple(_facts(store, manifest) for manifest in ordered)


def _facts(store: Store, manifest: Manifest) -> StageFacts:
    folder = artifacts.attempts(manifest.kind, manifest.key)
    attempts = {file.path.removeprefix(f"{folder}/").split("/")[0] for file in store.list(folder)}
    attempts.add(manifest.attempt_id)
    progress = [_progress(store, manifest, attempt_id) for attempt_id in attempts] if len(attempts) > 1 else []
    kept, lost = kept_and_lost([each for each in progress if each], published=_number(manifest.attempt_id))
    started, ended = (datetime.fromisoformat(at) for at in (manifest.started_at, manifest.ended_at))
    return StageFacts(
        stage_id=manifest.stage_id,
        kind=manifest.kind,
        key=manifest.key,
        manifest_digest=manifest.digest,
        content_digest=manifest.content_digest,
        attempt_id=manifest.attempt_id,
        num_attempts=len(attempts),
        started_at=manifest.started_at,
        ended_at=manifest.ended_at,
        gpu_seconds=manifest.gpu_seconds,
        worker_seconds=(ended - started).total_seconds(),
        kept_seconds=kept,
        lost_seconds=lost,
        versions=manifest.versions,
        weight_bytes=sum(file.size for file in manifest.files if file.name.endswith(WEIGHTS)),
    )


def _number(attempt_id: str) -> int:
    """Attempt ids start with their number (names.attempt_id)."""
    number = attempt_id.split("-", maxsplit=1)[0]
    return int(number) if number.isdigit() else 0


def _progress(store: Store, manifest: Manifest, attempt_id: str) -> AttemptProgress | None:
    data = store.read_or_none(artifacts.progress(manifest.kind, manifest.key, attempt_id))
    try:
        document = json.loads(data or b"")
        return AttemptProgress(
            number=_number(attempt_id),
            seconds=float(document["elapsedSeconds"]),
            done=float(document["done"]),
            done_at_start=float(document.get("doneAtStart") or 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # a view, perhaps half written
        return None


def kept_and_lost(attempts: Sequence[AttemptProgress], *, published: int) -> tuple[float, float]:
    """Seconds of the attempts other than the published one: those that a successor went on from, and the rest.

    Of an attempt before the published one, the work up to the point that its successor started from is kept, in
    proportion; an attempt after it is lost.
    """
    ordered = sorted(attempts, key=lambda attempt: attempt.number)
    kept, lost = 0.0, sum(attempt.seconds for attempt in ordered if attempt.number > published)
    for attempt, successor in pairwise([each for each in ordered if each.number <= published]):
        worked = attempt.done - attempt.done_at_start
        taken_over = min(max(successor.done_at_start - attempt.done_at_start, 0.0), worked)
        share = taken_over / worked if worked > 0 else 0.0
        kept += attempt.seconds * share
        lost += attempt.seconds * (1 - share)
    return kept, lost


def is_tiny(facts: Iterable[StageFacts]) -> bool:
    """Whether the models are too small to say anything about the method."""
    sizes = [fact.weight_bytes for fact in facts if fact.weight_bytes]
    return bool(sizes) and max(sizes) < TINY_WEIGHT_BYTES
