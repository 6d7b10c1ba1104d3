"""Commands for a cluster as a user types them: the real program, with the kubeconfig and namespace of a test's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.cluster.controllers import Place
from warpctl.kube.resources import WARPRUNS


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def call(place: Place, *arguments: str, kubeconfig: Path | None = None) -> Said:
    """Run `warpctl`; a command that looks at runs looks into the cluster, because a namespace is given."""
    options = ["--kubeconfig", str(kubeconfig or place.kubeconfig), "--namespace", place.namespace]
    command = [*command_line(*arguments), *options]
    return Said(
        subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment(place, is_set=False)
        )
    )


def command_line(*arguments: str) -> list[str]:
    """The program by the interpreter of the tests."""
    return [sys.executable, "-m", "warpctl", *arguments]


def environment(place: Place, *, is_set: bool = True) -> dict[str, str]:
    """Without colours, with the place's kubeconfig and namespace as a user's own where `is_set`."""
    others = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    own = {"KUBECONFIG": str(_own_kubeconfig(place))} if is_set else {}
    return others | {"NO_COLOR": "1"} | own


def _own_kubeconfig(place: Place) -> Path:
    """With the place's namespace in its context."""
    content = YAML(typ="safe").load(place.kubeconfig)
    for each in content["contexts"]:
        each["context"]["namespace"] = place.namespace
    path = place.folder / "own.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    return path


def spec_file(place: Place, name: str = "demo", **changes: object) -> str:
    """A file with the place's spec."""
    path = place.folder / f"{name}.yaml"
    body = {
        "apiVersion": WARPRUNS.api_version,
        "kind": "WarpRun",
        "metadata": {"name": name},
        "spec": place.spec(**changes),
    }
    path.write_text(json.dumps(body))
    return str(path)
