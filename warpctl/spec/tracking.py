"""Where the curves of RL runs are shown besides the store: a view, which changes no result and no key."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from warpctl.spec.base import SpecModel
from warpctl.spec.models import Uri


class TrackerType(StrEnum):
    TENSOR_BOARD = "TensorBoard"
    WAND_B = "WandB"
    ML_FLOW = "MLflow"
    TRACKIO = "Trackio"


class Tracking(SpecModel):
    """A tracker that is told the metrics of all RL runs; credentials come from the worker's environment."""

    type: TrackerType
    """TensorBoard, WandB, MLflow or Trackio; the worker needs warpctl's extra of that name (tensorboard, wandb, mlflow,
    trackio)."""
    project: Annotated[
        str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    ] = "warpctl"
    """Project (MLflow: experiment) that the curves belong to; TensorBoard: a folder of this name."""
    uri: Uri | None = None
    """TensorBoard: the folder of the event files; null: runs/<namespace>/<name>/tensorboard in the store. WandB and MLflow:
    the server; Trackio: the space (owner/name); null: what the tracker's own environment variables say."""
