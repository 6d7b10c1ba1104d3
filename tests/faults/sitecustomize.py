"""Kills a process at a chosen store operation, from outside: nothing in warpctl knows of it.

Put this folder on PYTHONPATH and set WARPCTL_TEST_KILLS to a JSON list of
    {"who": "worker" | "engine", "operation": "create_once" | "write" | "open_write" | "delete", "path": regular expression,
     "when": "before" | "after", "done": file}
The first matching process dies by SIGKILL, its process group with it when it is a worker, and leaves `done` behind, so that
each kill happens once.
"""

import contextlib
import json
import os
import re
import signal

KILLS = json.loads(os.environ.get("WARPCTL_TEST_KILLS", "[]"))


def _strike(operation, path, when):
    who = "worker" if "WARPCTL_STAGE_INPUT" in os.environ else "engine"
    for kill in KILLS:
        if (kill["who"], kill["operation"], kill["when"]) != (who, operation, when) or not re.search(
            kill["path"], path
        ):
            continue
        try:
            os.close(os.open(kill["done"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.killpg(0, signal.SIGKILL) if who == "worker" else os.kill(os.getpid(), signal.SIGKILL)


def _install():
    from warpctl.storage.store import Store

    def wrap(name):
        original = getattr(Store, name)

        def patched(self, path, *arguments, **options):
            _strike(name, path, "before")
            result = original(self, path, *arguments, **options)
            _strike(name, path, "after")
            return result

        setattr(Store, name, patched)

    for name in ("create_once", "write", "delete"):
        wrap(name)
    opened = Store.open_write

    @contextlib.contextmanager
    def open_write(self, path):
        _strike("open_write", path, "before")
        with opened(self, path) as sink:
            yield sink
        _strike("open_write", path, "after")

    Store.open_write = open_write


if KILLS:
    _install()
