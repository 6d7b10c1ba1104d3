"""wanted.json: what a run wants kept."""

import pytest

from warpctl import artifacts
from warpctl.errors import UserError
from warpctl.storage.wanted import Keep, Wanted, WantedStage, read_all_wanted, read_wanted, write_wanted

WANTED = Wanted(
    namespace="default",
    name="demo",
    stages=(WantedStage(kind="rl", key="k1", keep=Keep.RECORD), WantedStage(kind="import", key="k2")),
    points=("p1",),
    written_at="2026-01-02T03:04:05Z",
)
GOLDEN = (
    b'{"name":"demo","namespace":"default","points":["p1"],"stages":'
    b'[{"keep":"Record","key":"k1","kind":"rl"},{"keep":"Artifact","key":"k2","kind":"import"}],'
    b'"writtenAt":"2026-01-02T03:04:05Z"}'
)


def test_the_bytes_are_frozen_and_come_back(memory):
    write_wanted(memory, WANTED)

    assert memory.read("runs/default/demo/wanted.json") == GOLDEN
    assert read_wanted(memory, "default", "demo") == WANTED
    assert read_wanted(memory, "default", "other") is None


def test_all_runs_are_found_and_other_files_are_not(memory):
    other = WANTED.model_copy(update={"namespace": "team", "name": "two"})
    write_wanted(memory, WANTED)
    write_wanted(memory, other)
    memory.write(artifacts.report("default", "demo", "wanted.json"), b"not a root")
    memory.write(artifacts.report("default", "demo", "index.html"), b"<html>")

    assert read_all_wanted(memory) == (WANTED, other)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", GOLDEN[:-1], GOLDEN.replace(b'"Record"', b'"Nothing"')])
def test_one_that_cannot_be_read_is_an_error_that_names_it(memory, data):
    write_wanted(memory, WANTED)
    memory.write(artifacts.wanted("team", "broken"), data)

    with pytest.raises(UserError, match=r"/runs/team/broken/wanted\.json cannot be read") as caught:
        read_all_wanted(memory)

    assert "run that WarpRun again" in caught.value.hint
