"""Garbage collection: what goes, what stays, and the law that nothing reachable goes."""

import itertools
import os
from datetime import UTC, datetime, timedelta

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from warpctl import artifacts
from warpctl.artifacts import PROBES
from warpctl.errors import UserError
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.gc import GcPlan, Why, plan_gc, sweep
from warpctl.storage.store import Store
from warpctl.storage.wanted import Keep, Wanted, WantedStage, write_wanted

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FLOOR = timedelta(days=1)
_numbers = itertools.count()
OLD, YOUNG = NOW - timedelta(days=2), NOW - timedelta(hours=2)


def _age(store, moment, prefix=""):
    """Set the time of the last change of all files below a folder."""
    for file in [*store.list(prefix), *store.leftovers(prefix)]:
        if store.root.startswith("memory://"):
            MemoryFileSystem.store[store.uri(file.path).removeprefix("memory:/")].modified = moment
            continue
        os.utime(store.local_path(file.path), (moment.timestamp(), moment.timestamp()))


def _want(store, *stages, run="demo", points=()):
    wanted = tuple(WantedStage(kind=kind, key=key, keep=keep) for kind, key, keep in stages)
    write_wanted(
        store,
        Wanted(namespace="default", name=run, stages=wanted, points=points, written_at=""),
    )


def _plan(store, **changes):
    return plan_gc(store, **({"now": NOW, "min_age": FLOOR} | changes))


def _whys(plan):
    return {item.path: item.why for item in plan.items}


@pytest.fixture
def committed(disk, publication):
    """A stage with a winner that took over a loser's shard, resume states of both, and what workers leave beside."""
    loser, winner = publication(disk, "a1"), publication(disk, "a2")
    with loser.open_file("shard-1.safetensors") as file:
        file.write(b"one")
    with loser.open_file("shard-2.safetensors") as file:
        file.write(b"half")
    winner.adopt(winner.receipts()["shard-1.safetensors"])
    with winner.open_file("shard-2.safetensors") as file:
        file.write(b"two")
    disk.write(winner.path("abandoned"), b"never finished")
    for attempt in ("a1", "a2"):
        disk.write(f"{artifacts.resume('import', 'k1', attempt, 5)}/state", b"state")
        disk.write(artifacts.log("import", "k1", attempt), b"log")
        disk.write(artifacts.metrics("import", "k1", attempt, 0), b"{}")
    manifest = winner.commit()
    _age(disk, OLD)
    return manifest


A1, A2 = artifacts.attempt("import", "k1", "a1"), artifacts.attempt("import", "k1", "a2")


def test_of_a_wanted_artifact_only_what_nobody_will_read_again_goes(disk, committed):
    _want(disk, ("import", "k1", Keep.ARTIFACT))

    plan = _plan(disk)

    assert _whys(plan) == {
        f"{A1}/files/shard-2.safetensors": Why.LOSER,
        f"{A1}/receipts/shard-1.safetensors.json": Why.LOSER,
        f"{A1}/receipts/shard-2.safetensors.json": Why.LOSER,
        f"{A1}/resume/00000005/state": Why.LOSER,
        f"{A1}/log.txt": Why.LOSER,
        f"{A1}/metrics/000000.jsonl": Why.LOSER,
        f"{A2}/resume/00000005/state": Why.RESUME,
        f"{A2}/files/abandoned": Why.UNNAMED,
    }
    swept = sweep(disk, plan)
    assert (swept.num_files, swept.num_bytes, swept.skipped) == (8, plan.num_bytes, ())
    artifact = Artifact.load(disk, "import", "k1")
    assert artifact.read("shard-1.safetensors") + artifact.read("shard-2.safetensors") == b"onetwo"
    assert not disk.local_path(f"{A1}/resume").exists()


def test_below_the_age_floor_only_the_winners_resume_states_go(disk, committed):
    _want(disk, ("import", "k1", Keep.ARTIFACT))
    _age(disk, YOUNG, "stages")

    assert _whys(_plan(disk)) == {f"{A2}/resume/00000005/state": Why.RESUME}


def test_when_only_the_record_is_wanted_the_weights_go_and_the_rest_stays(disk, committed):
    _want(disk, ("import", "k1", Keep.RECORD))

    plan = _plan(disk)
    sweep(disk, plan)

    assert _whys(plan)[f"{A1}/files/shard-1.safetensors"] == Why.RETENTION
    assert _whys(plan)[f"{A2}/files/shard-2.safetensors"] == Why.RETENTION
    assert disk.stat(artifacts.marker("import", "k1")) is not None
    assert not [file for file in disk.list("stages") if "/files/" in file.path]
    assert disk.stat(artifacts.log("import", "k1", "a2")) is not None


def test_the_most_that_any_run_wants_is_kept(disk, committed):
    _want(disk, ("import", "k1", Keep.ARTIFACT), run="one")
    _want(disk, ("import", "k1", Keep.RECORD), run="two")

    sweep(disk, _plan(disk))

    assert Artifact.load(disk, "import", "k1").read("shard-1.safetensors") == b"one"


def test_a_stage_that_nobody_wants_goes_whole_the_marker_first_and_receipts_next(disk, committed):
    _want(disk)
    everything = {file.path for file in disk.list("stages")}

    plan = _plan(disk)

    assert set(_whys(plan)) == everything
    assert set(_whys(plan).values()) == {Why.UNWANTED}
    order = [item.path for item in plan.items]
    assert order[0] == artifacts.marker("import", "k1")
    assert ["/receipts/" in path for path in order[1:4]] == [True] * 3
    assert sweep(disk, plan).num_files == len(everything)
    assert not disk.local_path("stages/import/k1").exists()


def test_a_stage_that_nobody_wants_stays_while_anything_in_it_is_young(disk, committed):
    _age(disk, YOUNG, f"{A1}/resume")

    assert _plan(disk).items == ()


def test_all_of_a_wanted_unfinished_stage_stays_at_any_age(disk, publication):
    with publication(disk, "a1").open_file("shard") as file:
        file.write(b"x")
    disk.write(f"{artifacts.resume('import', 'k1', 'a1', 5)}/state", b"state")
    _age(disk, NOW - timedelta(days=900))
    _want(disk, ("import", "k1", Keep.RECORD))

    assert _plan(disk).items == ()
    assert _plan(disk, only=[("import", "k1")], min_age=timedelta(0)).items == ()


def test_a_young_attempt_that_nobody_wants_is_kept_and_an_old_one_goes(disk, publication):
    publication(disk, "a1").write_file("shard", b"x")
    _age(disk, YOUNG)
    assert _plan(disk).items == ()

    _age(disk, OLD)
    assert [item.why for item in _plan(disk).items] == [Why.UNWANTED]


def test_leftovers_of_writes_and_probes_go_after_the_floor(disk):
    for path in (f"{PROBES}/x", "stages/import/k/attempts/a/files/.tmp-1", ".tmp-2"):
        disk.write(path, b"x")
    _want(disk, ("import", "k", Keep.ARTIFACT))
    _age(disk, YOUNG)
    assert _plan(disk).items == ()

    _age(disk, OLD)
    assert _whys(_plan(disk)) == {
        f"{PROBES}/x": Why.PROBE,
        ".tmp-2": Why.LEFTOVER,
    }
    _want(disk)
    plan = _plan(disk)
    assert _whys(plan)["stages/import/k/attempts/a/files/.tmp-1"] == Why.LEFTOVER
    _want(disk, ("import", "k", Keep.ARTIFACT))
    assert sweep(disk, plan).skipped == (("import", "k"),)
    assert [file.path for file in disk.leftovers("")] == ["stages/import/k/attempts/a/files/.tmp-1"]  # still written?

    _want(disk)
    sweep(disk, _plan(disk))
    assert disk.leftovers("") == []


def test_reports_roots_and_strange_files_are_never_touched(disk):
    for path in (
        artifacts.report("default", "gone", "index.html"),
        "README.txt",
        "stages/stray",
        "stages/import/stray",
    ):
        disk.write(path, b"x")
    _age(disk, OLD)

    assert _plan(disk).items == ()


@pytest.mark.parametrize("broken", ["wanted", "marker"])
def test_what_cannot_be_read_stops_the_collection(disk, committed, broken):
    _want(disk, ("import", "k1", Keep.ARTIFACT))
    path = {"wanted": artifacts.wanted("team", "other"), "marker": artifacts.marker("import", "k1")}[broken]
    disk.write(path, b"{")

    for only in (None, [("import", "k1")], [("import", "k2")]):
        with pytest.raises(UserError, match=path):
            _plan(disk, only=only)


def test_only_restricts_the_collection_to_stages_of_ones_own(disk, committed, publication):
    publication(disk, key="k2").commit()
    disk.write(f"{PROBES}/x", b"")
    _age(disk, OLD)
    _want(disk)

    assert {item.path for item in _plan(disk, only=[("import", "k2")]).items} == {artifacts.marker("import", "k2")}
    assert _plan(disk, only=[("import", "absent")]).items == ()


def test_a_file_that_another_stages_manifest_names_stays(disk, committed, publication):
    borrower = publication(disk, key="k2")
    borrower.adopt(committed.files[0])
    borrower.commit()
    _age(disk, OLD)
    _want(disk, ("import", "k2", Keep.ARTIFACT))

    for only in (None, [("import", "k1")]):
        assert committed.files[0].path not in _whys(_plan(disk, only=only))
        assert artifacts.marker("import", "k1") in _whys(_plan(disk, only=only))


def test_points_stay_while_an_evaluation_names_them_or_may_come_to(disk, publication):
    for key in ("named", "wanted", "lost"):
        disk.write(artifacts.point(key), b"{}")
    evaluation = publication(disk, kind=StageKind.EVALUATE, key="e1")
    evaluation.write_file("points.json", b'[{"name": "sft", "pointKey": "named"}]')
    _want(disk, ("evaluate", "e1", Keep.ARTIFACT), points=("wanted",))
    _age(disk, OLD)
    assert _plan(disk).items == ()  # unfinished: it may want any of them

    evaluation.commit()
    _age(disk, OLD)
    assert _whys(_plan(disk)) == {artifacts.point("lost"): Why.POINT}

    _age(disk, YOUNG, "points")
    assert _plan(disk).items == ()


def test_a_stage_that_a_run_came_to_want_after_the_plan_is_left_alone(disk, committed):
    plan = _plan(disk)
    _want(disk, ("import", "k1", Keep.ARTIFACT))

    swept = sweep(disk, plan)

    assert (swept.num_files, swept.skipped) == (0, (("import", "k1"),))
    assert Artifact.load(disk, "import", "k1").read("shard-1.safetensors") == b"one"


def test_a_stage_that_was_committed_after_the_plan_is_left_alone(disk, publication):
    made = publication(disk)
    made.write_file("weights", b"x")
    _age(disk, OLD)
    plan = _plan(disk)
    made.commit()

    assert sweep(disk, plan).skipped == (("import", "k1"),)
    assert Artifact.load(disk, "import", "k1").read("weights") == b"x"


def test_files_that_a_run_came_to_want_after_the_plan_are_left_alone(disk, committed):
    _want(disk, ("import", "k1", Keep.RECORD))
    plan = _plan(disk)
    _want(disk, ("import", "k1", Keep.ARTIFACT), run="another")

    assert sweep(disk, plan).skipped == (("import", "k1"),)
    assert Artifact.load(disk, "import", "k1").read("shard-1.safetensors") == b"one"


def test_an_empty_plan_deletes_nothing(disk, committed):
    before = disk.list("")

    assert sweep(disk, GcPlan(())).num_files == 0
    assert disk.list("") == before


STAGES = st.fixed_dictionaries(
    {
        "attempts": st.lists(st.sets(st.sampled_from(["f1", "f2"])), min_size=1, max_size=3),
        "winner": st.none() | st.integers(0, 2),
        "adopts": st.booleans(),
        "has_resume": st.booleans(),
        "age": st.sampled_from([OLD, YOUNG]),
        "keep": st.none() | st.sampled_from(list(Keep)),
    }
)


@settings(max_examples=80)
@given(stages=st.lists(STAGES, max_size=4), repeats=st.integers(1, 2))
def test_nothing_reachable_is_ever_deleted_and_a_second_sweep_finds_nothing(publication, stages, repeats):
    store = Store.open(f"memory://gc-laws/{next(_numbers)}")
    wanted, expected, unfinished = [], {}, {}
    for number, stage in enumerate(stages):
        key = f"k{number}"
        made = [publication(store, f"a{n}", key=key) for n in range(len(stage["attempts"]))]
        for n, names in enumerate(stage["attempts"]):
            for name in sorted(names):
                with made[n].open_file(name) as file:
                    file.write(f"{key} {n} {name}".encode())
            if stage["has_resume"]:
                store.write(f"{artifacts.resume('import', key, f'a{n}', 1)}/state", b"state")
        if stage["winner"] is not None:
            winner = made[stage["winner"] % len(made)]
            if stage["adopts"]:
                names = stage["attempts"][stage["winner"] % len(made)]
                for name, entry in winner.receipts().items():
                    if name not in names:
                        winner.adopt(entry)
            winner.commit()
        _age(store, stage["age"], artifacts.stage("import", key))
        if stage["keep"]:
            wanted.append(("import", key, stage["keep"]))
        if stage["winner"] is not None and stage["keep"] == Keep.ARTIFACT:
            artifact = Artifact.load(store, "import", key)
            expected[key] = {name: artifact.read(name) for name in artifact.names()}
        elif stage["winner"] is None and stage["keep"]:
            unfinished[key] = store.list(artifacts.stage("import", key))
    _want(store, *wanted)

    for _ in range(repeats):
        sweep(store, _plan(store))

    for key, files in expected.items():
        artifact = Artifact.load(store, "import", key)
        assert {name: artifact.read(name) for name in artifact.names()} == files
    for key, files in unfinished.items():
        assert store.list(artifacts.stage("import", key)) == files
    for number, stage in enumerate(stages):
        has_marker = store.stat(artifacts.marker("import", f"k{number}")) is not None
        is_collected = stage["keep"] is None and stage["age"] == OLD
        assert has_marker == (stage["winner"] is not None and not is_collected)
        if is_collected:
            assert store.list(artifacts.stage("import", f"k{number}")) == []
    assert _plan(store).items == ()
    store.delete_tree("")
