"""Every Kubernetes name, label and annotation. No other module builds one."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "warpctl.dev"

# Labels of what a run owns: selectable, so within 63 characters and their alphabet.
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "warpctl"
APP: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
RUN: Final = f"{GROUP}/run"
KIND: Final = f"{GROUP}/stage-kind"
ITERATION: Final = f"{GROUP}/iteration"
MEMBER: Final = f"{GROUP}/member"
CONTROL: Final = f"{GROUP}/control"
ATTEMPT: Final = f"{GROUP}/attempt"
QUEUE: Final = "kueue.x-k8s.io/queue-name"
PRIORITY_CLASS: Final = "kueue.x-k8s.io/priority-class"
COPIED_LABELS: Final = (QUEUE, PRIORITY_CLASS)
"""Labels of a WarpRun that its children get. No others: a copied tracking label makes Argo CD adopt and prune the children."""

# Annotations of a Job: what is too long for a label.
STAGE_KEY: Final = f"{GROUP}/stage-key"
STAGE_ID: Final = f"{GROUP}/stage-id"
STORAGE: Final = f"{GROUP}/storage"
GPUS: Final = f"{GROUP}/gpus"
"""GPUs of all nodes of the Job: what its time costs."""

# Annotations of a WarpRun: verbs, each with a nonce or an instant; GitOps tools leave them alone.
RETRY: Final = f"{GROUP}/retry"
"""An instant (RFC 3339): failures that ended before it are pardoned."""
CANCEL: Final = f"{GROUP}/cancel"
"""Any text: the run's workers save and leave, and it stays so until the annotation goes."""
REFRESH: Final = f"{GROUP}/refresh"
"""A nonce: another value imports everything again."""
ABANDON: Final = f"{GROUP}/abandon-artifacts"
""""true" lets a WarpRun be deleted though its artifacts could not be."""

FINALIZER: Final = f"{GROUP}/artifacts"
LEASE: Final = "warpctl-controller"
FIELD_MANAGER: Final = "warpctl"

JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"
JOB_UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"

MAX_LABEL: Final = 63


def job(kind: str, key: str, storage: str, attempt: int) -> str:
    """Name of one attempt's Job: <kind>-<first 12 of the key>-<4 of the storage>-a<attempt>.

    Two runs that want one stage in one store meet at this name; equal stages in different stores do not.
    """
    return f"{kind}-{key[:12]}-{hashlib.sha256(storage.encode()).hexdigest()[:4]}-a{attempt}"


def kind_of_job(job_name: str) -> str:
    """The stage kind in a Job's name."""
    return job_name.partition("-")[0]


def service(job_name: str) -> str:
    """The headless Service of a Job with several nodes: pods are <job>-<index>.<service>."""
    return job_name


def label(text: str) -> str:
    """`text` as a label value: as it is when it fits, else cut and told apart by a hash."""
    if len(text) <= MAX_LABEL:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: MAX_LABEL - 9].rstrip('-_.')}-{digest}"


def attempt_id(number: int, job_uid: str, index: int, pod_uid: str) -> str:
    """Unique for every start of a worker process: attempt number, Job, completion index, pod."""
    return f"{attempt_id_prefix(number, job_uid)}{index}-{pod_uid}"


def attempt_id_prefix(number: int, job_uid: str) -> str:
    """What the attempt ids of all pods of a Job begin with."""
    return f"{number}-{job_uid}-"
