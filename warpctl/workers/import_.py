"""The import worker: a model or a prompt set, from wherever it is, into the store, checked and by content.

What it does: list the source, choose the files, check them by their headers, copy what earlier attempts have not,
see that the source is still the same, commit. What it leaves out: it never loads weights, runs code, or unpickles.
Everything behind an import builds on the content digest that the manifest gets from the chunks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from warpctl.errors import FinalError
from warpctl.spec.stage_input import ImportTask
from warpctl.workers.harness import Context, run
from warpctl.workers.imports import model_files, prompt_files
from warpctl.workers.imports.copying import Copier
from warpctl.workers.sources.base import Source, retrying
from warpctl.workers.sources.opening import open_source


def main(context: Context) -> None:
    """Import what the stage input names. Raises `InputError` where no retry helps, `RetryableError` where one may."""
    task = context.stage_input.task
    if not isinstance(task, ImportTask):
        raise FinalError(f"the import worker was given a {task.kind} task", hint="report this as a bug of warpctl")

    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            context.stop.raise_if_set()
            time.sleep(min(left, 0.2))

    with contextlib.closing(open_source(task.uri, task.revision, environment=os.environ)) as source:
        _import(context, task, source, wait)


def _import(context: Context, task: ImportTask, source: Source, wait: Callable[[float], None]) -> None:
    log = context.log.bind(source=source.uri)
    listed = retrying(source.files, wait=wait)
    outcome: dict[str, Any] = {"what": task.what, "uri": source.uri, "revision": task.revision}
    if source.pinned_revision:
        outcome["commit"] = source.pinned_revision
    if task.what == "Model":
        files = model_files.select(source, listed, wait=wait)
        summary = model_files.check(source, files, wait=wait)
        outcome |= summary.outcome()
        if summary.has_custom_code:
            log.warning("config.json names Python code of its own, which is not imported and never run")
    else:
        files = prompt_files.select(source, listed)
        prompt_files.check(source, files, wait=wait)
    total = sum(file.size for file in files)
    outcome |= {"numFiles": len(files), "numBytes": total}
    log.info("importing", files=len(files), bytes=total, commit=source.pinned_revision)

    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        context.report_progress(done, total, "bytes")
        context.stop.raise_if_set()

    copier = Copier(source, context.store, context.publication, context.stage_input, wait, on_bytes)
    copier.copy_all(files)
    log.info("copied", files=len(files), adopted=copier.num_adopted, bytes=total)
    context.publication.commit(outcome=outcome, gpu_seconds=context.gpu_seconds())


if __name__ == "__main__":
    run(main)
