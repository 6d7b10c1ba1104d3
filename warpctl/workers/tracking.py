"""Trackers: TensorBoard, W&B, MLflow or trackio, told of an RL run's metrics through accelerate's trackers.

A tracker is a view. The store's metrics are the truth; a tracker that fails costs one warning, and the run goes on without
it. A curve belongs to a stage, not to an attempt: its name comes from run, iteration and member, and an attempt that goes on
from a resume state continues it. Steps that an earlier attempt has shown are not told again.

No tracker's library is imported unless the spec names it.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import structlog

from warpctl import artifacts
from warpctl.errors import FinalError
from warpctl.spec.stage_input import StageInput
from warpctl.spec.tracking import TrackerType, Tracking
from warpctl.storage.store import Store

MODULES = {
    TrackerType.TENSOR_BOARD: "tensorboard",
    TrackerType.WAND_B: "wandb",
    TrackerType.ML_FLOW: "mlflow",
    TrackerType.TRACKIO: "trackio",
}
"""The module of each, which is also the name of warpctl's extra and of accelerate's tracker."""
NAMES = {
    "score": "train/score",
    "scoreDeviation": "train/score_std",
    "reward": "train/reward",
    "kl/anchor": "train/kl",
    "kl/sft": "train/kl_sft",
    "length": "train/completions/mean_length",
    "truncatedShare": "train/completions/clipped_ratio",
    "entropy": "train/entropy",
    "loss": "train/loss",
    "gradientNorm": "train/grad_norm",
    "learningRate": "train/learning_rate",
    "evaluation/kl": "eval/kl_sft",
    "evaluation/reward": "eval/reward",
    "evaluation/length": "eval/completions/mean_length",
}
"""From the names of metrics.jsonl to those under which TRL's trainers show the same in a tracker."""

Record = Mapping[str, Any]


def require_library(tracking: Tracking | None) -> None:
    """FinalError when the spec names a tracker whose library is not installed: before anything is loaded."""
    if tracking is None:
        return
    module = MODULES[tracking.type]
    if importlib.util.find_spec(module) is None:
        raise FinalError(
            f"spec.tracking.type is {tracking.type}, and {module} is not installed in this worker",
            hint=f'pip install "warpctl[{module}]" where the worker runs, or set spec.tracking to null',
        )


def curve_name(stage: StageInput) -> str:
    """The name of a stage's curve, the same for all of its attempts: default.demo.rl-1-2.0a1b2c3d.

    Run, iteration and member; the key's first digits keep the curve of a changed spec apart from the old one.
    """
    stage_name = stage.stage_id.replace("/", "-")
    return f"{stage.namespace}.{stage.run}.{stage_name}.{stage.key[:8]}"


def last_shown_step(store: Store, stage: StageInput) -> int:
    """The last step in the metric segments of any attempt, -1 without any: what trackers have been told already."""
    last = -1
    newest: dict[str, str] = {}
    for file in store.list(artifacts.attempts(stage.kind, stage.key)):
        folder = PurePosixPath(file.path).parent
        if folder.name == "metrics":
            newest[str(folder)] = file.path  # sorted by path: the last one of each attempt stays
    for path in newest.values():
        lines = store.read(path).splitlines()
        last = max(last, json.loads(lines[-1])["step"] if lines else -1)
    return last


@dataclass
class Tracker:
    """One curve. Without a tracker in the spec, `sink` is None and nothing happens."""

    log: structlog.stdlib.BoundLogger
    type: str = ""
    curve: str = ""
    """The tracker's own name of the curve; "" without a tracker."""
    sink: Any = None
    """accelerate's tracker; None when there is none, or no longer."""
    last_step: int = -1
    """The last step that this curve has."""

    def tell(self, records: Sequence[Record]) -> None:
        """Show the records that the curve lacks; lists (warnings) are left out."""
        for record in records:
            if self.sink is None:
                return
            if record["step"] > self.last_step:
                values = {NAMES[name]: value for name, value in record.items() if name in NAMES}
                self._try("log", partial(self.sink.log, values, step=record["step"]))
                self.last_step = record["step"]

    def state(self) -> dict[str, str]:
        """What a resume state keeps; {} without a tracker, and when it has failed: then all is told anew."""
        return {} if self.sink is None else {"type": self.type, "curve": self.curve}

    def finish(self) -> None:
        """Close the curve."""
        if self.sink is not None:
            self._try("finish", self.sink.finish)

    def _try(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, it must not end the training
            self.sink = None
            self.log.warning("tracker fails; training goes on without it", during=what, error=f"{error!r}"[:500])


def start_tracker(
    tracking: Tracking | None,
    stage: StageInput,
    store: Store,
    log: structlog.stdlib.BoundLogger,
    *,
    resumed: Mapping[str, str] | None,
) -> Tracker:
    """Open the stage's curve. A tracker that does not open costs a warning.

    `resumed` is what the resume state keeps, None without one. A state that knows nothing of this tracker (it was another
    one, or had failed) means that the curve begins anew, with the metrics of all steps.
    """
    tracker = Tracker(log)
    if tracking is None:
        return tracker
    is_known = resumed is None or resumed.get("type") == tracking.type
    try:
        tracker.type = tracking.type
        tracker.last_step = last_shown_step(store, stage) if is_known else -1
        curve = resumed["curve"] if resumed and is_known else ""
        tracker.sink, tracker.curve = _open(tracking, stage, store, known_curve=curve, first_step=tracker.last_step + 1)
    except Exception as error:  # noqa: BLE001  # see Tracker._try
        log.warning("tracker does not start; training goes on without it", error=f"{error!r}"[:500])
    else:
        log.info("tracker", type=tracking.type, project=tracking.project, curve=tracker.curve)
    return tracker


def _open(tracking: Tracking, stage: StageInput, store: Store, *, known_curve: str, first_step: int) -> tuple[Any, str]:
    """accelerate's tracker, started, and the curve's name."""
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

    name = known_curve or curve_name(stage)
    project, uri = tracking.project, tracking.uri
    sink: Any
    if tracking.type is TrackerType.TENSOR_BOARD:
        folder = uri or store.uri(artifacts.tensorboard(stage.namespace, stage.run))
        # purge_step: what a killed attempt wrote from this step on is taken back
        sink = TensorBoardTracker(f"{project}/{name}", logging_dir=folder, purge_step=first_step)
    elif tracking.type is TrackerType.WAND_B:
        server = {"settings": {"base_url": uri}} if uri else {}
        folder = tempfile.mkdtemp(prefix="warpctl-wandb-")
        sink = WandBTracker(project, id=name, name=name, resume="allow", dir=folder, **server)
    elif tracking.type is TrackerType.ML_FLOW:
        import mlflow

        if uri:
            mlflow.set_tracking_uri(uri)
        run_name = curve_name(stage)  # with a run_id, too: MLflow renames the run otherwise
        run_id = known_curve or _mlflow_run(mlflow, project, run_name)
        sink = MLflowTracker(project, run_id=run_id, run_name=run_name)
    else:
        space = {"space_id": uri} if uri else {}
        sink = TrackioTracker(project, name=name, resume="allow", **space)
    sink.start()
    return sink, sink.active_run.info.run_id if tracking.type is TrackerType.ML_FLOW else name


def _mlflow_run(mlflow: Any, project: str, name: str) -> str | None:
    """MLflow's id of the run of this name, which an attempt without a resume state has left; None for the first attempt."""
    if mlflow.get_experiment_by_name(project) is None:
        return None
    found = mlflow.search_runs(
        experiment_names=[project], filter_string=f"attributes.run_name = '{name}'", max_results=1, output_format="list"
    )
    return found[0].info.run_id if found else None
