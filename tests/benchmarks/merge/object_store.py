"""Part d: a merge from gs:// to gs://, 30 ms away, beside obstore reading and writing the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.merge.architecture import LLAMA, Architecture
from tests.benchmarks.merge.measure import TOP, Contestant, Sample, in_turns, middle
from tests.benchmarks.merge.models import Models, models, require_space
from tests.benchmarks.merge.several_nodes import Bucket, print_rows, several_nodes
from tests.benchmarks.merge.sides import Settings, Stage, has_tool, tool_command

SCALE = 0.1
"""Of the model of part a: the server keeps everything in memory."""
DELAY_SECONDS = 0.03
BUCKET = "warp"
SIDE = Path(__file__).with_name("obstore_side.py")


@dataclass
class Server:
    """The process that is server and proxy."""

    process: subprocess.Popen[str]
    environment: dict[str, str]

    def num_requests(self) -> int:
        """Since the last time that one asked."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.benchmarks.merge.gcs_server", str(DELAY_SECONDS)]
    with subprocess.Popen(command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(process, json.loads(process.stdout.readline()))
        process.communicate()


def from_and_to_gs(settings: Settings) -> dict[str, Any]:
    """Floor and ours in turns; requests of each."""
    architecture = LLAMA.scaled(settings.scale * SCALE)
    require_space(settings.folder, 3 * architecture.num_bytes, "part d")
    copies = 1 if has_tool() else 4
    with (
        models(architecture, settings.folder / "gs", num_policies=2, keep=settings.keep) as made,
        running_server() as server,
    ):
        store = f"gs://{BUCKET}/store"
        stage = Stage(store, made, server.environment)  # uploads the models, too
        objects = _objects(made, stage)
        requests: dict[str, int] = {}
        contestants = _contestants(settings, made, server, stage, objects, copies=copies, requests=requests)
        samples = in_turns(contestants, settings.repeat)
        rows = {name: middle(each) for name, each in samples.items()}
        _print(architecture, rows, {name: count / settings.repeat for name, count in requests.items()})
        nodes = several_nodes(
            settings,
            made,
            stage,
            Bucket(server.environment["STORAGE_EMULATOR_HOST"], BUCKET),
            folder="store",
            environment=server.environment,
            num_requests=server.num_requests,
        )
    ours = next(name for name in rows if name != "obstore")
    floor = rows.get("obstore")
    return {
        "gs_over_floor": round(rows[ours].ended / floor.ended, 3) if floor else None,
        "gs_requests": {name: round(count / settings.repeat) for name, count in requests.items()},
        "gs_peak_rss_mib": round(rows[ours].peak_mib),
        **nodes,
    }


def _print(architecture: Architecture, rows: Mapping[str, Sample], requests: Mapping[str, float]) -> None:
    print(
        f"\nd. {architecture.num_parameters / 1e9:.3f} B parameters, gs:// in and out, {1000 * DELAY_SECONDS:.0f} ms a request"
    )
    print_rows(rows, requests)


def _objects(made: Models, stage: Stage) -> list[str]:
    """Paths in the bucket of all weight files."""
    names = [path.name for path in sorted(made.init.glob("*.safetensors"))]
    return [f"{folder.removeprefix(f'gs://{BUCKET}/')}/{name}" for folder in stage.folders() for name in names]


def _contestants(
    settings: Settings,
    made: Models,
    server: Server,
    stage: Stage,
    objects: list[str],
    *,
    copies: int,
    requests: dict[str, int],
) -> list[Contestant]:
    numbers = itertools.count(1)
    nowhere = settings.folder / "gs"

    def one(name: str, command: Any) -> Contestant:
        requests[name] = 0

        def count() -> None:
            requests[name] += server.num_requests()

        # `clear` comes before and after each run, `prepare` between the first and the run: what was before does not count
        return Contestant(name, command, nowhere, lambda: _forget(server), server.environment, count)

    init, *policies = stage.folders()
    chosen = []
    if has_tool():
        chosen.append(one("tool", lambda: tool_command(init, policies, f"gs://{BUCKET}/out-{next(numbers)}")))
    else:
        chosen.append(one("stage", stage.command))
    if settings.obstore:
        size = copies * made.architecture.num_bytes
        chosen.append(
            one(
                "obstore",
                lambda: [
                    str(settings.obstore), str(SIDE), server.environment["STORAGE_EMULATOR_HOST"],
                    BUCKET, str(size), f"floor-{next(numbers)}", *objects,
                ],
            )
        )  # fmt: skip
    return chosen


def _forget(server: Server) -> None:
    server.num_requests()
