"""Kubeconfig files, as kubectl and every client reads them; certificates inside, so that a file can be carried away."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.cluster.harness.pki import Pair


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: Pair | str, namespace: str = "default") -> Path:
    """Write a kubeconfig with one context; `user` is a client certificate or a bearer token. JSON is YAML."""
    credential: dict[str, Any]
    if isinstance(user, str):
        credential = {"token": user}
    else:
        credential = {"client-certificate-data": _encoded(user.certificate), "client-key-data": _encoded(user.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": server, "certificate-authority-data": _encoded(authority)}}
        ],
        "users": [{"name": "test", "user": credential}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
