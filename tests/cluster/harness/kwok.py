"""Nodes and pods that KWOK plays: real objects, real Job controller and scheduler, no containers.

A pod of a Job runs at once and succeeds at once, unless its annotations (put them into the pod template) say otherwise:

    kwok.warpctl.dev/exit-code   "42"                how its containers end; not 0: the pod fails
    kwok.warpctl.dev/reason      "OOMKilled"         the reason of the terminated containers; Completed or Error
    kwok.warpctl.dev/message     "..."               their termination message
    kwok.warpctl.dev/delay       "1.5s"              how long they run
    kwok.warpctl.dev/finish      "never"             they run until the pod is deleted (or its status is patched by a test)
    kwok.warpctl.dev/waiting     "ImagePullBackOff"  they never start, for this reason
    kwok.warpctl.dev/termination "1s"                how long a deleted pod takes to go away

A test that changes these of a living pod is heeded: take `finish` away, and the pod ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PREFIX = "kwok.warpctl.dev"
STAGES = Path(__file__).parent / "stages.yaml"


def kwok_annotations(
    *,
    exit_code: int = 0,
    reason: str = "",
    message: str = "",
    delay_seconds: float = 0.0,
    never_finish: bool = False,
    waiting: str = "",
    termination_seconds: float = 0.0,
) -> dict[str, str]:
    """Annotations for a pod template."""
    values = {
        "exit-code": str(exit_code) if exit_code else "",
        "reason": reason,
        "message": message,
        "delay": f"{delay_seconds}s" if delay_seconds else "",
        "finish": "never" if never_finish else "",
        "waiting": waiting,
        "termination": f"{termination_seconds}s" if termination_seconds else "",
    }
    return {f"{PREFIX}/{name}": value for name, value in values.items() if value}


def kwok_node(name: str, *, cpu: str = "1k", memory: str = "4Ti", pods: str = "100k", gpus: int = 0) -> dict[str, Any]:
    """A Node object which KWOK keeps ready."""
    capacity = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Ti"}
    if gpus:
        capacity["nvidia.com/gpu"] = str(gpus)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"},
        },
        "status": {"allocatable": capacity, "capacity": capacity},
    }
