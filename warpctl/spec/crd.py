"""The CustomResourceDefinition of a WarpRun, made from the models: `python -m warpctl.spec.crd > manifests/crd.yaml`.

No defaults: the controller fills them in when it reads, and never writes spec, so that GitOps tools see no drift.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Final

from ruamel.yaml import YAML

from warpctl import names
from warpctl.spec.cluster_status import ClusterStatus
from warpctl.spec.reject import reject_rules
from warpctl.spec.structural import structural_schema
from warpctl.spec.warp_run import NAME_PATTERN, WarpRun, WarpRunSpec

VERSION: Final = "v1alpha1"
NAME: Final = f"warpruns.{names.GROUP}"

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_COLUMNS: Final = (
    # name, type, JSON path, priority (0: always, 1: wide), what it says
    ("Status", "string", f"{_READY}.reason", 0, "Reason of the condition Ready."),
    ("Iter", "string", ".status.iterationText", 0, "Iterations merged, of those wanted."),
    ("Stages", "string", ".status.stagesText", 0, "Stages published, of those known."),
    ("KL", "string", ".status.best.kl", 0, "KL to SFT of the best point, in nats."),
    ("Reward", "string", ".status.best.reward", 0, "Reward of the best point."),
    ("Retries", "integer", ".status.retries", 0, "Attempts that failed by themselves."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created."),
    ("Queue", "string", ".metadata.labels." + names.QUEUE.replace(".", r"\."), 1, "Kueue's queue."),
    ("Storage", "string", ".spec.storage.uri", 1, "The artifact store."),
    ("GPU-h", "string", ".status.gpuHours", 1, "GPU-hours of all attempts."),
    ("Message", "string", f"{_READY}.message", 1, "What the condition Ready says."),
)
_HEAD: Final = "# Made from the models in warpctl/spec by `python -m warpctl.spec.crd`; never edited: make generate.\n"


def crd() -> dict[str, Any]:
    """The definition as an API server takes it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "labels": {names.APP: names.MANAGER}},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "WarpRun",
                "listKind": "WarpRunList",
                "plural": "warpruns",
                "singular": "warprun",
                "shortNames": ["wr"],
                "categories": ["warp"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*each) for each in _COLUMNS],
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }


def schema() -> dict[str, Any]:
    """The structural schema of a WarpRun."""
    status = structural_schema(ClusterStatus, "")
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return {
        "description": " ".join((WarpRun.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 63, "pattern": NAME_PATTERN}},
            },
            "spec": structural_schema(WarpRunSpec, "spec"),
            "status": status,
        },
        "x-kubernetes-validations": reject_rules(),
    }


def crd_yaml() -> str:
    """manifests/crd.yaml."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.width = 120
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel: None by default
    text = io.StringIO()
    writer.dump(crd(), text)
    return _HEAD + text.getvalue()


def _column(name: str, kind: str, path: str, priority: int, words: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": words}
    return column | ({"priority": priority} if priority else {})


if __name__ == "__main__":
    sys.stdout.write(crd_yaml())
