"""The controller's configuration: what an administrator decides for a cluster, in a ConfigMap.

Cluster defaults fill in what a spec leaves open; tenancy says what a spec may ask for. A spec is tenant input that is read by a
privileged identity, so what is not allowed here is refused.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from annotated_types import Ge, Le
from pydantic import Field

from warpctl.spec.base import SpecModel
from warpctl.spec.quantity import Quantity

Names = tuple[str, ...]
FROM_IMAGE: Final = "FromImage"


class Images(SpecModel):
    """Images of the stages, by digest where it matters."""

    slim: str = "ghcr.io/warpctl/slim:latest"
    """For import, merge and report: no torch."""
    worker: str = "ghcr.io/warpctl/worker:latest"
    """For rl and evaluate."""
    pull_policy: str = "IfNotPresent"
    """As in a pod."""
    pull_secrets: Names = ()
    """Names of Secrets, in every namespace that runs are in."""


class Defaults(SpecModel):
    """Where a spec says nothing."""

    cpu: Quantity = "1"
    """CPU cores of each node of a stage."""
    memory: Quantity = "4Gi"
    """Memory of each node of a stage."""
    shared_memory: Quantity = "1Gi"
    """Size limit of /dev/shm; counts as memory."""
    scratch: Quantity = "20Gi"
    """Size limit of /tmp, on the node's disk."""
    service_account: str = ""
    """Identity of workers (workload identity); "": the namespace's default, without a token."""
    env_from_secrets: Names = ()
    """Secrets with credentials of the store, where workload identity gives none."""
    hub_token_secret: str = ""
    """Secret with HF_TOKEN, for import pods only; "": none."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every worker, such as STORAGE_EMULATOR_HOST."""
    grace_seconds: Annotated[int, Ge(10), Le(86_400)] = 300
    """From SIGTERM to SIGKILL, at least; an RL run gets longer when its memory takes longer to save."""
    save_rate: Quantity = "200Mi"
    """Bytes a second at which a worker writes its resume state to the store; what it saves is at most its memory."""
    ttl_seconds: Annotated[int, Ge(60), Le(31_536_000)] = 604_800
    """How long a Job that succeeded stays; one that failed stays as long as its run."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that counts GPUs."""
    run_as_user: Annotated[int, Ge(1)] | Literal["FromImage"] = 10001
    """User, group and fsGroup of worker pods; FromImage leaves them out, for platforms that assign them (OpenShift)."""


class Tenancy(SpecModel):
    """What runs of some namespaces may ask for."""

    namespaces: Names = ("*",)
    """Names, or "*" for all; of several entries the first that names the namespace counts, then "*"."""
    storage: Names = ()
    """Allowed prefixes of spec.storage.uri and of imports, such as gs://team-a/; file:// only if it stands here."""
    images: Names = ()
    """Allowed prefixes of podTemplate.image besides the defaults above."""
    service_accounts: Names = ()
    """Allowed service accounts besides the default."""
    volumes: Names = ()
    """Allowed volume types: persistentVolumeClaim, configMap, secret, emptyDir."""
    secrets: Names = ()
    """Secrets that a spec may name in envFromSecrets and volumes; "*" for all of its namespace."""
    priority_classes: Names = ()
    """Allowed podTemplate.priorityClassName; "*" for all."""
    runtime_classes: Names = ()
    """Allowed podTemplate.runtimeClassName; "*" for all."""
    reward_urls: Names = ()
    """Allowed prefixes of the URLs of Http rewards, such as https://judge.team-a.svc/; "*" for all."""


class ControllerConfig(SpecModel):
    """All of it."""

    images: Images = Images()
    defaults: Defaults = Defaults()
    tenancy: tuple[Tenancy, ...] = ()
    """No entry for a namespace: nothing that needs permission is allowed there."""
    workers: Annotated[int, Ge(1), Le(256)] = 8
    """Passes at once."""
    progress_seconds: Annotated[int, Ge(1), Le(3600)] = 30
    """Least time between two looks at the progress of a running stage."""
    progress_passes_per_second: Annotated[int, Ge(1), Le(10_000)] = 10
    """Passes a second, over all runs, that only look at progress: with 1,000 runs at work each is looked at every 100 seconds."""
    resync_seconds: Annotated[int, Ge(10), Le(86_400)] = 600
    """A pass of every unfinished run at least this often."""

    def tenancy_of(self, namespace: str) -> Tenancy:
        """What this namespace may ask for."""
        for wanted in (namespace, "*"):
            for entry in self.tenancy:
                if wanted in entry.namespaces:
                    return entry
        return Tenancy(namespaces=(namespace,))
