"""The part of the Hugging Face API that uploads use: make a repository, send large files over LFS, commit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol


class Uploading(Protocol):
    """What the hub keeps for uploads."""

    repositories: dict[str, Any]
    uploaded: dict[str, bytes]
    write_token: str
    endpoint: str
    created: dict[str, dict[str, Any]]


Answer = tuple[int, dict[str, Any]]


def answer_post(
    hub: Uploading,
    path: str,
    body: bytes,
    authorization: str,
    *,
    is_large: Callable[[str], bool],
    commit: Callable[..., str],
) -> Answer:
    """Status and JSON body for a POST; without the write token everything is forbidden."""
    if authorization != f"Bearer {hub.write_token}":
        return 403, {"error": "this token may not write here"}
    if path == "/api/repos/create":
        return _create(hub, json.loads(body), commit)
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path.endswith("/info/lfs/objects/batch"):
        objects = [
            {**one, "actions": {"upload": {"href": f"{hub.endpoint}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}
    repository, _, action = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
    if action == "preupload":
        files = [
            {"path": one["path"], "uploadMode": "lfs" if is_large(one["path"]) else "regular", "shouldIgnore": False}
            for one in json.loads(body)["files"]
        ]
        return 200, {"files": files}
    return _commit(hub, repository, body, commit)


def put_large(hub: Uploading, path: str, body: bytes) -> Answer:
    """The bytes of a large file, named by their digest."""
    oid = path.rpartition("/")[2]
    if hashlib.sha256(body).hexdigest() != oid:
        return 400, {"error": "digest"}
    hub.uploaded[oid] = body
    return 200, {}


def _create(hub: Uploading, wanted: dict[str, Any], commit: Callable[..., str]) -> Answer:
    name = f"{wanted['organization']}/{wanted['name']}"
    if f"models/{name}" in hub.repositories:
        return 409, {"error": "exists", "url": f"{hub.endpoint}/{name}"}
    commit(name, {".gitattributes": b""})
    hub.created[name] = wanted
    return 200, {"url": f"{hub.endpoint}/{name}", "name": name}


def _commit(hub: Uploading, repository: str, body: bytes, commit: Callable[..., str]) -> Answer:
    lines = [json.loads(line) for line in body.splitlines()]
    kept = hub.repositories[f"models/{repository}"]
    if lines[0]["value"].get("parentCommit") not in (None, kept.branches["main"]):
        return 412, {"error": "the parent is not the newest commit"}
    files = dict(kept.commits[kept.branches["main"]])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        else:
            files[value["path"]] = hub.uploaded[value["oid"]]
    oid = commit(repository, files)
    return 200, {"commitUrl": f"{hub.endpoint}/{repository}/commit/{oid}", "commitOid": oid, "success": True}
