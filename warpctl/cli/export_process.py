"""Runs the export as a process of its own, so that the command line never loads what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from warpctl.cli.terminal import note
from warpctl.errors import FinalError, UserError
from warpctl.storage.store import Store
from warpctl.workers.export import HUB_SCHEME, RECORD, ExportTask

MODULE = "warpctl.workers.export"
SECONDS_BETWEEN_LINES = 2.0
_IDENTITY = {"sft", "source", "liti_rate", "dtype"}
"""What two exports of the same model share."""


def is_hub(destination: str) -> bool:
    """Whether a model would leave for a hub."""
    return destination.startswith(HUB_SCHEME)


def check_destination(task: ExportTask) -> bool:
    """True when this very model is there already; UserError when something else is."""
    target = Store.open(task.destination)
    record = target.read_or_none(RECORD)
    if record is None:
        if target.list(""):
            raise UserError(
                f"{task.destination} is not empty, and no export of warpctl's",
                hint="name a new folder; nothing is ever overwritten",
            )
        return False
    try:
        found: dict[str, Any] = json.loads(record)
    except ValueError:
        return False
    wanted = task.model_dump(mode="json", by_alias=True, include=_IDENTITY)
    is_same = all(found.get(name) == value for name, value in wanted.items())
    if found.get("isComplete") and not is_same:
        raise UserError(f"{task.destination} holds another exported model", hint="name a new folder")
    return bool(found.get("isComplete"))  # an unfinished export is written anew


def run_export(task: ExportTask) -> str:
    """Spawn the process and show how far it is; FinalError in its words when it fails. Returns a pushed commit's address."""
    # -P: a file of the user's current folder must not shadow a library. stdin: a front is too large for the environment.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    error, last, pushed = {"error": "the export process ended without a word", "hint": ""}, time.monotonic(), ""
    with process:
        try:
            if process.stdin is not None:
                process.stdin.write(task.model_dump_json(by_alias=True))
                process.stdin.close()
            for line in process.stdout or ():
                told = json.loads(line)
                pushed = told.get("pushed", pushed)
                if "error" in told:
                    error = told
                elif "done" in told and time.monotonic() - last > SECONDS_BETWEEN_LINES:
                    last = time.monotonic()
                    note(f"{told['done'] / 1e9:.2f} of {told['total'] / 1e9:.2f} GB")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        again = "" if is_hub(task.destination) else "the unfinished folder is written anew by the same command"
        raise FinalError(error["error"], hint=error["hint"] or again)
    return pushed
