"""What failures mean: final or transient, whose fault, what to do."""

import errno
import sys

import aiohttp
import botocore.exceptions
import pytest
from gcsfs.retry import HttpError, validate_response

from warpctl.errors import RetryableError, StoreDeniedError, StoreUnavailableError, UserError
from warpctl.storage import gcs, s3
from warpctl.storage.backend import FileStat
from warpctl.storage.local_files import LocalFiles
from warpctl.storage.store import Store


@pytest.mark.parametrize("uri", ["ftp://host/x", "gs://", "s3:///", "http://bucket/x", "hf://a/b", "memory://"])
def test_what_is_no_storage_uri_is_refused_with_examples(uri):
    with pytest.raises(UserError, match=f"{uri!r} is not a storage URI") as caught:
        Store.open(uri)

    assert "gs://bucket/prefix" in caught.value.hint


def test_s3_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules, "warpctl.storage.s3")
    monkeypatch.delattr("warpctl.storage.s3")

    with pytest.raises(UserError, match="s3://bucket/x needs the package s3fs") as caught:
        Store.open("s3://bucket/x")

    assert caught.value.hint == "pip install 'warpctl[s3]'"


def test_a_tilde_and_a_relative_path_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert Store.open("~/warp").root == f"file://{tmp_path}/warp"
    assert Store.open("runs/").root == f"file://{tmp_path}/runs"
    assert Store.open(f"file://{tmp_path}/x").root == f"file://{tmp_path}/x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["write", "create_once", "open_write"])
def test_a_full_disk_is_retryable_publishes_nothing_and_says_what_to_do(disk, monkeypatch, code, operation):
    def full(_):
        raise OSError(code, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RetryableError, match="the disk is full; nothing was published") as caught:
        if operation == "open_write":
            with disk.open_write("a") as file:
                file.write(b"x")
        else:
            getattr(disk, operation)("a", b"x")

    assert disk.uri("a") in str(caught.value)
    assert "warpctl gc" in caught.value.hint
    assert disk.list("") == disk.leftovers("") == []


def test_the_error_of_the_one_who_writes_passes_through_a_stream_unchanged(disk):
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, disk.open_write("a"):
        raise mine

    assert caught.value is mine


def _gcs_error(status, body=b'{"error": {"message": "said so"}}'):
    with pytest.raises(Exception) as caught:
        validate_response(status, body, "b/bucket/o/x")
    return caught.value


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_gcs_answers_that_are_worth_another_try(status):
    assert gcs.is_transient(_gcs_error(status))
    assert not gcs.is_denied(_gcs_error(status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412])
def test_gcs_answers_that_are_final(status):
    assert not gcs.is_transient(_gcs_error(status))
    assert gcs.is_denied(_gcs_error(status)) == (status in (401, 403))


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), aiohttp.ClientPayloadError()])
def test_a_broken_connection_is_worth_another_try(error):
    assert gcs.is_transient(error)
    assert s3.is_transient(error)
    assert not gcs.is_denied(error)
    assert not s3.is_denied(error)


def _s3_error(code, status):
    cause = botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )
    error = OSError(errno.EIO, code)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "status"),
    [("SlowDown", 503), ("InternalError", 500), ("ConditionalRequestConflict", 409), ("429", 429), ("504", 504)],
)
def test_s3_answers_that_are_worth_another_try(code, status):
    assert s3.is_transient(_s3_error(code, status))
    assert not s3.is_denied(_s3_error(code, status))


@pytest.mark.parametrize(
    ("code", "status", "is_denied"),
    [
        ("NoSuchKey", 404, False),
        ("NoSuchBucket", 404, True),
        ("AccessDenied", 403, True),
        ("InvalidAccessKeyId", 403, True),
        ("PreconditionFailed", 412, False),
        ("InvalidRange", 416, False),
    ],
)
def test_s3_answers_that_are_final(code, status, is_denied):
    assert not s3.is_transient(_s3_error(code, status))
    assert s3.is_denied(_s3_error(code, status)) == is_denied


def test_missing_credentials_are_final():
    assert s3.is_denied(botocore.exceptions.NoCredentialsError())
    assert not s3.is_transient(botocore.exceptions.NoCredentialsError())


def test_a_range_behind_the_end_is_told_from_other_errors():
    assert gcs.is_beyond_end(HttpError({"code": 416}))
    assert not gcs.is_beyond_end(HttpError({"code": 400}))
    assert s3.is_beyond_end(_s3_error("InvalidRange", 416))
    assert not s3.is_beyond_end(_s3_error("NoSuchKey", 404))


def test_an_error_that_nobody_foresaw_is_unavailable_and_keeps_its_text(disk, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(LocalFiles, "read", fail)

    with pytest.raises(StoreUnavailableError, match=r"cannot read file://.*/a: OSError: .*Input/output error"):
        disk.read("a")


def test_a_transient_error_of_the_disk_is_tried_again(disk, monkeypatch):
    disk.write("a", b"x")
    failures = [OSError(errno.ESTALE, "Stale file handle")]
    read = LocalFiles.read

    def flaky(self, path):
        if failures:
            raise failures.pop()
        return read(self, path)

    monkeypatch.setattr(LocalFiles, "read", flaky)

    assert disk.read("a") == b"x"


def test_a_read_only_folder_is_denied_and_names_the_user(disk, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(LocalFiles, "write", refuse)

    with pytest.raises(StoreDeniedError, match=r"cannot write file://.*/a as user "):
        disk.write("a", b"x")


def test_a_store_that_cannot_be_written_is_named_itself_and_not_the_object_of_the_probe(disk, monkeypatch):
    def refuse(_, path, __):
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(LocalFiles, "create_once", refuse)

    with pytest.raises(StoreDeniedError) as caught:
        disk.probe()

    assert caught.value.message == f"cannot use {disk.root} as {LocalFiles().identity()}: Read-only file system"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_asked_once(disk, monkeypatch, code):
    asked = []

    def full(_, path, __):
        asked.append(path)
        raise OSError(code, "No space left on device", path)

    monkeypatch.setattr(LocalFiles, "write", full)
    with pytest.raises(RetryableError, match="the disk is full"):
        disk.write("a", b"x")

    assert len(asked) == 1


def test_a_file_that_vanishes_while_it_is_listed_is_passed_over(disk, monkeypatch):
    disk.write("t/a", b"x")
    disk.write("t/b", b"x")
    stat = LocalFiles.stat
    monkeypatch.setattr(LocalFiles, "stat", lambda self, path: None if path.endswith("/a") else stat(self, path))

    assert [file.path for file in disk.list("t")] == ["t/b"]
    assert isinstance(disk.list("t")[0], FileStat)
