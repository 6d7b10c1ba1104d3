"""Evaluate the points of one iteration or control: KL to the SFT policy, rewards, length, completions.

Every point is cached on its own: points/<point key>.json is created once, and only missing ones are computed, so a new LITI
rate costs one point and a killed worker loses one. Weights between SFT and a source are interpolated in memory; each
source is read once and nothing is written back. The same prompts and sampling seeds serve every point.
Left out: self-similarity, win rates, several GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from warpctl import artifacts
from warpctl.errors import InputError
from warpctl.reports.evaluation import POINTS_FILE, EvaluatedPoint, NamedPoint, point_key, write_names
from warpctl.spec.stage_input import EvaluateTask, InputArtifact, PointTask
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.storage.file_names import WEIGHTS
from warpctl.storage.manifest import digest_of
from warpctl.workers.harness import Context, run
from warpctl.workers.point_identity import point_identity

MERGE = "merge"


@dataclass(frozen=True)
class WantedPoint:
    """A point with everything that it is computed from."""

    task: PointTask
    identity: Mapping[str, Any]
    source: InputArtifact | None
    """None: the SFT policy."""

    @property
    def key(self) -> str:
        return point_key(self.identity)

    @property
    def liti_rate(self) -> Decimal:
        """0 for the SFT policy."""
        return self.task.liti_rate if self.source else Decimal(0)


def main(context: Context) -> None:
    """Compute the missing points one source at a time, then publish which point is which."""
    stage, store = context.stage_input, context.store
    if not isinstance(stage.task, EvaluateTask):
        raise InputError(f"stage {stage.stage_id} is no evaluation but: {stage.task.kind}")
    wanted = wanted_points(context, stage.task)
    by_key = {point.key: point for point in wanted}
    missing = [point for key, point in by_key.items() if store.stat(artifacts.point(key)) is None]
    lost = [point for point in missing if point.source is not None and not has_weights(context, point.source)]
    for point in lost:
        context.log.warning("point left out", point=point.task.name, reason="its policy's weights were collected")
    missing = [point for point in missing if point not in lost]
    wanted = [point for point in wanted if point.key not in {each.key for each in lost}]
    by_key = {point.key: point for point in wanted}
    done, total = len(by_key) - len(missing), len(by_key)
    context.log.info("points", wanted=total, cached=done)
    context.report_progress(done, total, "points")
    for point, evaluated in _evaluated(context, stage.task, missing):
        store.create_once(artifacts.point(point.key), evaluated.to_bytes())
        done += 1
        reward = sum(evaluated.reward) / len(evaluated.reward)
        kl = sum(evaluated.kl_rb) / len(evaluated.kl_rb)
        context.report_progress(done, total, "points", reward=reward, kl=kl)
        context.log.info("point", point=point.task.name, reward=reward, kl=kl)
    names = [_named(context, stage.task, point) for point in wanted]
    context.publication.write_file(POINTS_FILE, write_names(names))
    context.publication.commit(
        outcome={"points": len(names), "computed": len(missing), "leftOut": len(stage.task.points) - len(names)},
        gpu_seconds=context.gpu_seconds(),
    )


def has_weights(context: Context, source: InputArtifact) -> bool:
    """Whether the weights are still in the store: a policy that retention gave up has left its record alone."""
    artifact, prefix = Artifact.of(context.store, source), weights_prefix(source)
    weights = [artifact.entry(name) for name in artifact.names(prefix) if name.endswith(WEIGHTS)]
    return bool(weights) and all(context.store.stat(entry.path) is not None for entry in weights)


def wanted_points(context: Context, task: EvaluateTask) -> list[WantedPoint]:
    """The points of the task with their identities.

    A member that is no longer in the store, or that is not the very one that was merged (it was made anew since), is left out
    with a warning: its point would not belong to this merge.
    """
    inputs = {artifact.role: artifact for artifact in context.stage_input.inputs}
    manifests = {role: Artifact.of(context.store, artifact).manifest for role, artifact in inputs.items()}
    merged = {parent.role: parent.content_digest for parent in manifests[MERGE].parents} if MERGE in manifests else {}
    content = {role: manifest.content_digest for role, manifest in manifests.items()}
    wanted = []
    for point in task.points:
        source = inputs.get(point.source)
        if point.source and source is None:
            context.log.warning("point left out", point=point.name, reason="its policy is no longer in the store")
            continue
        if source and merged.get(source.role, content[source.role]) != content[source.role]:
            context.log.warning("point left out", point=point.name, reason="another attempt's policy was merged")
            continue
        identity = point_identity(
            task,
            sft_content=content["sft"],
            source_content=content[source.role] if source else "",
            source_prefix=weights_prefix(source) if source else "",
            liti_rate=point.liti_rate,
            content=content,
        )
        wanted.append(WantedPoint(point, identity, source))
    return wanted


def _evaluated(
    context: Context, task: EvaluateTask, missing: Sequence[WantedPoint]
) -> Iterator[tuple[WantedPoint, EvaluatedPoint]]:
    """The missing points, grouped by source so that each source's weights are read once."""
    if not missing:
        return
    # Behind the door: a stage whose points are all cached needs no torch.
    from warpctl.workers.evaluator import load_evaluator, source_of

    evaluator = load_evaluator(context, task)
    for source in dict.fromkeys(point.source for point in missing):
        context.stop.raise_if_set()
        points = [point for point in missing if point.source == source]
        if source is not None:
            evaluator.load_source(source_of(context, source), num_points=len(points))
        for point in points:
            yield point, evaluator.evaluate(point.liti_rate, point.identity, pause=context.stop.raise_if_set)


def _named(context: Context, task: EvaluateTask, point: WantedPoint) -> NamedPoint:
    """What is in the store counts, even where another attempt was first."""
    return NamedPoint(
        name=point.task.name,
        point_key=point.key,
        iteration=task.iteration,
        control=task.control,
        liti_rate=point.liti_rate,
        digest=digest_of(context.store.read(artifacts.point(point.key))),
    )


if __name__ == "__main__":
    run(main)
