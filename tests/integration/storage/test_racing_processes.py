"""create_once between processes, and what a killed writer leaves behind: on the local disk, where processes share it."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from warpctl.storage.gc import Why, plan_gc, sweep
from warpctl.storage.store import Store

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
NUM_RACERS, NUM_RACES = 4, 150

RACER = """
import sys, time
from warpctl.storage.store import Store
root, racer, num_races = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store.open(root)
store.write(f"ready/{racer}", b"")
while store.read_or_none("start") is None:
    time.sleep(0.001)
for n in range(num_races):
    if store.create_once(f"race/{n}", f"{racer} of {n}".encode()):
        print(n)
"""

WRITER = """
import sys
from warpctl.storage.store import Store
store = Store.open(sys.argv[1])
with store.open_write("big") as file:
    for _ in range(1 << 30):
        file.write(bytes(1 << 20))
        print("wrote", flush=True)
"""


def _start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_exactly_one_of_several_racing_processes_wins_each_race(tmp_path):
    store = Store.open(str(tmp_path))
    racers = [_start(RACER, str(tmp_path), str(n), str(NUM_RACES)) for n in range(NUM_RACERS)]
    while len(store.list("ready")) < NUM_RACERS:
        time.sleep(0.02)
    store.write("start", b"")

    won = [{int(line) for line in racer.communicate()[0].split()} for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * NUM_RACERS
    assert sum(len(races) for races in won) == NUM_RACES
    assert set.union(*won) == set(range(NUM_RACES))
    for n in range(NUM_RACES):
        winner = next(racer for racer in range(NUM_RACERS) if n in won[racer])
        assert store.read(f"race/{n}") == f"{winner} of {n}".encode()
    assert store.leftovers("") == []


def test_a_writer_that_is_killed_leaves_only_what_gc_sweeps(tmp_path):
    store = Store.open(str(tmp_path))
    writer = _start(WRITER, str(tmp_path))
    for _ in range(3):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()

    assert store.list("") == []
    assert store.stat("big") is None
    [leftover] = store.leftovers("")
    assert leftover.size >= 2**20

    now = datetime.now(UTC)
    assert plan_gc(store, now=now, min_age=timedelta(hours=1)).items == ()
    plan = plan_gc(store, now=now + timedelta(hours=2), min_age=timedelta(hours=1))
    assert [(item.path, item.why) for item in plan.items] == [(leftover.path, Why.LEFTOVER)]
    sweep(store, plan)
    assert store.leftovers("") == []
