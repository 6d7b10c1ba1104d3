"""The part of a pod that a run may choose: the words are those of Kubernetes, as far as they are allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le
from pydantic import Field, StringConstraints, model_validator

from warpctl.spec.base import Disagreement, SpecModel, refuse
from warpctl.spec.cel import CelRule
from warpctl.spec.quantity import Quantity

ShortText = Annotated[str, StringConstraints(max_length=256)]
EnvName = Annotated[str, StringConstraints(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
VolumeName = Annotated[str, StringConstraints(max_length=50, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
MountPath = Annotated[str, StringConstraints(max_length=256, pattern=r"^/[^:\x00]+$")]


OWN_MOUNTS = ("/tmp", "/dev/shm")  # noqa: S108
"""What every worker's pod mounts already."""
_MOUNT_TAKEN = f"must not be one of {', '.join(OWN_MOUNTS)}, which every worker has"
_VOLUME_TWICE = "must not repeat the name or the mount path of another volume"


class SecretKeyRef(SpecModel):
    """One key of a Secret of the run's namespace."""

    name: ShortText
    """The Secret."""
    key: ShortText
    """Its key."""


class EnvVar(SpecModel):
    """One environment variable of the worker."""

    name: EnvName
    """Its name."""
    value: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Its value, in clear text."""
    secret_key_ref: SecretKeyRef | None = None
    """Where its value is kept, instead of value; a local run leaves such a variable as it finds it."""

    cel = (CelRule("value", "!{+secretKeyRef} || {value} == ''", "must be absent beside secretKeyRef"),)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.value and self.secret_key_ref is not None:
            at, other = ("value",), ("secretKeyRef",)
            refuse("EnvVar", [Disagreement(at, "must be absent beside secretKeyRef", self.value, (at, other))])
        return self

    def as_kubernetes(self) -> dict[str, Any]:
        """As in a container; $(NAME) is no reference here, so a dollar sign is doubled."""
        if self.secret_key_ref is None:
            return {"name": self.name, "value": self.value.replace("$", "$$")}
        reference = {"name": self.secret_key_ref.name, "key": self.secret_key_ref.key}
        return {"name": self.name, "valueFrom": {"secretKeyRef": reference}}


class Toleration(SpecModel):
    """As in a Kubernetes pod."""

    key: ShortText = ""
    """Taint key; empty with operator Exists tolerates every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists or Equal."""
    value: ShortText = ""
    """Taint value, with Equal."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Taint effect; empty means all."""


class Volume(SpecModel):
    """A volume and where it is mounted; the administrator allows types (controller configuration)."""

    name: VolumeName
    """Its name in the pod."""
    mount_path: MountPath
    """Where the worker sees it."""
    type: Literal["persistentVolumeClaim", "configMap", "secret", "emptyDir"]
    """What it is."""
    source_name: ShortText = ""
    """Name of the claim, ConfigMap or Secret; absent for emptyDir."""
    read_only: bool = False
    """Whether the worker may only read it."""
    size_limit: Quantity | None = None
    """Most bytes of an emptyDir."""

    cel = (
        CelRule("mountPath", f"!(self.mountPath in {list(OWN_MOUNTS)})", _MOUNT_TAKEN),
        CelRule("sourceName", "self.type != 'emptyDir' || {sourceName} == ''", "must be absent with type emptyDir"),
        CelRule(
            "sourceName",
            "self.type == 'emptyDir' || {sourceName} != ''",
            "is required unless the type is emptyDir: the name of the claim, ConfigMap or Secret",
        ),
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        found = []
        if self.mount_path in OWN_MOUNTS:
            place = ("mountPath",)
            found.append(Disagreement(place, _MOUNT_TAKEN, self.mount_path, (place,)))
        if bool(self.source_name) == (self.type == "emptyDir"):
            at, other = ("sourceName",), ("type",)
            must = "must be absent" if self.source_name else "is required"
            found.append(Disagreement(at, f"{must} with type {self.type}", self.source_name, (at, other)))
        refuse("Volume", found)
        return self

    def source(self) -> dict[str, Any]:
        """As in a pod's volumes."""
        sources: dict[str, dict[str, Any]] = {
            "persistentVolumeClaim": {"claimName": self.source_name, "readOnly": self.read_only},
            "configMap": {"name": self.source_name},
            "secret": {"secretName": self.source_name},
            "emptyDir": {"sizeLimit": self.size_limit} if self.size_limit else {},
        }
        return {self.type: sources[self.type]}


class LabelRequirement(SpecModel):
    """A condition on a label."""

    key: ShortText
    """Label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared; Gt and Lt for nodes only."""
    values: Annotated[tuple[ShortText, ...], Field(max_length=32)] = ()
    """What it is compared with."""


class NodeTerm(SpecModel):
    """Conditions that a node meets all of."""

    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(min_length=1, max_length=16)]
    """On the node's labels."""
    weight: Annotated[int, Ge(1), Le(100)] | None = None
    """Of a preferred term, against the others."""

    def as_kubernetes(self) -> dict[str, Any]:
        """As a nodeSelectorTerm."""
        return {"matchExpressions": [_dump(each) for each in self.match_expressions]}


class NodeAffinity(SpecModel):
    """Nodes that pods need or prefer."""

    required: Annotated[tuple[NodeTerm, ...], Field(max_length=16)] = ()
    """A node meets at least one of these."""
    preferred: Annotated[tuple[NodeTerm, ...], Field(max_length=16)] = ()
    """Nodes that meet these are taken first."""

    def as_kubernetes(self) -> dict[str, Any]:
        """As in a pod's affinity."""
        found: dict[str, Any] = {}
        if self.required:
            terms = [each.as_kubernetes() for each in self.required]
            found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
        if self.preferred:
            found["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": each.weight or 1, "preference": each.as_kubernetes()} for each in self.preferred
            ]
        return found


class PodTerm(SpecModel):
    """Pods, and the kind of place that counts as one."""

    match_labels: dict[ShortText, ShortText] = Field(min_length=1, max_length=16)
    """Labels of the other pods."""
    topology_key: ShortText
    """Node label whose equal values are one place, such as kubernetes.io/hostname."""
    weight: Annotated[int, Ge(1), Le(100)] | None = None
    """Of a preferred term, against the others."""

    def as_kubernetes(self) -> dict[str, Any]:
        """As a podAffinityTerm."""
        return {"labelSelector": {"matchLabels": dict(self.match_labels)}, "topologyKey": self.topology_key}


class PodAffinity(SpecModel):
    """Pods to be near to, or away from."""

    required: Annotated[tuple[PodTerm, ...], Field(max_length=16)] = ()
    """All of these hold."""
    preferred: Annotated[tuple[PodTerm, ...], Field(max_length=16)] = ()
    """These hold where that is possible."""

    def as_kubernetes(self) -> dict[str, Any]:
        """As in a pod's affinity."""
        found: dict[str, Any] = {}
        if self.required:
            found["requiredDuringSchedulingIgnoredDuringExecution"] = [each.as_kubernetes() for each in self.required]
        if self.preferred:
            found["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": each.weight or 1, "podAffinityTerm": each.as_kubernetes()} for each in self.preferred
            ]
        return found


class Affinity(SpecModel):
    """Where pods go; shorter than in a pod: required and preferred, both while scheduling only."""

    node: NodeAffinity = NodeAffinity()
    """Nodes."""
    pod: PodAffinity = PodAffinity()
    """Pods to be near to."""
    pod_anti: PodAffinity = PodAffinity()
    """Pods to be away from."""

    def as_kubernetes(self) -> dict[str, Any]:
        """As in a pod; {} when nothing is said."""
        parts = {
            "nodeAffinity": self.node.as_kubernetes(),
            "podAffinity": self.pod.as_kubernetes(),
            "podAntiAffinity": self.pod_anti.as_kubernetes(),
        }
        return {name: part for name, part in parts.items() if part}


class PodTemplate(SpecModel):
    """The part of a pod that a run may choose; a local run uses env and ignores the rest, with a warning."""

    image: ShortText | None = None
    """Worker image; null: the controller's default for this stage kind."""
    image_pull_secrets: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """Names of image pull secrets."""
    node_selector: dict[ShortText, ShortText] = Field(default_factory=dict, max_length=32)
    """Node labels to require."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints to tolerate."""
    affinity: Affinity = Affinity()
    """Nodes and pods to be near to or away from."""
    priority_class_name: ShortText | None = None
    """Pod priority class."""
    service_account_name: ShortText | None = None
    """Identity of the worker (workload identity)."""
    runtime_class_name: ShortText | None = None
    """Container runtime class."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables of the worker."""
    env_from_secrets: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """Secrets whose keys become environment variables."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16)] = ()
    """Further volumes."""
    annotations: dict[ShortText, Annotated[str, StringConstraints(max_length=1024)]] = Field(
        default_factory=dict, max_length=32
    )
    """Pod annotations."""

    cel = (
        CelRule(
            "env",
            "!has(self.env) || self.env.all(a, self.env.exists_one(b, a.name == b.name))",
            "must not give a variable twice",
        ),
        CelRule(
            "volumes",
            "!has(self.volumes) || self.volumes.all(a, self.volumes.exists_one(b, a.name == b.name) && "
            "self.volumes.exists_one(b, a.mountPath == b.mountPath))",
            _VOLUME_TWICE,
        ),
    )

    @model_validator(mode="after")
    def _names_each_thing_once(self) -> Self:
        kinds = (
            ("env", "name", [each.name for each in self.env], "must not give a variable twice"),
            ("volumes", "name", [each.name for each in self.volumes], _VOLUME_TWICE),
            ("volumes", "mountPath", [each.mount_path for each in self.volumes], _VOLUME_TWICE),
        )
        found = []
        for group, word, values, message in kinds:
            for index, value in enumerate(values):
                if value in values[:index]:
                    at, other = (group, index, word), (group, values.index(value), word)
                    found.append(Disagreement(at, message, value, (at, other)))
        refuse("PodTemplate", found)
        return self


def _dump(model: SpecModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
