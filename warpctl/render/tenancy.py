"""What a spec may ask for. It is tenant input that a privileged identity reads, so what is not allowed is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from warpctl.spec.controller_config import ControllerConfig, Tenancy
from warpctl.spec.models import CheckpointReward, HttpReward, SourceSplit
from warpctl.spec.pod import PodTemplate
from warpctl.spec.stage_input import StageKind
from warpctl.spec.tracking import TrackerType
from warpctl.spec.warp_run import WarpRun

PUBLIC: Final = ("hf://", "https://")
"""Sources that no identity of this cluster opens: what an import reads there, it reads with the run's own token."""
ANY: Final = "*"
_HINT: Final = "an administrator allows more in the tenancy of the controller's configuration (docs/operations.md)"
_LAPTOP_HINT: Final = "pods do not see it: copy it to gs:// or s3://, or import it from hf:// or https://"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that is not allowed: where, what, what is, and what to do."""

    field: str
    value: str
    message: str
    hint: str = _HINT

    def __str__(self) -> str:
        return f"{self.field} {self.message}, got {self.value}"


def refusals(run: WarpRun, config: ControllerConfig) -> tuple[Refusal, ...]:
    """Everything in `run` that the controller's configuration does not allow in its namespace."""
    tenancy = config.tenancy_of(run.metadata.namespace)
    found = [*_places(run, tenancy), *_endpoints(run, tenancy)]
    for kind in StageKind:
        found += _pod(f"spec.compute.{kind}.podTemplate", run.spec.compute.of(kind).pod_template, tenancy, config)
    return tuple(found)


def laptop_paths(run: WarpRun) -> tuple[Refusal, ...]:
    """Every place that is a path of the machine at hand, which `warpctl apply` refuses: a local run is `warpctl run`.

    file:// is let through: it names a path of the nodes, and the controller's configuration decides about those.
    """
    return tuple(
        Refusal(field, uri, "is a path of this machine", _LAPTOP_HINT) for field, uri in _uris(run) if "://" not in uri
    )


def is_below(uri: str, prefix: str) -> bool:
    """Whether `uri` is `prefix` or lies in it; gs://team is no prefix of gs://team-b, and `..` leads nowhere.

    A path and its file:// form are the same place.
    """
    place, clean = (text.removeprefix("file://").rstrip("/") for text in (uri, prefix))
    return ".." not in place.split("/") and (place == clean or place.startswith(f"{clean}/"))


def is_url_below(url: str, prefix: str) -> bool:
    """Whether a request to `url` goes to `prefix` or below it; no escape and no query leads out of it."""
    path = url.partition("?")[0].partition("#")[0]
    is_plain = not any(trick in path.lower() for trick in ("%2e", "%2f", "%5c", "\\"))
    return is_plain and is_below(path, prefix)


def is_image_of(image: str, prefix: str) -> bool:
    """Whether an image is `prefix`, or lies below it, or is a tag or digest of it."""
    clean = prefix.rstrip("/")
    return (
        image == prefix
        or image.startswith(f"{clean}/")
        or (clean == prefix and image.startswith((f"{clean}:", f"{clean}@")))
    )


def _uris(run: WarpRun) -> Iterator[tuple[str, str]]:
    """Every place that a run reads or writes, by field."""
    spec = run.spec
    yield "spec.storage.uri", spec.storage.uri
    yield "spec.models.sft.uri", spec.models.sft.uri
    for group, rewards in (("rewards", spec.models.rewards), ("heldOutRewards", spec.models.held_out_rewards)):
        for i, reward in enumerate(rewards):
            if isinstance(reward, CheckpointReward):
                yield f"spec.models.{group}[{i}].uri", reward.uri
    yield "spec.prompts.uri", spec.prompts.uri
    if isinstance(spec.prompts.evaluation_split, SourceSplit):
        yield "spec.prompts.evaluationSplit.uri", spec.prompts.evaluation_split.uri
    if spec.tracking is not None and spec.tracking.type is TrackerType.TENSOR_BOARD and spec.tracking.uri is not None:
        yield "spec.tracking.uri", spec.tracking.uri


def _places(run: WarpRun, tenancy: Tenancy) -> Iterator[Refusal]:
    allowed = ", ".join(tenancy.storage) or "none are"
    message = f"must lie below a storage prefix that namespace {run.metadata.namespace} is allowed ({allowed})"
    for field, uri in _uris(run):
        is_written = field in {"spec.storage.uri", "spec.tracking.uri"}
        if uri.startswith(PUBLIC) and not is_written:
            continue
        if not any(is_below(uri, prefix) for prefix in tenancy.storage):
            yield Refusal(field, uri, message)


def _endpoints(run: WarpRun, tenancy: Tenancy) -> Iterator[Refusal]:
    """Http rewards: workers send prompts and completions there, from inside the cluster's network."""
    models = run.spec.models
    for group, rewards in (("rewards", models.rewards), ("heldOutRewards", models.held_out_rewards)):
        for i, reward in enumerate(rewards):
            if isinstance(reward, HttpReward) and not any(
                prefix == ANY or is_url_below(reward.url, prefix) for prefix in tenancy.reward_urls
            ):
                message = f"must lie below an allowed reward URL ({', '.join(tenancy.reward_urls) or 'none is'})"
                yield Refusal(f"spec.models.{group}[{i}].url", reward.url, message)


def _pod(path: str, pod: PodTemplate, tenancy: Tenancy, config: ControllerConfig) -> Iterator[Refusal]:
    own_images = (config.images.slim, config.images.worker)
    if pod.image and pod.image not in own_images and not any(is_image_of(pod.image, each) for each in tenancy.images):
        yield Refusal(f"{path}.image", pod.image, _one_of("an allowed image", tenancy.images))
    account = pod.service_account_name
    if account and account != config.defaults.service_account and account not in tenancy.service_accounts:
        message = _one_of("an allowed service account", tenancy.service_accounts)
        yield Refusal(f"{path}.serviceAccountName", account, message)
    for i, volume in enumerate(pod.volumes):
        if volume.type not in tenancy.volumes:
            message = _one_of("an allowed volume type", tenancy.volumes)
            yield Refusal(f"{path}.volumes[{i}].type", volume.type, message)
    for field, name, what, allowed in (
        ("priorityClassName", pod.priority_class_name, "an allowed priority class", tenancy.priority_classes),
        ("runtimeClassName", pod.runtime_class_name, "an allowed runtime class", tenancy.runtime_classes),
    ):
        if name and name not in allowed and ANY not in allowed:
            yield Refusal(f"{path}.{field}", name, _one_of(what, allowed))
    if ANY not in tenancy.secrets:
        for field, name in _secrets(path, pod):
            if name not in tenancy.secrets:
                yield Refusal(field, name, _one_of("an allowed Secret", tenancy.secrets))


def _secrets(path: str, pod: PodTemplate) -> Iterator[tuple[str, str]]:
    """Every Secret that a pod names, by field."""
    for i, name in enumerate(pod.env_from_secrets):
        yield f"{path}.envFromSecrets[{i}]", name
    for i, variable in enumerate(pod.env):
        if variable.secret_key_ref is not None:
            yield f"{path}.env[{i}].secretKeyRef.name", variable.secret_key_ref.name
    for i, volume in enumerate(pod.volumes):
        if volume.type == "secret":
            yield f"{path}.volumes[{i}].sourceName", volume.source_name
    for i, name in enumerate(pod.image_pull_secrets):
        yield f"{path}.imagePullSecrets[{i}]", name


def _one_of(what: str, allowed: tuple[str, ...]) -> str:
    return f"must be {what} ({', '.join(allowed) or 'none is'})"
