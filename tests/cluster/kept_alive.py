"""What a Deployment does for a controller: one that ends is started again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Self

from tests.cluster.controllers import ControllerProcess


@dataclass
class KeptAlive:
    """Context manager around a controller that runs."""

    controller: ControllerProcess
    codes: list[int] = field(default_factory=list)
    """Exit codes so far."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            process = self.controller.process
            assert process is not None
            if process.poll() is not None:
                self.codes.append(process.returncode)
                self.controller.start()
