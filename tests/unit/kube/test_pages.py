"""A list that expires between two pages begins anew, and what went in between is not kept."""

from __future__ import annotations

from typing import Any

from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.reflector import Reflector
from warpctl.kube.resources import JOBS


class Expiring(Api):
    """The first page holds a Job that is gone when the list is asked for again."""

    def request(self, method: str, path: str, *, query: Any = None, **_: Any) -> Object:
        token = query.get("continue", "")
        self.asked.append(token)
        if token == "old":
            raise ClusterError("expired", code=410)
        if token == "new":
            return page("c")
        return page("a", token="old") if len(self.asked) == 1 else page("b", token="new")


def page(name: str, *, token: str = "") -> Object:
    job = {"metadata": {"namespace": "ml", "name": name, "resourceVersion": "1"}}
    return {"items": [job], "metadata": {"resourceVersion": "9", "continue": token}}


def an_api() -> Api:
    api = Expiring(client=None)
    api.asked = []
    return api


def test_a_list_is_of_one_instant() -> None:
    api = an_api()

    assert [job["metadata"]["name"] for job in api.list(JOBS).items] == ["b", "c"]
    assert api.asked == ["", "old", "", "new"]


def test_a_reflector_drops_what_only_the_expired_page_had() -> None:
    told: list[tuple[Any, Any]] = []
    jobs = Reflector(an_api(), JOBS, lambda job: job["metadata"]["name"], lambda *change: told.append(change))

    assert jobs._list() == "9"

    assert jobs.items() == ["b", "c"]
    assert told == [(None, "a"), (None, "b"), (None, "c"), ("a", None)]
