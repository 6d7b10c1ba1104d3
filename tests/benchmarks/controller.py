"""The controller under many live runs, on a real API server with KWOK's nodes: `make bench-controller`.

N WarpRuns of 8 stages each are created at once; stand-ins publish and end their pods, so all stages follow one another as they would.
RL stages are held until every run has its own, which is when N runs are live; then everything goes on to the end. Beside it, as the
limit of the API: a plain loop of the official client that creates as many Jobs of the same bodies, while the same cluster is as busy
with their pods. docs/benchmarks.md tells how to read the figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import kubernetes

from tests.cluster.controllers import ControllerProcess, Place
from tests.cluster.crd import install_crd
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.namespaces import create_namespace
from tests.cluster.stand_in_workers import End, StandInWorkers, told_to
from warpctl import names
from warpctl.kube.api import Api, Object
from warpctl.kube.reflector import Reflector
from warpctl.kube.resources import JOBS, PODS, WARPRUNS
from warpctl.spec.stage_input import StageInput

STAGES = 8
"""Two imports, three RL runs, merge, evaluation, report."""
IDLE_SECONDS = 60.0
LATE_RUNS = 50
METRIC = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrape:
    """The controller's metrics at one moment, and what its process has used."""

    passes: float
    requests: float
    buckets: dict[float, float]
    """Upper bound in seconds -> passes of at most that, requests not counted."""
    cpu_seconds: float
    peak_rss_mib: float
    at: float


@dataclass
class Crowd:
    """N runs in a namespace of their own, and the controller that drives them."""

    cluster: ApiCluster
    size: int
    folder: Path
    idle_seconds: float
    place: Place = field(init=False)
    controller: ControllerProcess = field(init=False)
    release: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        namespace = f"crowd-{self.size}"
        create_namespace(kubernetes.client.CoreV1Api(self.cluster.client()), namespace)
        home = self.folder / namespace
        home.mkdir()
        self.place = Place(Api(self.cluster.client()), self.cluster.kubeconfig, namespace, home)
        self.place.config_body = {"progressSeconds": 30, "workers": 8}

    def spec(self, number: int) -> dict[str, Any]:
        """Nothing is shared: every run has imports, a seed and so stages of its own."""
        spec = self.place.spec(iterations=1, rlRuns=3, seed=number)
        spec["models"]["sft"]["uri"] += f"-{number}"
        spec["prompts"]["uri"] += f"-{number}"
        return spec

    def create(self, number: int) -> Object:
        name = f"run-{number}"
        body = {"apiVersion": WARPRUNS.api_version, "kind": WARPRUNS.kind, "metadata": {"name": name}}
        return self.place.api.create(WARPRUNS, self.place.namespace, body | {"spec": self.spec(number)})

    def measure(self, *, is_largest: bool) -> dict[str, Any]:
        """All figures of this size; latency, failover and the plain loop only where `is_largest`."""
        figures: dict[str, Any] = {"runs": self.size}
        self.controller = self.place.controller()
        self._until(lambda: " leading " in self.controller.said(), "the controller leads")
        with StandInWorkers(Api(self.cluster.client()), self.place.namespace, decide=self._decide) as workers:
            first = self.scrape()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(self.create, range(self.size)))
            figures["create_s"] = time.monotonic() - first.at
            self._until(lambda: self._num_training(workers) >= 3 * self.size, "every run trains")
            live = self.scrape()
            self._settle()
            figures |= self._idle()
            if is_largest:
                figures["new_run_to_first_job_s"] = self._latencies()
                self._until(lambda: self._num_training(workers) >= 3 * (self.size + LATE_RUNS), "late runs train")
            held = self._publish_held(workers)
            self.release.set()
            again = self.scrape()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda pod: workers.finish(pod, End()), held))
            total = self.size + (LATE_RUNS if is_largest else 0)
            self._until(lambda: self._num_succeeded() >= total, "every run has succeeded")
            last = self.scrape()
        jobs = self._jobs()
        work = (live.at - first.at) + (last.at - again.at)
        passes = {
            bound: (live.buckets[bound] - first.buckets[bound]) + (last.buckets[bound] - again.buckets[bound])
            for bound in last.buckets
        }
        figures |= {
            "jobs": len(jobs),
            "duplicate_jobs": self._num_duplicates(STAGES * total),
            "work_s": work,
            # Late runs have three of their stages behind the second mark.
            "jobs_per_s": (5 * self.size + 3 * total) / work,
            "reconcile_p50_ms": 1000 * _quantile(passes, 0.5),
            "reconcile_p99_ms": 1000 * _quantile(passes, 0.99),
            "controller_cpu_share": (live.cpu_seconds - first.cpu_seconds + last.cpu_seconds - again.cpu_seconds)
            / work,
            "rss_mib": last.peak_rss_mib,
        }
        if is_largest:
            figures |= self._failover()
            # The successor has listed everything at once.
            figures["rss_mib"] = max(figures["rss_mib"], self.scrape().peak_rss_mib)
            figures["plain_loop_jobs_per_s"] = self._plain_loop(jobs)
        self.place.end()
        return figures

    def scrape(self) -> Scrape:
        port = re.search(r" port=(\d+)", self.controller.said())
        assert port is not None, self.controller.said()
        with urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        values = [(name, labels or "", float(value)) for name, labels, value in METRIC.findall(text)]
        name = "warpctl_reconcile_own_seconds"
        buckets = {
            float(labels.split('"')[1].replace("+Inf", "inf")): value
            for each, labels, value in values
            if each == f"{name}_bucket"
        }
        process = self.controller.process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return Scrape(
            passes=sum(value for each, _, value in values if each == "warpctl_reconcile_total"),
            requests=sum(
                value
                for each, labels, value in values
                if each == "warpctl_api_requests_total" and "leases" not in labels
            ),
            buckets=buckets,
            cpu_seconds=(int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
            peak_rss_mib=int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024,
            at=time.monotonic(),
        )

    def _decide(self, told: StageInput, number: int) -> End | None:
        return None if told.kind == "rl" and not self.release.is_set() else End()

    def _settle(self) -> None:
        """Until the last status is written: no request for three seconds, at most half a minute."""
        until, quiet, last = time.monotonic() + 30, time.monotonic(), -1.0
        while time.monotonic() < until and time.monotonic() - quiet < 3:
            seen = self.scrape().requests
            if seen != last:
                quiet, last = time.monotonic(), seen
            time.sleep(0.5)

    def _idle(self) -> dict[str, float]:
        """Nothing changes: what does the controller do all the same? Watches that begin anew in these seconds are counted too."""
        before = self.scrape()
        time.sleep(self.idle_seconds)
        after = self.scrape()
        passes = after.passes - before.passes
        return {
            "idle_passes_per_s": passes / (after.at - before.at),
            "idle_requests_per_reconcile": (after.requests - before.requests) / max(1.0, passes),
            "idle_cpu_share": (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at),
        }

    def _latencies(self) -> list[float]:
        """From asking for a run to the first Job of it that a watch tells of, one run after the other, among all the others."""
        seen: dict[str, float] = {}
        api = Api(self.cluster.client())

        def note(before: str | None, after: str | None) -> None:
            if before is None and after is not None:
                seen.setdefault(after, time.monotonic())

        jobs = Reflector(
            api, JOBS, lambda job: str(job["metadata"]["labels"]["warpctl.dev/run"]), note, self.place.namespace
        )
        stop = threading.Event()
        watch = threading.Thread(target=jobs.run, args=(stop,), daemon=True)
        watch.start()
        jobs.is_synced.wait(60)
        found = []
        for number in range(self.size, self.size + LATE_RUNS):
            began = time.monotonic()
            name = self.create(number)["metadata"]["name"]
            self._until(lambda name=name: name in seen, "a Job", 0.005)
            found.append(seen[name] - began)
        stop.set()
        api.close()
        watch.join()
        return found

    def _failover(self) -> dict[str, float]:
        """From the end of the leader to the lead of another that waits, after SIGKILL and after SIGTERM."""
        found = {}
        for how, end in (("killed", ControllerProcess.kill), ("asked", ControllerProcess.stop)):
            waiting = self.place.controller()
            self._until(lambda waiting=waiting: "started" in waiting.said(), "the other has started")
            time.sleep(3)
            began = time.monotonic()
            end(self.controller)
            self._until(lambda waiting=waiting: " leading " in waiting.said(), "the other leads", 0.02)
            found[f"failover_{how}_s"] = time.monotonic() - began
            self.controller = waiting
        return found

    def _plain_loop(self, jobs: list[Object]) -> float:
        """Jobs a second of the official client, one thread, the same bodies, all their pods running at once."""
        batch = kubernetes.client.BatchV1Api(self.cluster.client())
        bodies = []
        for number, job in enumerate(jobs[: STAGES * self.size]):
            body = copy.deepcopy({"apiVersion": JOBS.api_version, "kind": JOBS.kind, "spec": job["spec"]})
            body["metadata"] = {
                "name": f"plain-{number}",
                "labels": job["metadata"]["labels"],
                "annotations": job["metadata"]["annotations"],
            }
            for part in ("selector", "ttlSecondsAfterFinished"):
                body["spec"].pop(part, None)
            labels = body["spec"]["template"]["metadata"]["labels"]
            body["spec"]["template"]["metadata"]["labels"] = {
                name: value for name, value in labels.items() if "job-name" not in name and "controller-uid" not in name
            }
            bodies.append(body)
        namespace = f"{self.place.namespace}-plain"
        create_namespace(kubernetes.client.CoreV1Api(self.cluster.client()), namespace)
        began = time.monotonic()
        for body in bodies:
            batch.create_namespaced_job(namespace, body)
        return len(bodies) / (time.monotonic() - began)

    def _jobs(self) -> list[Object]:
        return self.place.api.list(JOBS, self.place.namespace).items

    def _num_duplicates(self, wanted: int) -> int:
        """Jobs that the controller has created, as the API server has written them down, less the stages that there are."""
        created = []
        with (self.cluster.state / "audit.log").open() as lines:
            for line in lines:
                if '"verb":"create"' in line and '"resource":"jobs"' in line and '"code":201' in line:
                    reference = json.loads(line)["objectRef"]
                    if reference["namespace"] == self.place.namespace:
                        created.append(reference["name"])
        stages = {name.rpartition("-a")[0] for name in created}
        if len(stages) != wanted:
            raise RuntimeError(f"{len(stages)} stages have had Jobs, not {wanted}")
        return len(created) - len(stages)

    def _num_training(self, workers: StandInWorkers) -> int:
        return sum(stage.startswith("rl/") for stage in list(workers.stages.values()))

    def _publish_held(self, workers: StandInWorkers) -> list[str]:
        """Leave in the store what the held pods would; their names."""
        pods = self.place.api.list(PODS, self.place.namespace, labels=f"{names.KIND}=rl").items
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda pod: workers.publish(told_to(pod)), running))
        return [pod["metadata"]["name"] for pod in running]

    def _num_succeeded(self) -> int:
        time.sleep(0.5)  # a list of a thousand runs is work for the server too
        runs = self.place.api.list(WARPRUNS, self.place.namespace).items
        conditions = [each for run in runs for each in run.get("status", {}).get("conditions", ())]
        return sum(each["type"] == "Succeeded" and each["status"] == "True" for each in conditions)

    def _until(self, is_true: Callable[[], object], what: str, pause: float = 0.1) -> None:
        until = time.monotonic() + 1500
        while not is_true():
            if time.monotonic() > until:
                raise RuntimeError(f"{self.size} runs: waited in vain until {what}\n{self.controller.said()[-3000:]}")
            time.sleep(pause)


def _quantile(buckets: dict[float, float], share: float) -> float:
    """Linear within the bucket, as Prometheus' histogram_quantile."""
    total = max(buckets.values())
    below, lower = 0.0, 0.0
    for upper in sorted(buckets):
        if buckets[upper] >= share * total:
            if upper == float("inf"):
                return lower
            inside = buckets[upper] - below
            return lower + (upper - lower) * ((share * total - below) / inside if inside else 1.0)
        below, lower = buckets[upper], upper
    return lower


def _highest(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed; with few values the largest."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run(sizes: list[int], idle_seconds: float) -> dict[str, Any]:
    """All sizes, the largest last; returns the figures."""
    folder = Path(tempfile.mkdtemp(prefix="bench-controller-"))
    found = []
    try:
        for size in sizes:
            # A cluster of its own for each: etcd and the API server must not remember the smaller ones.
            with ApiCluster() as cluster:
                install_crd(cluster)
                print(f"{size} runs ...", file=sys.stderr, flush=True)
                found.append(Crowd(cluster, size, folder, idle_seconds).measure(is_largest=size == sizes[-1]))
    finally:
        shutil.rmtree(folder)
    return summary(found)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The table's figures and those that the last line has; growth is between the two largest sizes, 1 is linear."""
    largest, smaller = found[-1], found[-2] if len(found) > 1 else found[-1]
    growth = (largest["work_s"] / largest["runs"]) / (smaller["work_s"] / smaller["runs"])
    latencies = largest["new_run_to_first_job_s"]
    return {
        "rss_mib": round(largest["rss_mib"], 1),
        "idle_requests_per_reconcile": round(largest["idle_requests_per_reconcile"], 3),
        "duplicate_jobs": sum(each["duplicate_jobs"] for each in found),
        "jobs_per_s": round(largest["jobs_per_s"], 1),
        "jobs_per_s_over_plain_loop": round(largest["jobs_per_s"] / largest["plain_loop_jobs_per_s"], 3),
        "reconcile_p99_ms": round(largest["reconcile_p99_ms"], 1),
        "new_run_to_first_job_p99_s": round(_highest(latencies, 0.99), 3),
        # Work per run of the largest size over that of the one before: 1 is linear.
        "growth_100_to_1000": round(growth, 2),
        "sizes": found,
    }


def table(figures: dict[str, Any]) -> str:
    """One row a figure, one column a size."""
    rows = [
        "create_s",
        "work_s",
        "jobs_per_s",
        "reconcile_p50_ms",
        "reconcile_p99_ms",
        "rss_mib",
        "controller_cpu_share",
    ]
    rows += ["idle_passes_per_s", "idle_requests_per_reconcile", "idle_cpu_share", "duplicate_jobs"]
    rows += ["failover_killed_s", "failover_asked_s", "plain_loop_jobs_per_s"]
    sizes = figures["sizes"]
    lines = [
        f"load average at the end: {os.getloadavg()[0]:.1f}",
        "".join([f"{'runs':30}", *(f"{each['runs']:>12}" for each in sizes)]),
    ]
    for row in rows:
        cells = [f"{each[row]:>12.3f}" if row in each else f"{'-':>12}" for each in sizes]
        lines.append("".join([f"{row:30}", *cells]))
    latencies = sizes[-1]["new_run_to_first_job_s"]
    lines.append(
        f"new run to first Job, {len(latencies)} runs: median {_highest(latencies, 0.5):.3f} s, longest {max(latencies):.3f} s"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="10,100,1000", help="sizes, the largest last")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    given = parser.parse_args()
    figures = run([int(size) for size in given.runs.split(",")], given.idle_seconds)
    print(table(figures))
    print(json.dumps({name: value for name, value in figures.items() if name != "sizes"}), flush=True)


if __name__ == "__main__":
    main()
