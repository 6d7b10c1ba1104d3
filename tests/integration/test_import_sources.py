"""Prompts from a web server and models from an object store's prefix."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.builders.import_stage import import_stage, is_committed, run_import
from tests.builders.model_folder import sharded_model
from tests.servers.hub import Hub, running_hub
from warpctl.errors import InputError
from warpctl.storage.store import Store
from warpctl.workers.sources import base
from warpctl.workers.sources.base import SourceChangedError, SourceFile
from warpctl.workers.sources.https import HttpsSource

pytestmark = pytest.mark.integration

LINES = b'{"prompt": "one"}\n' * 50


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub's files are plain files on a web server too."""
    monkeypatch.setattr(base, "FIRST_PAUSE_SECONDS", 0.001)
    with running_hub() as hub:
        yield hub


def test_one_file_is_imported_and_a_signature_in_its_address_is_not_written_down(web: Hub, tmp_path: Path) -> None:
    web.commit("lab/p", {"train set.jsonl": LINES})
    web.faults.unavailable = {"/train set.jsonl": 1}
    url = f"{web.endpoint}/lab/p/resolve/main/train%20set.jsonl?X-Signature=secret"

    artifact = run_import(import_stage(str(tmp_path / "store"), url, what="Prompts"))

    assert artifact.names() == ("train set.jsonl",)
    assert artifact.read("train set.jsonl") == LINES
    assert b"secret" not in artifact.manifest.to_bytes()


def test_a_cut_connection_goes_on_with_a_range(web: Hub, tmp_path: Path) -> None:
    web.commit("lab/p", {"x.jsonl": LINES})
    source = HttpsSource(f"{web.endpoint}/lab/p/resolve/main/x.jsonl")
    listed = source.files()[0]
    web.faults.cut_after = {"x.jsonl": 100}

    pieces = list(base.stream_all(source, listed, wait=lambda _: None))
    source.close()

    assert b"".join(pieces) == LINES
    assert web.downloads("x.jsonl")[-1].range == "bytes=100-"


def test_a_file_that_is_replaced_while_it_is_read_is_refused(web: Hub) -> None:
    web.commit("lab/p", {"x.jsonl": LINES})
    source = HttpsSource(f"{web.endpoint}/lab/p/resolve/main/x.jsonl")
    listed = source.files()[0]
    web.commit("lab/p", {"x.jsonl": LINES.replace(b"one", b"two")})

    with pytest.raises(SourceChangedError, match="its tag was"):
        list(base.stream_all(source, listed, wait=lambda _: None))
    source.close()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("lab/p/resolve/main/gone.jsonl", "answered 404"), ("", "names a folder, which https cannot list")],
)
def test_what_is_not_a_file_is_refused(web: Hub, tmp_path: Path, path: str, complaint: str) -> None:
    web.commit("lab/p", {"x.jsonl": LINES})
    storage = str(tmp_path / "store")

    with pytest.raises(InputError, match=complaint):
        run_import(import_stage(storage, f"{web.endpoint}/{path}", what="Prompts"))

    assert not is_committed(storage)


def test_a_model_cannot_come_over_https(web: Hub, tmp_path: Path) -> None:
    web.commit("lab/p", {"config.json": b"{}"})

    with pytest.raises(InputError, match="a model is a folder"):
        run_import(import_stage(str(tmp_path / "store"), f"{web.endpoint}/lab/p/resolve/main/config.json"))


def test_a_password_in_an_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(InputError) as caught:
        HttpsSource("https://me:pass-word@host.example/x.jsonl")

    assert "pass-word" not in caught.value.message + caught.value.hint


def test_plain_http_is_for_this_machine_only() -> None:
    with pytest.raises(InputError, match="not encrypted"):
        HttpsSource("http://host.example/x.jsonl")


def test_a_server_that_does_not_say_the_length_is_refused(
    monkeypatch: pytest.MonkeyPatch, web: Hub, tmp_path: Path
) -> None:
    """A cut file could not be told from a whole one."""
    web.commit("lab/p", {"x.jsonl": LINES})
    original = BaseHTTPRequestHandler.send_header

    def without_length(self: BaseHTTPRequestHandler, name: str, value: str) -> None:
        if name == "Content-Length":
            name, value = "Connection", "close"
        original(self, name, value)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", without_length)

    with pytest.raises(InputError, match="does not say how long"):
        run_import(import_stage(str(tmp_path / "s"), f"{web.endpoint}/lab/p/resolve/main/x.jsonl", what="Prompts"))


def test_a_server_without_ranges_sends_all_again_and_the_start_is_dropped(
    monkeypatch: pytest.MonkeyPatch, web: Hub
) -> None:
    web.commit("lab/p", {"x.jsonl": LINES})
    source = HttpsSource(f"{web.endpoint}/lab/p/resolve/main/x.jsonl")
    listed = source.files()[0]
    web.ignores_ranges = True

    pieces = list(source.stream(SourceFile(listed.name, listed.size, listed.fingerprint), 333))
    source.close()

    assert b"".join(pieces) == LINES[333:]


@pytest.mark.parametrize("target", ["memory", "file"], ids=["same store", "another store"])
def test_a_prefix_of_an_object_store_is_a_folder(tmp_path: Path, target: str) -> None:
    source = Store.open("memory://import-source/models/tiny")
    for name, data in sharded_model().items():
        source.write(name, data)
    storage = str(tmp_path / "store") if target == "file" else f"memory://import-source/target-{tmp_path.name}"

    artifact = run_import(import_stage(storage, "memory://import-source/models/tiny/"))

    assert {name: artifact.read(name) for name in artifact.names()} == sharded_model()


def test_one_object_is_a_prompt_set_and_an_empty_prefix_is_refused(tmp_path: Path) -> None:
    Store.open("memory://import-source").write("prompts/x.jsonl", LINES)

    artifact = run_import(
        import_stage(str(tmp_path / "store"), "memory://import-source/prompts/x.jsonl", what="Prompts")
    )

    assert artifact.read("x.jsonl") == LINES
    with pytest.raises(InputError, match="holds nothing"):
        run_import(import_stage(str(tmp_path / "other"), "memory://import-source/nothing", what="Prompts"))
