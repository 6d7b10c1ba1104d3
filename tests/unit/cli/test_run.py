"""`warpctl run` with fake workers: lines, exit codes, Ctrl-C, one engine a run."""

from __future__ import annotations

import re
import signal

import pytest

from tests.unit.cli.conftest import Place
from tests.unit.cli.golden import check

pytestmark = pytest.mark.integration  # each starts an engine and a handful of workers


def steady(text: str, place: Place) -> str:
    """The text without what differs from run to run."""
    text = text.replace(str(place.folder), "/here")
    text = re.sub(r"[0-9.]+ s\b", "T s", text)
    text = re.sub(r"[0-9a-f]{64}", "KEY", text)
    return re.sub(r"state/[0-9a-f]{12}", "state/STORE", re.sub(r"\b(\d)-[0-9a-f]{12}", r"\1-ID", text))


def test_a_run_ends_with_its_front_and_the_second_one_is_cached(place: Place) -> None:
    first, second = place.call("run", "demo.yaml"), place.call("run", "demo.yaml")

    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert first.out == second.out
    check("run-front.txt", steady(first.out, place))
    check("run-cached.txt", steady(second.err, place))
    assert "rl/1/1 started\n" in first.err
    assert re.search(r"^rl/1/1 finished in [0-9.]+ s  \[\d/6 stages\]$", first.err, re.MULTILINE)
    assert "succeeded: 6 stages are published\n" in first.err


def test_a_stage_that_cannot_succeed_stalls_the_run(place: Place) -> None:
    said = place.call("run", "demo.yaml", fake={"rl/1/1": "final"})

    assert (said.code, said.out) == (1, "")
    start = said.err.index("rl/1/1 stalled")
    check("run-stalled.txt", steady(said.err[start:], place))


def test_a_failure_is_told_and_tried_again(place: Place) -> None:
    place.write_spec(retry={"backoffSeconds": 1})

    said = place.call("run", "demo.yaml", fake={"rl/1/1": "fail"})

    assert said.code == 0
    assert "rl/1/1 failed: exit code 1: something broke; retry in " in said.err
    assert "rl/1/1 started (attempt 2)" in said.err


def test_a_failure_without_a_pause_is_told_too(place: Place) -> None:
    said = place.call("run", "demo.yaml", fake={"rl/1/1": "fail"})

    assert said.code == 0
    assert "failed: exit code 1: something broke" in said.err


def test_a_new_run_pardons_what_stalled(place: Place) -> None:
    assert place.call("run", "demo.yaml", fake={"merge/1": "crash"}).code == 1
    again = place.call("run", "demo.yaml")

    assert again.code == 0
    assert "4 stages are published already (cached)" not in again.err  # three: two imports and the RL run
    assert "3 stages are published already (cached): import/sft, import/prompts, rl/1/1" in again.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_the_workers_save(place: Place, number: signal.Signals) -> None:
    process = place.start("run", "demo.yaml", fake={"rl/1/1": "slow"})
    place.wait_for_log("rl/1/1 attempt")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "stopping: 1 worker asked to save and leave" in err
    assert "interrupted: all workers saved and left\n" in err
    assert "warpctl run demo.yaml  # goes on from what was saved" in err

    assert place.call("run", "demo.yaml").code == 0


def test_a_second_ctrl_c_kills(place: Place) -> None:
    process = place.start("run", "demo.yaml", fake={"rl/1/1": "stubborn"})
    place.wait_for_log("rl/1/1 attempt")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("stopping: "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted: 0 workers saved and left, 1 had to be killed" in err


def test_a_second_run_of_the_same_run_is_refused(place: Place) -> None:
    process = place.start("run", "demo.yaml", fake={"rl/1/1": "slow"})
    place.wait_for_log("rl/1/1 attempt")
    second = place.call("run", "demo.yaml")
    status = place.call("status", "demo.yaml")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert second.code == 2
    assert second.err.startswith(
        f"error: another `warpctl run` works on ml/demo on this machine: process {process.pid}, since 20"
    )
    assert f"hint: `warpctl status ml/demo` shows how far it is; `kill {process.pid}`" in second.err
    assert status.out.startswith("ml/demo  Running  iteration 0/1  stages 2/6")
    assert re.search(r"^rl/1/1 .*Running +1 +step \d+/1000  reward 1.5  kl 0.25", status.out, re.MULTILINE)


def test_workers_of_a_killed_engine_are_adopted(place: Place) -> None:
    process = place.start("run", "demo.yaml", fake={"rl/1/1": "slow"})
    place.wait_for_log("rl/1/1 attempt")
    process.kill()
    process.communicate(timeout=60)
    status = place.call("status", "demo")
    second = place.start("run", "demo.yaml")
    assert second.stderr is not None
    lines = [second.stderr.readline() for _ in range(2)]
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)

    assert status.out.startswith("ml/demo  Unattended")
    assert "rl/1/1 is running\n" in lines
    assert second.returncode == 130


def test_a_suspended_run_ends_well(place: Place) -> None:
    place.write_spec(suspend=True)

    said = place.call("run", "demo.yaml")

    assert said.code == 0
    assert "ml/demo is suspended: spec.suspend is true" in said.err
    assert not (place.folder / "store" / "stages").exists()


def test_a_changed_outcome_is_said_and_reject_refuses_it(place: Place) -> None:
    place.call("run", "demo.yaml")
    place.write_spec(merge={"litiRate": "0.5"}, updatePolicy="Reject")
    refused = place.call("run", "demo.yaml")
    place.write_spec(merge={"litiRate": "0.5"})
    restaged = place.call("run", "demo.yaml")

    assert refused.code == 2
    assert refused.err.startswith("error: spec.merge.litiRate: a change of outcome, and spec.updatePolicy is Reject")
    assert restaged.code == 0
    assert " ! spec.merge.litiRate  0.3 -> 0.5  reruns iteration 1 onward, from its merge; " in restaged.err
    assert "rl/1/1 started" not in restaged.err
    assert "merge/1 started" in restaged.err


def test_more_gpus_than_there_are_is_refused_before_anything_starts(place: Place) -> None:
    place.write_spec(compute={"rl": {"gpus": 64, "nodes": 2, "podTemplate": {"image": "x"}}})

    said = place.call("run", "demo.yaml")

    assert said.code == 2
    assert "error: spec.compute.rl.gpus asks for 64 GPUs, this machine has " in said.err


def test_settings_that_a_local_run_skips_are_named(place: Place) -> None:
    place.write_spec(suspend=True, compute={"rl": {"nodes": 2, "podTemplate": {"image": "x", "env": []}}})

    said = place.call("run", "demo.yaml")

    assert "warning: spec.compute.rl.nodes is 2; a local run uses this machine alone" in said.err
    assert "warning: spec.compute.rl.podTemplate: a local run skips image\n" in said.err


def test_a_store_in_memory_is_refused(place: Place) -> None:
    place.write_spec(storage={"uri": "memory://x"})

    said = place.call("run", "demo.yaml")

    assert said.code == 2
    assert "lives in one process" in said.err
