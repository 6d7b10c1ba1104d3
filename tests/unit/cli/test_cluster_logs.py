"""Which pods `warpctl logs` reads, and how it marks their lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.builders.starts import UID, starts
from tests.builders.world import a_run
from warpctl import artifacts, names
from warpctl.cli.cluster_logs import PodLog, _Stream, print_pods
from warpctl.cli.cluster_run import as_cluster_run
from warpctl.cli.log_sources import Wanted
from warpctl.errors import UserError
from warpctl.executors.job_facts import pod_facts
from warpctl.kube.api import Listed, Object
from warpctl.kube.clock import ServerClock
from warpctl.kube.connection import Connection
from warpctl.kube.errors import ClusterUnavailableError
from warpctl.kube.resources import JOBS, PODS, Resource
from warpctl.render.job import render_job
from warpctl.spec.controller_config import ControllerConfig
from warpctl.storage.store import Store

STAGE = "import/sft"
AT = "2026-11-21T12:00:00Z"


class TwoNodes:
    """An API server where one stage has had two attempts of two pods each; pods say who they are."""

    def __init__(self, run: Any) -> None:
        self.clock, self.looks = ServerClock(), 0
        self.jobs, self.pods, self.asked = [], [], []
        config = ControllerConfig.model_validate({"images": {"slim": "slim:1", "worker": "worker:1"}})
        for number in (1, 2):
            start = starts(run, number=number)[STAGE]
            job = render_job(run, start, storage=Store.open(run.spec.storage.uri).root, uid=UID, config=config)
            uid = f"job-{number}"
            job["metadata"] |= {"uid": uid, "creationTimestamp": AT, "resourceVersion": "1"}
            job["metadata"]["namespace"] = run.metadata.namespace
            self.jobs.append(job)
            self.pods += [self._pod(job["metadata"]["name"], uid, run.metadata.namespace, index) for index in (0, 1)]

    def _pod(self, job: str, uid: str, namespace: str, index: int) -> Object:
        labels = {names.JOB_UID_LABEL: uid, names.INDEX_LABEL: str(index)}
        metadata = {"name": f"{job}-{index}", "namespace": namespace, "uid": f"{uid}-{index}", "labels": labels}
        running = [{"state": {"running": {"startedAt": AT}}}]
        metadata |= {"creationTimestamp": AT, "resourceVersion": "1"}
        return {"metadata": metadata, "status": {"containerStatuses": running}}

    def list(self, resource: Resource, namespace: str, *, labels: str) -> Listed:
        return Listed({JOBS: self.jobs, PODS: self.pods}[resource], "1")

    def text(self, path: str, *, query: Mapping[str, str], what: str) -> str:
        return f"log of {path.split('/')[-2]}\n"

    def lines(self, path: str, *, query: Mapping[str, str], what: str, silence_seconds: float) -> Iterator[str]:
        """The first connection breaks after two lines, others end at what is written; a stamp's second is asked for again."""
        stamps = [f"2026-11-21T12:00:0{second}.000000000Z" for second in (1, 1, 2, 3, 4)]
        stamps[1] = stamps[1].replace(".0", ".5")
        since = query.get("sinceTime", "")
        self.asked.append(since)
        for number, stamp in enumerate(stamps):
            if stamp[:19] < since[:19]:
                continue
            if len(self.asked) == 1 and number == 2:
                raise ClusterUnavailableError("the connection broke")
            if number >= 3 + self.looks:
                return
            yield f"{stamp} line {number}"

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """It ends after it has been asked for twice."""
        assert resource is PODS
        self.looks += 1
        pod = next(each for each in self.pods if each["metadata"]["name"] == name)
        state = {"running": {"startedAt": AT}} if self.looks < 2 else {"terminated": {"exitCode": 0, "startedAt": AT}}
        return pod | {"status": {"containerStatuses": [{"state": state}]}}

    def server_time(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Prints the logs of the import: (wanted, node) -> lines."""
    compute = {"import": {"nodes": 2}}
    run = a_run(storage={"uri": str(tmp_path / "store")}, compute=compute)
    body = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    body["metadata"] |= {"uid": UID, "resourceVersion": "1", "generation": 1}
    reference = as_cluster_run(Connection(TwoNodes(run), run.metadata.namespace), body, str(tmp_path / "state"))

    def show(node: int = -1, *, is_followed: bool = False, is_gone: bool = False, **wanted: Any) -> list[str]:
        if is_gone:
            reference.connection.api.jobs.clear()
            stage = starts(run)[STAGE].stage
            for number in (1, 2):
                path = artifacts.log(stage.kind, stage.key, f"{number}-job-0-pod")
                reference.store.write(path, f"stored log of attempt {number}\n".encode())
        if is_followed:
            pod = pod_facts(reference.connection.api.pods[0])
            _Stream(reference, PodLog(STAGE, pod), has_prefix=False).thread.join()
            return capsys.readouterr().out.splitlines()
        print_pods(reference, Wanted(**{"stage": STAGE, "is_previous": False, "number": 0} | wanted), node)
        return capsys.readouterr().out.splitlines()

    return show


def test_every_node_of_the_newest_attempt_is_marked_by_its_index(shown) -> None:
    first, second = shown()

    assert first.startswith(f"{STAGE}#0 | log of ")
    assert first.endswith("-a2-0")
    assert second.startswith(f"{STAGE}#1 | log of ")
    assert second.endswith("-a2-1")


def test_one_node_of_an_earlier_attempt_is_shown_as_it_is(shown) -> None:
    assert [line.endswith("-a1-1") for line in shown(1, is_previous=True)] == [True]
    assert shown(1, is_previous=True) == shown(1, number=1)


def test_a_node_that_is_not_there_has_no_log(shown) -> None:
    with pytest.raises(UserError, match="there is no log of import/sft yet"):
        shown(2)


def test_a_log_that_is_followed_goes_on_after_its_connection_broke_or_ended_and_says_nothing_twice(shown) -> None:
    assert shown(is_followed=True) == ["line 0", "line 1", "line 2", "line 3", "line 4"]


def test_logs_of_attempts_whose_pods_have_gone_come_from_the_store(shown) -> None:
    assert shown(is_gone=True, is_previous=True) == ["stored log of attempt 1"]
    assert shown(is_gone=True, number=2) == ["stored log of attempt 2"]
    with pytest.raises(UserError, match="there is no log of attempt 3 of import/sft yet"):
        shown(is_gone=True, number=3)
