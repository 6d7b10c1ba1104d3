"""What Argo CD and Flux make of an object, and Prometheus of a query, asked of their own engines: evaluator/ is a Go program around
gopher-lua, Flux's CEL and the parser of PromQL.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.servers.go_programs import build

TOP = Path(__file__).parents[2]
GITOPS = TOP / "manifests" / "gitops"
EVALUATOR = Path(__file__).parent / "evaluator"

Object = dict[str, Any]


def argo_health(obj: Object) -> tuple[str, str]:
    """Argo CD's word for the health of `obj` and its message."""
    found = _ask(tool="Lua", script=_argo("health"), object=obj)
    return found["status"], found["message"]


def argo_actions(obj: Object) -> dict[str, bool]:
    """Name of each action that Argo CD offers, and whether it may be used now."""
    found = _ask(tool="Lua", script=_actions()["discovery.lua"], object=obj)
    return {name: not each["disabled"] for name, each in found.items()}


def argo_act(action: str, obj: Object) -> Object:
    """What `obj` becomes by an action."""
    script = next(each["action.lua"] for each in _actions()["definitions"] if each["name"] == action)
    found: Object = _ask(tool="Lua", script=script, object=obj)
    return found


def flux_status(recipe: str, obj: Object) -> str:
    """Current, InProgress or Failed by flux-<recipe>.yaml; Unknown where an expression cannot be evaluated: Flux asks again."""
    body = YAML(typ="safe").load((GITOPS / f"flux-{recipe}.yaml").read_text())
    (checks,) = body["spec"]["healthCheckExprs"]
    assert (checks["apiVersion"], checks["kind"]) == (obj["apiVersion"], obj["kind"])
    try:
        return str(_ask(tool="Flux", checks=checks, object=obj))
    except ValueError as error:
        if "no such" not in str(error):  # the expression is wrong, not the object
            raise
        return "Unknown"


def kstatus(obj: Object) -> str:
    """What Flux and kubectl's successors say of `obj` without any health check of ours."""
    return str(_ask(tool="Kstatus", object=obj))


def promql_metrics(expression: str) -> set[str]:
    """Names of the metrics that a PromQL expression asks for; ValueError when Prometheus cannot read it."""
    return set(_ask(tool="PromQL", script=expression))


def _argo(kind: str) -> str:
    data = YAML(typ="safe").load((GITOPS / "argocd-cm.yaml").read_text())["data"]
    return str(data[f"resource.customizations.{kind}.warpctl.dev_WarpRun"])


def _actions() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(_argo("actions"))
    return found


def _ask(**question: Any) -> Any:
    done = subprocess.run(
        [program()], input=json.dumps([question]), capture_output=True, text=True, timeout=30, check=True
    )
    (said,) = json.loads(done.stdout)
    if said["error"]:
        raise ValueError(said["error"])
    return said["value"]


@cache
def program() -> Path:
    sources = hashlib.sha256((EVALUATOR / "main.go").read_bytes()).hexdigest()[:16]
    # The cache names programs by what pins them: our own source is part of that.
    return build("gitops-evaluator", ".", module=EVALUATOR, stamp=f"-X main.sources={sources}")
