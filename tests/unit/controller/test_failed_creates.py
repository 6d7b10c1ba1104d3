"""Why Jobs have no pods is asked once for all of them, not once for each."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from warpctl.controller.failed_creates import KEPT_SECONDS, FailedCreates
from warpctl.kube.api import Listed
from warpctl.kube.errors import ClusterError


class Server:
    """Answers lists of Events, and counts them."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.asked = 0
        self.is_down = False

    def list(self, resource: Any, namespace: str, *, fields: str) -> Listed:
        assert (resource.plural, fields) == ("events", "reason=FailedCreate,involvedObject.kind=Job")
        self.asked += 1
        if self.is_down:
            raise ClusterError("down", code=500)
        return Listed(self.events, "1")


def event(uid: str, message: str, time: str) -> dict[str, Any]:
    return {"involvedObject": {"uid": uid}, "message": message, "lastTimestamp": time}


def test_one_list_answers_for_all_jobs_of_a_namespace_until_it_is_old() -> None:
    server, now = Server(), [0.0]
    api: Any = server
    failed_creates = FailedCreates(api, clock=lambda: now[0])
    server.events = [event("a", "no memory", "2026-01-01T00:00:02Z"), event("a", "no quota", "2026-01-01T00:00:09Z")]

    assert [failed_creates.of("ml", uid) for uid in ("a", "b", "a", "c")] == ["no quota", "", "no quota", ""]
    assert server.asked == 1
    assert failed_creates.of("other", "a") == "no quota"
    assert server.asked == 2

    now[0] = KEPT_SECONDS + 1
    server.events = []
    assert failed_creates.of("ml", "a") == ""
    assert server.asked == 3


def test_a_server_that_does_not_answer_leaves_what_was_known() -> None:
    server, now = Server(), [0.0]
    api: Any = server
    failed_creates = FailedCreates(api, clock=lambda: now[0])
    server.events = [event("a", "no quota", "2026-01-01T00:00:09Z")]
    assert failed_creates.of("ml", "a") == "no quota"

    server.is_down, now[0] = True, KEPT_SECONDS + 1
    assert failed_creates.of("ml", "a") == "no quota"


def test_who_comes_while_the_first_answer_is_on_its_way_waits_for_it() -> None:
    server, is_asked, may_answer = Server(), threading.Event(), threading.Event()
    server.events = [event("a", "no quota", "2026-01-01T00:00:09Z")]
    answer = server.list

    def slow(*arguments: Any, **options: Any) -> Listed:
        is_asked.set()
        may_answer.wait(10)
        return answer(*arguments, **options)

    server.list = slow  # type: ignore[method-assign]
    api: Any = server
    failed_creates = FailedCreates(api)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(failed_creates.of, "ml", "a")
        is_asked.wait(10)
        second = pool.submit(failed_creates.of, "ml", "a")
        may_answer.set()
        assert [first.result(10), second.result(10)] == ["no quota", "no quota"]
    assert server.asked == 1
