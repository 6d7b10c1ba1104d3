"""Where a front comes from: every published stage behind it, followed from manifest to manifest, back to the imports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warpctl import artifacts
from warpctl.errors import InputError
from warpctl.storage.artifact import Artifact
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
    versions: Mapping[str, str]
    weight_bytes: int
    """Bytes of its safetensors files."""


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
    return StageFacts(
        stage_id=manifest.stage_id,
        kind=manifest.kind,
        key=manifest.key,
        manifest_digest=manifest.digest,
        content_digest=manifest.content_digest,
        attempt_id=manifest.attempt_id,
        num_attempts=len(attempts | {manifest.attempt_id}),
        started_at=manifest.started_at,
        ended_at=manifest.ended_at,
        gpu_seconds=manifest.gpu_seconds,
        versions=manifest.versions,
        weight_bytes=sum(file.size for file in manifest.files if file.name.endswith(".safetensors")),
    )


def is_tiny(facts: Iterable[StageFacts]) -> bool:
    """Whether the models are too small to say anything about the method."""
    sizes = [fact.weight_bytes for fact in facts if fact.weight_bytes]
    return bool(sizes) and max(sizes) < TINY_WEIGHT_BYTES
