"""The graph of a run: every stage with its key, inputs and task.

    import/sft  import/reward/<name>  import/prompts  import/evaluation-prompts
    rl/<i>/<m>              <- init of iteration i (sft, or merge/<i-1>), sft, rewards, prompts
    merge/<i>               <- init of iteration i, rl/<i>/1 .. rl/<i>/M
    evaluate/<i>            <- sft, merge/<i>, its members that still exist, all rewards, prompts
    control/<c>/rl, control/<c>/evaluate
    report/<i>, report/final <- the evaluations so far

Keys behind the imports build on imported content: until that is known, those stages are `pending`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from warpctl.plan import keys
from warpctl.spec.decimals import decimal_text
from warpctl.spec.models import CheckpointReward, Prompts, Reward, Source, SourceSplit
from warpctl.spec.stage_input import (
    EvaluateTask,
    ImportTask,
    MergeTask,
    PointTask,
    ReportTask,
    RlTask,
    StageKind,
    Task,
)
from warpctl.spec.training import Anchor, Training
from warpctl.spec.warp_run import Control, WarpRun

SFT = "import/sft"
PROMPTS = "import/prompts"
EVALUATION_PROMPTS = "import/evaluation-prompts"
FINAL_REPORT = "report/final"


@dataclass(frozen=True, slots=True)
class Input:
    """An artifact that a stage reads: `role` as in StageInput, `stage_id` of the stage that publishes it.

    An optional input is used when it exists (a member that may have been collected), and never made for this stage's sake.
    """

    role: str
    stage_id: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """A node of the graph. Two stages with one key are one computation."""

    id: str
    kind: StageKind
    key: str
    task: Task
    inputs: tuple[Input, ...] = ()
    iteration: int = 0
    member: int = 0
    control: str = ""


@dataclass(frozen=True)
class StageGraph:
    """All stages whose key is known, in the order of the procedure, and the ids of those that are not yet known."""

    stages: Mapping[str, Stage]
    pending: tuple[str, ...] = ()

    def by_key(self) -> dict[str, Stage]:
        """The first stage of each key."""
        first: dict[str, Stage] = {}
        for stage in self.stages.values():
            first.setdefault(stage.key, stage)
        return first


def final_stage_ids(run: WarpRun) -> tuple[str, ...]:
    """What the run is for: the evaluations, the last merged policy, the final report."""
    iterations = range(1, run.spec.iterations + 1)
    evaluations = [evaluate_id(iteration) for iteration in iterations]
    controls = [f"control/{control}/evaluate" for control in run.spec.controls]
    return (merge_id(run.spec.iterations), *evaluations, *controls, FINAL_REPORT)


def rl_id(iteration: int, member: int) -> str:
    return f"rl/{iteration}/{member}"


def merge_id(iteration: int) -> str:
    return f"merge/{iteration}"


def evaluate_id(iteration: int) -> str:
    return f"evaluate/{iteration}"


def report_id(iteration: int) -> str:
    return f"report/{iteration}"


def stages(run: WarpRun, imported: Mapping[str, str]) -> StageGraph:
    """The graph of `run`; `imported` maps the keys of finished imports to content digests."""
    imports = import_stages(run)
    if any(stage.key not in imported for stage in imports.values()):
        return StageGraph(imports, _pending_ids(run))
    return _Builder(run, imports, {stage.id: imported[stage.key] for stage in imports.values()}).graph()


def import_stages(run: WarpRun) -> dict[str, Stage]:
    """The imports: known from the spec alone."""
    rewards = (*run.spec.models.rewards, *run.spec.models.held_out_rewards)
    checkpoints = [reward for reward in rewards if isinstance(reward, CheckpointReward)]
    split = run.spec.prompts.evaluation_split
    wanted: list[tuple[str, str, Source | CheckpointReward | Prompts | SourceSplit]] = [
        (SFT, "Model", run.spec.models.sft),
        *((f"import/reward/{reward.name}", "Model", reward) for reward in checkpoints),
        (PROMPTS, "Prompts", run.spec.prompts),
        *([(EVALUATION_PROMPTS, "Prompts", split)] if isinstance(split, SourceSplit) else []),
    ]
    nonce = run.refresh_nonce
    return {
        stage_id: Stage(
            id=stage_id,
            kind=StageKind.IMPORT,
            key=keys.import_key(what=what, uri=source.uri, revision=source.revision, refresh_nonce=nonce),
            task=ImportTask.model_validate({"what": what, "uri": source.uri, "revision": source.revision}),
        )
        for stage_id, what, source in wanted
    }


def _pending_ids(run: WarpRun) -> tuple[str, ...]:
    spec, ids = run.spec, []
    for iteration in range(1, spec.iterations + 1):
        ids += [rl_id(iteration, member) for member in range(1, spec.rl_runs + 1)]
        ids += [merge_id(iteration), evaluate_id(iteration)]
        ids += [report_id(iteration)] if iteration < spec.iterations else []
    for control in spec.controls:
        ids += [f"control/{control}/rl", f"control/{control}/evaluate"]
    return (*ids, FINAL_REPORT)


@dataclass
class _Builder:
    """Builds the graph in order; `content` maps import stage ids to content digests."""

    run: WarpRun
    imports: dict[str, Stage]
    content: Mapping[str, str]
    built: dict[str, Stage] = field(default_factory=dict)

    def graph(self) -> StageGraph:
        spec = self.run.spec
        self.built = dict(self.imports)
        evaluations: list[Stage] = []
        for iteration in range(1, spec.iterations + 1):
            for member in range(1, spec.rl_runs + 1):
                self._add(self._rl(iteration, member))
            self._add(self._merge(iteration))
            evaluations.append(self._add(self._evaluate(iteration)))
            if iteration < spec.iterations:
                self._add(self._report(report_id(iteration), evaluations, iteration))
        for control in spec.controls:
            self._add(self._control_rl(control))
            evaluations.append(self._add(self._control_evaluate(control)))
        self._add(self._report(FINAL_REPORT, evaluations, spec.iterations))
        return StageGraph(self.built)

    def _add(self, stage: Stage) -> Stage:
        self.built[stage.id] = stage
        return stage

    def _init(self, iteration: int) -> Input:
        return Input("init", SFT if iteration == 1 else merge_id(iteration - 1))

    def _identity(self, stage_id: str) -> str:
        if stage_id in self.content:
            return f"content:{self.content[stage_id]}"
        return f"key:{self.built[stage_id].key}"

    def _reward(self, reward: Reward) -> keys.Projection:
        return keys.reward_projection(reward, self.content.get(f"import/reward/{reward.name}", ""))

    def _reward_inputs(self, rewards: tuple[Reward, ...]) -> tuple[Input, ...]:
        checkpoints = [reward for reward in rewards if isinstance(reward, CheckpointReward)]
        return tuple(Input(f"reward/{reward.name}", f"import/reward/{reward.name}") for reward in checkpoints)

    def _prompt_inputs(self) -> tuple[Input, ...]:
        own_file = (Input("prompts/evaluation", EVALUATION_PROMPTS),) if EVALUATION_PROMPTS in self.imports else ()
        return (Input("prompts", PROMPTS), *own_file)

    def _rl(self, iteration: int, member: int) -> Stage:
        steps = self.run.spec.training.steps_of(iteration)
        stage_id = rl_id(iteration, member)
        return self._rl_stage(stage_id, iteration, member, steps=steps, training=self.run.spec.training)

    def _control_rl(self, control: Control) -> Stage:
        """One RL run from the SFT policy, with the seeds of iteration 1, member 1, so that differences are paired."""
        spec = self.run.spec
        steps, training = spec.training.steps_of(1), spec.training
        match control:
            case Control.NO_ANCHOR:
                training = training.model_copy(update={"anchor": Anchor.NO_ANCHOR})
            case Control.SFT_ANCHOR:
                training = training.model_copy(update={"anchor": Anchor.SFT})
            case Control.COMPUTE_MATCHED:
                per_member = sum(training.steps_of(iteration) for iteration in range(1, spec.iterations + 1))
                steps = spec.rl_runs * per_member
        return self._rl_stage(f"control/{control}/rl", 1, 1, steps=steps, training=training, control=control)

    def _rl_stage(  # private: three places that build an RL stage share it
        self, stage_id: str, iteration: int, member: int, *, steps: int, training: Training, control: str = ""
    ) -> Stage:
        spec, init = self.run.spec, self._init(iteration)
        key = keys.rl_key(
            algorithm_version=spec.algorithm_version,
            seed=spec.seed,
            iteration=iteration,
            member=member,
            steps=steps,
            init=self._identity(init.stage_id),
            sft=self._identity(SFT),
            training=training,
            prompts=keys.prompts_projection(spec.prompts, self.content[PROMPTS]),
            rewards=[self._reward(reward) for reward in spec.models.rewards],
        )
        task = RlTask(
            algorithm_version=spec.algorithm_version,
            seed=spec.seed,
            iteration=iteration,
            member=member,
            steps=steps,
            training=training,
            prompts=spec.prompts,
            rewards=spec.models.rewards,
            tracking=spec.tracking,
        )
        inputs = (init, Input("sft", SFT), *self._reward_inputs(spec.models.rewards), *self._prompt_inputs())
        shown = (0, 0) if control else (iteration, member)
        return Stage(stage_id, StageKind.RL, key, task, inputs, iteration=shown[0], member=shown[1], control=control)

    def _merge(self, iteration: int) -> Stage:
        spec, init = self.run.spec, self._init(iteration)
        members = [rl_id(iteration, member) for member in range(1, spec.rl_runs + 1)]
        key = keys.merge_key(
            algorithm_version=spec.algorithm_version,
            merge=spec.merge,
            init=self._identity(init.stage_id),
            members=[self._identity(member) for member in members],
        )
        task = MergeTask(
            granularity=spec.merge.granularity,
            order=spec.merge.order,
            liti_rate=spec.merge.liti_rate,
            serving_copy=spec.merge.serving_copy,
        )
        inputs = (init, *(Input(f"member/{number}", member) for number, member in enumerate(members, start=1)))
        return Stage(merge_id(iteration), StageKind.MERGE, key, task, inputs, iteration=iteration)

    def _evaluate(self, iteration: int) -> Stage:
        members = range(1, self.run.spec.rl_runs + 1)
        points = (
            PointTask(name="sft", source=""),
            *(PointTask(name=f"member/{member}", source=f"member/{member}") for member in members),
            *self._liti_points("merge"),
        )
        inputs = (
            Input("merge", merge_id(iteration)),
            *(Input(f"member/{member}", rl_id(iteration, member), optional=True) for member in members),
        )
        return self._evaluate_stage(evaluate_id(iteration), merge_id(iteration), points, inputs, iteration=iteration)

    def _control_evaluate(self, control: Control) -> Stage:
        source = f"control/{control}/rl"
        points = (PointTask(name="sft", source=""), *self._liti_points("control"))
        inputs = (Input("control", source),)
        return self._evaluate_stage(f"control/{control}/evaluate", source, points, inputs, control=control)

    def _liti_points(self, source: str) -> tuple[PointTask, ...]:
        rates = {*self.run.spec.evaluation.liti_rates, Decimal(1)}
        return tuple(
            PointTask(name=f"liti/{decimal_text(rate)}", source=source, liti_rate=rate) for rate in sorted(rates)
        )

    def _evaluate_stage(  # private: two places that build an evaluation share it
        self,
        stage_id: str,
        source_id: str,
        points: tuple[PointTask, ...],
        inputs: tuple[Input, ...],
        *,
        iteration: int = 0,
        control: str = "",
    ) -> Stage:
        spec = self.run.spec
        all_rewards = (*spec.models.rewards, *spec.models.held_out_rewards)
        key = keys.evaluate_key(
            algorithm_version=spec.algorithm_version,
            source=self._identity(source_id),
            sft=self._identity(SFT),
            points=[point.name for point in points],
            evaluation=spec.evaluation,
            training=spec.training,
            prompts=keys.prompts_projection(spec.prompts, self.content[PROMPTS]),
            evaluation_prompts=self.content.get(EVALUATION_PROMPTS, ""),
            rewards=[self._reward(reward) for reward in spec.models.rewards],
            held_out_rewards=[self._reward(reward) for reward in spec.models.held_out_rewards],
        )
        task = EvaluateTask(
            algorithm_version=spec.algorithm_version,
            iteration=iteration,
            control=control,
            points=points,
            seed=spec.evaluation.seed,
            num_prompts=spec.evaluation.num_prompts,
            num_generations=spec.evaluation.num_generations,
            training=spec.training,
            prompts=spec.prompts,
            rewards=spec.models.rewards,
            held_out_rewards=spec.models.held_out_rewards,
        )
        inputs = (Input("sft", SFT), *inputs, *self._reward_inputs(all_rewards), *self._prompt_inputs())
        return Stage(stage_id, StageKind.EVALUATE, key, task, inputs, iteration=iteration, control=control)

    def _report(self, stage_id: str, evaluations: list[Stage], iteration: int) -> Stage:
        spec = self.run.spec
        key = keys.report_key(
            run=self.run.full_name, evaluations=[stage.key for stage in evaluations], evaluation=spec.evaluation
        )
        task = ReportTask(
            confidence_level=spec.evaluation.confidence_level,
            hypervolume=spec.evaluation.hypervolume,
            spec=_shown_spec(self.run),
        )
        inputs = tuple(Input(f"evaluate/{stage.id}", stage.id) for stage in evaluations)
        return Stage(stage_id, StageKind.REPORT, key, task, inputs, iteration=iteration)


def _shown_spec(run: WarpRun) -> dict[str, object]:
    """The part of the spec that a report shows: what shaped the outcome, without compute."""
    shown = run.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"compute", "retry"})
    return {"name": run.metadata.name, "namespace": run.metadata.namespace, **shown}
