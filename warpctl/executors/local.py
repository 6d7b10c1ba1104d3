"""Runs workers as processes of this machine, so that they outlive the engine and are found again.

One folder an attempt, below the run's state folder:

    attempts/<stage key>/<number>/
        attempt.json    what was started, where, on which GPUs; written before the process
        alive.lock      locked by the process and its children as long as one of them lives
        pid             the process group, written by the process itself
        log.txt         its output
        stop.json       when it was asked to stop, and why
        exit            its exit code, written when it ends

Whether an attempt lives is asked of the lock, not of the pid: a pid can be another program's by now. The lock is inherited by
the worker, so a killed engine leaves neither a false "running" nor an unseen orphan: the next engine on this machine adopts it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warpctl.errors import EXIT_FINAL, EXIT_INTERRUPTED, UserError
from warpctl.executors.places import Machine, Place, find_place
from warpctl.executors.progress import read_progress
from warpctl.plan.actions import Start
from warpctl.plan.observed import Attempt, AttemptState, FailureClass
from warpctl.render.stage_input import stage_input
from warpctl.spec.compute import memory_bytes
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, Resources, StageKind
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.folder_lock import is_locked
from warpctl.storage.store import Store

WORKERS: Mapping[StageKind, str] = {
    StageKind.IMPORT: "warpctl.workers.import_",
    StageKind.RL: "warpctl.workers.rl",
    StageKind.MERGE: "warpctl.workers.merge",
    StageKind.EVALUATE: "warpctl.workers.evaluate",
    StageKind.REPORT: "warpctl.workers.report",
}
GRACE_SECONDS = 60.0
# The shell outlives the worker by one line, to note its exit code; a trapped TERM lets it wait for the worker's saving.
# The folder comes last: "$1" is the folder, the rest is the command.
WRAPPER = """
trap : TERM INT
folder=$1; shift
echo $$ > "$folder/pid.part" && mv "$folder/pid.part" "$folder/pid"
"$@"
echo $? > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
"""
# Lines of telemetry/log.py: time, level, event, fields.
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z \w+ ")
ERROR_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z error ")
ERROR_FIELDS = re.compile(r' error="?(?P<error>.*?)"?(?: hint="?(?P<hint>.*?)"?)?$')
# Workers outlive the executor that started them, on purpose: their handles are kept to be reaped, not to be waited for.
_CHILDREN: list[subprocess.Popen[bytes]] = []
# Credentials of a model hub are for imports alone.
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass
class LocalExecutor:
    """The attempts of one run on this machine."""

    run: WarpRun
    store: Store
    folder: Path
    """State of this run on this machine."""
    machine: Machine
    environment: Mapping[str, str]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    grace_seconds: float = GRACE_SECONDS

    def attempts(self) -> dict[str, tuple[Attempt, ...]]:
        """Every attempt that this machine has a folder of."""
        _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]
        found: dict[str, tuple[Attempt, ...]] = {}
        for stage_folder in sorted((self.folder / "attempts").glob("*")):
            records = {folder: _read(folder / "attempt.json") for folder in stage_folder.iterdir()}
            seen = [self._observe(folder, record) for folder, record in records.items() if record]
            if seen:
                found[stage_folder.name] = tuple(sorted(seen, key=lambda attempt: attempt.number))
        return found

    def start(self, start: Start) -> bool:
        """Start one worker process; False when cores or GPUs are taken."""
        compute = self.run.spec.compute.of(start.stage.kind)
        if compute.gpus > len(self.machine.gpus):
            raise UserError(
                f"spec.compute.{start.stage.kind}.gpus asks for {compute.gpus} GPUs, this machine has "
                f"{len(self.machine.gpus)}",
                hint="lower it, or set CUDA_VISIBLE_DEVICES",
            )
        place = find_place(self.machine, self._taken(), compute)
        if place is None:
            return False
        attempt_id = f"{start.number}-{uuid.uuid4().hex[:12]}"
        folder = self.folder / "attempts" / start.stage.key / f"{start.number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "stageId": start.stage.id,
            "kind": start.stage.kind,
            "number": start.number,
            "attemptId": attempt_id,
            "startedAt": self.now().isoformat(),
            "cores": place.cores,
            "gpus": list(place.gpus),
        }
        _write(folder / "attempt.json", record)
        self._spawn(start, attempt_id, place, folder)
        return True

    def stop(self, attempt: Attempt, reason: str) -> None:
        """SIGTERM to the worker's process group; SIGKILL once its grace is over."""
        folder = self._folder_of(attempt)
        group = _process_group(folder)
        if group is None or not is_locked(folder / "alive.lock"):
            return
        note = _read(folder / "stop.json")
        if note is None:
            # In this order: an engine that dies in between asks again, rather than killing a worker that was never asked.
            _signal(group, signal.SIGTERM)
            _write(folder / "stop.json", {"at": self.now().isoformat(), "reason": reason})
        elif (self.now() - datetime.fromisoformat(note["at"])).total_seconds() > self.grace_seconds:
            _signal(group, signal.SIGKILL)

    def kill(self, attempt: Attempt) -> None:
        """SIGKILL at once: the user asked twice."""
        group = _process_group(self._folder_of(attempt))
        if group is not None and is_locked(self._folder_of(attempt) / "alive.lock"):
            _write(self._folder_of(attempt) / "stop.json", {"at": self.now().isoformat(), "reason": "killed"})
            _signal(group, signal.SIGKILL)

    def forget(self, key: str) -> None:
        """Rename the attempts' folder away; its logs stay on disk."""
        folder = self.folder / "attempts" / key
        if folder.exists():
            target = self.folder / "forgotten" / f"{key}-{uuid.uuid4().hex[:8]}"
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)

    def log_file(self, attempt: Attempt) -> Path:
        """The attempt's log on this machine."""
        return self._folder_of(attempt) / "log.txt"

    def _spawn(self, start: Start, attempt_id: str, place: Place, folder: Path) -> None:
        compute = self.run.spec.compute.of(start.stage.kind)
        resources = Resources(gpus=len(place.gpus), threads=place.cores, memory_bytes=memory_bytes(compute))
        told = stage_input(self.run, start, attempt_id=attempt_id, storage=self.store.root, resources=resources)
        environment = self._worker_environment(start.stage.kind, place)
        environment[ENVIRONMENT_VARIABLE] = told.to_json()
        command = ["/bin/sh", "-c", WRAPPER, "warpctl-worker", str(folder)]
        # -P: a file of the user's current folder must not shadow a library.
        command += [sys.executable, "-P", "-m", WORKERS[start.stage.kind]]
        lock = os.open(folder / "alive.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with (folder / "log.txt").open("ab") as log:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)  # the worker's copy keeps the lock
        _CHILDREN.append(child)

    def _worker_environment(self, kind: StageKind, place: Place) -> dict[str, str]:
        environment = dict(self.environment)
        if kind is not StageKind.IMPORT:
            for name in HUB_TOKENS:
                environment.pop(name, None)
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        threads = str(place.cores)
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
        template = self.run.spec.compute.of(kind).pod_template
        environment |= {each.name: each.value for each in template.env if each.secret_key_ref is None}
        # Whoever runs us under torchrun does not mean that our workers are nodes of one.
        return environment | {"PET_NODE_RANK": "0", "PET_NNODES": "1"}

    def _taken(self) -> list[Place]:
        taken = []
        for lock in (self.folder / "attempts").glob("*/*/alive.lock"):
            record = _read(lock.parent / "attempt.json")
            if record is not None and is_locked(lock):
                taken.append(Place(record["cores"], tuple(record["gpus"])))
        return taken

    def _folder_of(self, attempt: Attempt) -> Path:
        return self.folder / "attempts" / attempt.key / f"{attempt.number:04d}"

    def _observe(self, folder: Path, record: Mapping[str, Any]) -> Attempt:
        # Asked before the exit code is read: the other way round, a worker that ends in between would look vanished.
        is_alive = is_locked(folder / "alive.lock")
        stopping = _read(folder / "stop.json")
        started = datetime.fromisoformat(record["startedAt"])
        attempt = Attempt(
            key=folder.parent.name,
            number=record["number"],
            attempt_id=record["attemptId"],
            state=AttemptState.ACTIVE,
            started_at=started,
            is_stopping=stopping is not None,
            gpu_seconds=len(record["gpus"]) * ((self.now() - started).total_seconds() if is_alive else 0.0),
            progress=read_progress(self.store, record["kind"], folder.parent.name, record["attemptId"])
            if is_alive
            else None,
        )
        return attempt if is_alive else _ended(attempt, folder, record, stopping)


def _ended(attempt: Attempt, folder: Path, record: Mapping[str, Any], stopping: Mapping[str, Any] | None) -> Attempt:
    exit_file = folder / "exit"
    code = int(exit_file.read_text()) if exit_file.exists() else None
    # A killed worker left no exit code: its last sign of life is the newest file.
    last_signs = [exit_file] if code is not None else list(folder.iterdir())
    ended = datetime.fromtimestamp(max(path.stat().st_mtime for path in last_signs), UTC)
    state = AttemptState.COMPLETE if code == 0 else AttemptState.FAILED
    failure = None if code == 0 else _failure_class(code, was_stopped=stopping is not None)
    seconds = (ended - attempt.started_at).total_seconds()
    return Attempt(
        key=attempt.key,
        number=attempt.number,
        attempt_id=attempt.attempt_id,
        state=state,
        started_at=attempt.started_at,
        ended_at=ended,
        failure=failure,
        exit_code=code,
        message="" if failure is None else _message(code, folder / "log.txt", failure),
        is_stopping=attempt.is_stopping,
        gpu_seconds=len(record["gpus"]) * seconds,
    )


def _failure_class(code: int | None, *, was_stopped: bool) -> FailureClass:
    """Exit codes above 128 are 128 + the signal that ended the worker; None: the whole process group has vanished."""
    if code in (EXIT_INTERRUPTED, 128 + signal.SIGTERM) or was_stopped:
        return FailureClass.INTERRUPTED
    if code == EXIT_FINAL:
        return FailureClass.FINAL
    if code is None or code == 128 + signal.SIGKILL:
        return FailureClass.INFRASTRUCTURE
    return FailureClass.APPLICATION


def _message(code: int | None, log: Path, failure: FailureClass) -> str:
    if failure is FailureClass.INTERRUPTED:
        return "it was asked to stop"
    if failure is FailureClass.INFRASTRUCTURE:
        return "its process was killed (out of memory? see `dmesg`), or the machine went down"
    return f"exit code {code}: {_reason(_tail(log))}"


def _reason(log: str) -> str:
    """Why a worker failed, in its own words: the error of its last error line, or the end of a traceback."""
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if ERROR_LINE.match(line)]
    if not errors:
        return lines[-1] if lines and not LOG_LINE.match(lines[-1]) else "it said nothing of an error"
    said = ERROR_FIELDS.search(lines[errors[-1]])
    if said:
        return said["error"] + (f" (hint: {said['hint']})" if said["hint"] else "")
    trace = [line for line in lines[errors[-1] :] if not LOG_LINE.match(line)]
    return trace[-1].strip() if trace else lines[errors[-1]]


def _tail(log: Path) -> str:
    """The last 8 KiB of a log."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return file.read().decode(errors="replace")


def _process_group(folder: Path) -> int | None:
    try:
        return int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _write(path: Path, body: Mapping[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(body))
    part.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """A state file, None when it is absent or was left damaged by a machine that went down."""
    try:
        body = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return body if isinstance(body, dict) else None
