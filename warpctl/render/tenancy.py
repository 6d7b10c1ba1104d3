"""What a spec may ask for. It is tenant input that a privileged identity reads, so what is not allowed is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from warpctl.spec.controller_config import ControllerConfig, Tenancy
from warpctl.spec.models import CheckpointReward
from warpctl.spec.pod import PodTemplate
from warpctl.spec.stage_input import StageKind
from warpctl.spec.warp_run import WarpRun

CLOUD = ("gs://", "s3://")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that is not allowed: where, what, and what is."""

    field: str
    value: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}, got {self.value}"


def refusals(run: WarpRun, config: ControllerConfig) -> tuple[Refusal, ...]:
    """Everything in `run` that the controller's configuration does not allow in its namespace."""
    tenancy = config.tenancy_of(run.metadata.namespace)
    found = [*_places(run, tenancy)]
    for kind in StageKind:
        found += _pod(f"spec.compute.{kind}.podTemplate", run.spec.compute.of(kind).pod_template, tenancy, config)
    return tuple(found)


def is_below(uri: str, prefix: str) -> bool:
    """Whether `uri` is `prefix` or lies in it; gs://team is no prefix of gs://team-b, and `..` leads nowhere."""
    clean = prefix.rstrip("/")
    return ".." not in uri.split("/") and (uri == clean or uri.startswith(clean + "/"))


def _places(run: WarpRun, tenancy: Tenancy) -> Iterator[Refusal]:
    spec = run.spec
    uris = {"spec.storage.uri": spec.storage.uri, "spec.models.sft.uri": spec.models.sft.uri}
    uris["spec.prompts.uri"] = spec.prompts.uri
    for group, rewards in (("rewards", spec.models.rewards), ("heldOutRewards", spec.models.held_out_rewards)):
        uris |= {
            f"spec.models.{group}[{i}].uri": reward.uri
            for i, reward in enumerate(rewards)
            if isinstance(reward, CheckpointReward)
        }
    for field, uri in uris.items():
        # A hub or a web server is the import pod's own business; it has no credentials of this cluster's stores.
        if uri.startswith(("hf://", "https://")) and field != "spec.storage.uri":
            continue
        allowed = tenancy.storage
        if not any(is_below(uri, prefix) for prefix in allowed):
            names = ", ".join(allowed) or "nothing"
            yield Refusal(
                field, uri, f"must lie below a storage prefix of namespace {run.metadata.namespace} ({names})"
            )


def _pod(path: str, pod: PodTemplate, tenancy: Tenancy, config: ControllerConfig) -> Iterator[Refusal]:
    images = (config.images.slim, config.images.worker)
    if pod.image and pod.image not in images and not any(pod.image.startswith(each) for each in tenancy.images):
        yield Refusal(f"{path}.image", pod.image, "must be an allowed image")
    account = pod.service_account_name
    if account and account != config.defaults.service_account and account not in tenancy.service_accounts:
        yield Refusal(f"{path}.serviceAccountName", account, "must be an allowed service account")
    for i, volume in enumerate(pod.volumes):
        if volume.type not in tenancy.volumes:
            yield Refusal(f"{path}.volumes[{i}]", volume.type, "must be of an allowed volume type")
    if "*" not in tenancy.secrets:
        named = {f"{path}.envFromSecrets[{i}]": name for i, name in enumerate(pod.env_from_secrets)}
        named |= {
            f"{path}.env[{i}].secretKeyRef": each.secret_key_ref.name
            for i, each in enumerate(pod.env)
            if each.secret_key_ref is not None
        }
        named |= {
            f"{path}.volumes[{i}].sourceName": each.source_name
            for i, each in enumerate(pod.volumes)
            if each.type == "secret"
        }
        named |= {f"{path}.imagePullSecrets[{i}]": name for i, name in enumerate(pod.image_pull_secrets)}
        for field, name in named.items():
            if name not in tenancy.secrets:
                yield Refusal(field, name, "must be an allowed secret")
