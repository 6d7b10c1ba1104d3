"""Reasons: the words that programs read in conditions and Events. docs/operations.md says what each means and what to do."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Of a condition."""

    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    STAGE_STALLED = "StageStalled"
    NOT_ALLOWED = "NotAllowed"
    INVALID_SPEC = "InvalidSpec"
    STORE_UNAVAILABLE = "StoreUnavailable"
    STORE_DENIED = "StoreDenied"
    STORE_CORRUPT = "StoreCorrupt"
    PASS_FAILED = "PassFailed"  # noqa: S105  # no password


class EventReason(StrEnum):
    """Of an Event that tells of no condition; the others have their condition's reason."""

    RESUMED = "Resumed"
    ITERATION_MERGED = "IterationMerged"
    ATTEMPT_FAILED = "AttemptFailed"
    STAGE_WAITS = "Waiting"
    ANNOTATION_IGNORED = "AnnotationIgnored"
    ARTIFACTS_DELETED = "ArtifactsDeleted"
    ARTIFACTS_NOT_DELETED = "ArtifactsNotDeleted"
