"""What an API server's answer means to us. See warpctl/errors.py for the tree."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from warpctl.errors import WarpctlError

_TRANSIENT = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class ClusterError(WarpctlError):
    """The API server refused a request; `code` is the HTTP status, `reason` Kubernetes' own word for it."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason

    @property
    def is_absent(self) -> bool:
        return self.code == HTTPStatus.NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """Somebody else was faster: the object exists already, or has changed since it was read."""
        return self.code == HTTPStatus.CONFLICT

    @property
    def is_taken(self) -> bool:
        """An object with this name is there. Other conflicts of a create are none of the object: a quota that was just counted."""
        return self.is_conflict and self.reason == "AlreadyExists"

    @property
    def is_refused(self) -> bool:
        """The server will have nothing of it as it is: a quota, an admission policy, a field, a missing permission."""
        return self.code in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)

    @property
    def is_expired(self) -> bool:
        """The resource version or continue token is too old: list again."""
        return self.code == HTTPStatus.GONE

    @property
    def is_forbidden(self) -> bool:
        return self.code == HTTPStatus.FORBIDDEN


class ClusterUnavailableError(ClusterError):
    """No answer, or one that a later request may not meet; `retry_after` seconds if the server asked for a pause."""

    def __init__(self, message: str, *, code: int = 0, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, code=code, reason="Unavailable", hint=hint)
        self.retry_after = retry_after


def refusal(code: int, body: bytes, retry_after: str | None, what: str) -> ClusterError:
    """The exception for an answer that is not a success; `what` is the request, as a person would say it."""
    status = _status(body)
    said = str(status.get("message") or body[:300].decode(errors="replace").strip() or f"HTTP {code}")
    if code in _TRANSIENT:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        return ClusterUnavailableError(f"cannot {what}: {said}", code=code, retry_after=seconds)
    return ClusterError(f"cannot {what}: {said}", code=code, reason=str(status.get("reason", "")), hint=_hint(code))


def _status(body: bytes) -> dict[str, Any]:
    try:
        status = json.loads(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _hint(code: int) -> str:
    hints = {
        int(HTTPStatus.UNAUTHORIZED): "your credentials are missing or expired: log in to the cluster again",
        int(HTTPStatus.FORBIDDEN): "ask the cluster's administrator for this permission",
    }
    return hints.get(code, "")
