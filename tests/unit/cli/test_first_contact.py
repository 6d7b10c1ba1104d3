"""A store out of reach is told of before anything is started, briefly and in one line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.unit.cli.conftest import Place
from warpctl.cli import first_contact
from warpctl.cli.first_contact import open_store_in_reach
from warpctl.errors import StoreUnavailableError
from warpctl.storage.store import Retries

QUICK = Retries(attempts=2, wait_initial_seconds=0.01, wait_max_seconds=0.01, total_seconds=5, read_timeout_seconds=5)
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@pytest.fixture
def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def mute_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_store_where_nobody_listens(scheme: str, closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, closed_port)
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "x")

    with pytest.raises(StoreUnavailableError, match=rf"^cannot use {scheme}://bucket/runs: ") as caught:
        open_store_in_reach(f"{scheme}://bucket/runs", brief=QUICK)

    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("is this machine online")


def test_whoever_waits_is_told_what_for(
    mute_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", mute_server)
    monkeypatch.setattr(first_contact, "SILENT_SECONDS", 0.01)
    said = threading.Event()
    monkeypatch.setattr(first_contact, "note", lambda text: (print(text), said.set()))

    with pytest.raises(StoreUnavailableError):
        open_store_in_reach("gs://bucket/runs", brief=Retries(attempts=1, total_seconds=2, read_timeout_seconds=0.5))

    assert said.wait(5)
    assert capsys.readouterr().out == "asking gs://bucket/runs\n"


def test_s3_without_credentials_is_one_line_and_a_hint(
    place: Place, warpctl, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_spec(storage={"uri": "s3://bucket/runs"})
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", closed_port)

    said = warpctl(place, "plan", "demo.yaml")

    assert said.err == (
        "error: cannot use s3://bucket/runs: no credentials were found\n"
        "hint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached\n"
    )
    assert said.code == 1
