"""Controllers as processes of their own, so that they can be killed, stopped for a while, and started twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.cluster.stand_in_workers import WAITS
from tests.cluster.status_history import StatusHistory
from warpctl import names
from warpctl.kube.api import Api, Object
from warpctl.kube.resources import JOBS, WARPRUNS

ROOT = Path(__file__).parents[2]
KINDS = ("import", "rl", "merge", "evaluate", "report")


@dataclass
class ControllerProcess:
    """One `warpctl controller` for one namespace."""

    kubeconfig: Path
    namespace: str
    config: Path
    log: Path
    options: tuple[str, ...] = ()
    tuning: Path | None = None
    """For tuned_controller.py."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> ControllerProcess:
        program = ["warpctl"] if self.tuning is None else ["tests.cluster.tuned_controller", str(self.tuning)]
        command = [sys.executable, "-m", *program, "controller", "--kubeconfig", str(self.kubeconfig)]
        command += ["--namespace", self.namespace, "--config", str(self.config), "--port", "0", *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | _environment_of_deployment(),
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a node that loses power."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        return self.process.wait(40)

    def said(self) -> str:
        return self.log.read_text()


def _environment_of_deployment() -> dict[str, str]:
    """What the Deployment sets, so that memory is measured as it will be."""
    deployment = YAML(typ="safe").load(ROOT / "manifests" / "base" / "deployment.yaml")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each["value"] for each in container["env"] if each["name"] != "HOME"}


@dataclass
class Place:
    """A namespace, a store and a configuration that allows the store."""

    api: Api
    kubeconfig: Path
    namespace: str
    folder: Path
    config_body: dict[str, Any] = field(default_factory=dict)
    controllers: list[ControllerProcess] = field(default_factory=list)
    history: StatusHistory = field(init=False)
    """Every status of every run here."""

    @property
    def store(self) -> str:
        return f"file://{self.folder}/store"

    def controller(
        self, *options: str, kubeconfig: Path | None = None, tuning: dict[str, Any] | None = None
    ) -> ControllerProcess:
        """Start a controller; `tuning` as tuned_controller.py takes it."""
        config = self.folder / "config.yaml"
        body = {
            "progressSeconds": 1,
            "tenancy": [{"storage": [f"file://{self.folder}"]}],
            "defaults": {"cpu": "10m", "memory": "16Mi"},
            **self.config_body,
        }
        config.write_text(json.dumps(body))
        log = self.folder / f"controller-{len(self.controllers)}.log"
        tuned = None
        if tuning is not None:
            tuned = log.with_suffix(".tuning.json")
            tuned.write_text(json.dumps(tuning))
        made = ControllerProcess(kubeconfig or self.kubeconfig, self.namespace, config, log, options, tuned)
        self.controllers.append(made)
        return made.start()

    def end(self) -> None:
        for each in self.controllers:
            if each.process is not None and each.process.poll() is None:
                each.signal(signal.SIGKILL)
                each.process.wait(10)

    def spec(self, **changes: Any) -> dict[str, Any]:
        """A small spec whose pods wait for their stand-ins."""
        template = {"podTemplate": {"annotations": WAITS}}
        return {
            "storage": {"uri": self.store},
            "models": {
                "sft": {"uri": f"file://{self.folder}/sft"},
                "rewards": [{"type": "Function", "name": "judge", "function": "a.b:c", "revision": "1"}],
            },
            "prompts": {"uri": f"file://{self.folder}/prompts", "evaluationSplit": {"type": "HeldOut", "count": 8}},
            "iterations": 2,
            "rlRuns": 2,
            "training": {"steps": [10], "batchSize": 8},
            "compute": dict.fromkeys(KINDS, template),
            "retry": {"backoffSeconds": 0},
            **changes,
        }

    def create(self, name: str = "demo", *, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        return self.api.create(
            WARPRUNS,
            self.namespace,
            {
                "apiVersion": WARPRUNS.api_version,
                "kind": WARPRUNS.kind,
                "metadata": {"name": name, "annotations": annotations or {}},
                "spec": self.spec(**spec),
            },
        )

    def get(self, name: str = "demo") -> Object:
        found = self.api.get(WARPRUNS, self.namespace, name)
        assert found is not None
        return found

    def patch(self, body: dict[str, Any], name: str = "demo") -> Object:
        return self.api.patch(WARPRUNS, self.namespace, name, body)

    def jobs(self) -> list[Object]:
        return self.api.list(JOBS, self.namespace).items

    def jobs_by_stage(self) -> dict[str, int]:
        """Stage id -> Jobs of it that are there."""
        found: dict[str, int] = {}
        for job in self.jobs():
            stage = job["metadata"]["annotations"][names.STAGE_ID]
            found[stage] = found.get(stage, 0) + 1
        return found

    def condition(self, kind: str, name: str = "demo") -> dict[str, Any]:
        status = self.get(name).get("status", {})
        return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})

    def wait(self, is_true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
        """Until `is_true`; the controllers' last words are told when it never is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if is_true():
                return
            time.sleep(0.05)
        said = "\n".join(each.said()[-3000:] for each in self.controllers)
        jobs = {job["metadata"]["name"]: job.get("status", {}) for job in self.jobs()}
        raise AssertionError(f"not within {seconds} s: {what}\n{said}\n{json.dumps(jobs, indent=1)[-3000:]}")

    def wait_for(self, kind: str, name: str = "demo", seconds: float = 90.0) -> dict[str, Any]:
        """Until a condition is True; returns it."""
        self.wait(lambda: self.condition(kind, name).get("status") == "True", f"{name} {kind}", seconds)
        return self.condition(kind, name)
