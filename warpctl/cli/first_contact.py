"""Opens the store of a command: one that cannot be reached at all is told of within seconds, not after minutes of patience."""

from __future__ import annotations

import threading

from warpctl.cli.store_patience import tell_of_retries
from warpctl.cli.terminal import note
from warpctl.errors import StoreUnavailableError
from warpctl.storage.store import Retries, Store

REMOTE = ("gs://", "s3://")
BRIEF = Retries(attempts=5, wait_max_seconds=3.0, total_seconds=8.0, read_timeout_seconds=8.0)
"""For the first question; whoever works with the store afterwards is as patient as ever."""
SILENT_SECONDS = 2.0
"""After this long without an answer (looking for credentials takes time, too) the user is told what is waited for."""


def open_store_in_reach(uri: str, *, brief: Retries = BRIEF) -> Store:
    """The store at `uri`. StoreUnavailableError when a remote one does not answer the first question, StoreDeniedError when
    it does not let us look.
    """
    tell_of_retries()
    if uri.startswith(REMOTE):
        waiting = threading.Timer(SILENT_SECONDS, note, (f"asking {uri}",))
        waiting.daemon = True
        waiting.start()
        try:
            Store.open(uri, retries=brief).greet()
        except StoreUnavailableError as error:
            raise StoreUnavailableError(
                error.message, hint="is this machine online, and the address right? Nothing has been started"
            ) from error
        finally:
            waiting.cancel()
    return Store.open(uri)
