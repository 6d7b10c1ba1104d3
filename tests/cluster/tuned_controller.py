"""The `warpctl` command with figures that no flag gives, and with a wall clock that a test may turn while it runs.

    python -m tests.cluster.tuned_controller TUNING.json controller --namespace ...

TUNING.json: {"options": {"silence_seconds": 5}, "patience_seconds": 5, "ttl_seconds": 1, "clock": "/a/file/that/holds/seconds"},
each of them optional.
The clock is shifted before anything of warpctl is imported, for the whole process: the seconds in the file are added to what
time.time and datetime say. The monotonic clock goes on as it does on a machine whose time is set.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

_datetime = dt.datetime
_time = time.time


def shift_clock(file: Path) -> None:
    """From now on time.time and datetime.now are off by the seconds in `file`, as it stands at each call."""

    def shifted_time() -> float:
        return _time() + float(file.read_text())

    class Kind(type):
        """What C makes is a datetime of the original class: that is one of ours too."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, _datetime)

    class Shifted(_datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(shifted_time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(shifted_time(), dt.UTC).replace(tzinfo=None)

    time.time = shifted_time
    dt.datetime = Shifted


def tune(tuning: dict[str, Any]) -> None:
    """Change what the controller's wiring takes: its options, and what the configuration's bounds would refuse."""
    from warpctl.cli import controller as command
    from warpctl.controller import main
    from warpctl.kube import connection

    main.Options = functools.partial(main.Options, **tuning.get("options", {}))
    if "patience_seconds" in tuning:
        connection.Api = functools.partial(connection.Api, patience_seconds=tuning["patience_seconds"])
    if "ttl_seconds" in tuning:
        load = command.load_config

        def load_short_lived(path: str) -> Any:
            config = load(path)
            short = config.defaults.model_copy(update={"ttl_seconds": tuning["ttl_seconds"]})
            return config.model_copy(update={"defaults": short})

        command.load_config = load_short_lived


def run() -> None:
    tuning = json.loads(Path(sys.argv.pop(1)).read_text())
    if "clock" in tuning:
        shift_clock(Path(tuning["clock"]))
    tune(tuning)

    from warpctl.cli.main import main

    main()


if __name__ == "__main__":
    run()
