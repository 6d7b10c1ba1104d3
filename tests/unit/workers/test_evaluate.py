"""The evaluate worker over a store: which points, what is cached, what identifies a point, whose members."""

import json
import weakref
from decimal import Decimal

import pytest
import structlog

from tests.builders.evaluations import evaluate_task, publish_stage
from tests.builders.policies import policy_files, publish_policy
from warpctl import artifacts
from warpctl.errors import InputError, Interrupted
from warpctl.reports.evaluation import POINTS_FILE, EvaluatedPoint, read_names
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import digest_of
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.tiny.grammar import all_topics
from warpctl.workers import evaluator
from warpctl.workers.evaluate import main, wanted_points
from warpctl.workers.harness import Context
from warpctl.workers.point_evaluation import Evaluator
from warpctl.workers.point_identity import point_identity

POINTS = [
    {"name": "sft", "source": ""},
    {"name": "member/1", "source": "member/1"},
    {"name": "liti/0.5", "source": "merge", "litiRate": "0.5"},
    {"name": "liti/1", "source": "merge", "litiRate": "1"},
]
REWARD = {"type": "Function", "name": "truth", "function": "warpctl.tiny.ground_truth:score", "revision": "1"}


def settings(**changes):
    return {
        "points": POINTS,
        "numPrompts": 4,
        "training": {"steps": [1], "sampling": {"temperature": "0.9", "maxNewTokens": 6}},
        "prompts": {"uri": "prompts", "evaluationSplit": {"type": "HeldOut", "count": 6}},
        "rewards": [REWARD],
        **changes,
    }


@pytest.fixture(scope="module")
def policies():
    return [policy_files(seed) for seed in (1, 2, 3)]


class World:
    """A store with SFT, one RL run and the merge of it, and the evaluate stages over them."""

    def __init__(self, folder, policies):
        self.store = Store.open(str(folder))
        sft, member, merged = policies
        self.sft = publish_policy(self.store, sft, role="sft", stage_id="import/sft")
        self.member = publish_policy(self.store, member, role="member/1", stage_id="rl/1/1", kind=StageKind.RL)
        self.merge = publish_policy(
            self.store, merged, role="merge", stage_id="merge/1", kind=StageKind.MERGE, inputs=(self.member,)
        )
        lines = "".join(json.dumps({"prompt": topic.prompt}) + "\n" for topic in all_topics()[:16])
        self.prompts = publish_stage(
            self.store,
            stage_id="import/prompts",
            kind=StageKind.IMPORT,
            role="prompts",
            task=ImportTask(what="Prompts", uri="prompts", revision="main"),
            files={"prompts.jsonl": lines.encode()},
        )

    def context(self, *, key="e1", inputs=None, **changes):
        stage = StageInput(
            stage_id="evaluate/1",
            kind=StageKind.EVALUATE,
            key=key,
            attempt_id=f"attempt-{key}",
            namespace="default",
            run="demo",
            storage=self.store.root,
            inputs=(self.sft, self.member, self.merge, self.prompts) if inputs is None else inputs,
            task=evaluate_task(**settings(**changes)),
        )
        return Context(stage, self.store, Publication(self.store, stage), structlog.stdlib.get_logger())

    def run(self, **changes):
        context = self.context(**changes)
        main(context)
        return read_names(Artifact.load(self.store, "evaluate", context.stage_input.key).read(POINTS_FILE))

    def point(self, named):
        data = self.store.read(artifacts.point(named.point_key))
        assert digest_of(data) == named.digest
        return EvaluatedPoint.from_bytes(data)


@pytest.fixture
def world(tmp_path, policies):
    return World(tmp_path / "store", policies)


@pytest.fixture
def evaluated_rates(monkeypatch):
    """The rates that were really computed, in order."""
    rates = []
    original = Evaluator.evaluate

    def recording(self, liti_rate, identity, **rest):
        rates.append(str(liti_rate))
        return original(self, liti_rate, identity, **rest)

    monkeypatch.setattr(Evaluator, "evaluate", recording)
    return rates


def test_every_point_is_published_under_its_name_with_plausible_content(world):
    named = world.run()

    assert [point.name for point in named] == ["sft", "member/1", "liti/0.5", "liti/1"]
    points = {point.name: world.point(point) for point in named}
    for name, point in points.items():
        assert len(point.prompts) == len(point.completions) == 4
        assert set(point.scores) == {"truth"}
        assert point.reward == point.scores["truth"]
        assert max(point.lengths) <= 6
        assert (sum(point.kl_rb) > 0.1) is (name != "sft")
    assert len({point.prompts for point in points.values()}) == 1
    assert [named[0].liti_rate, named[2].liti_rate] == [Decimal(0), Decimal("0.5")]


def test_a_second_stage_computes_only_the_rate_that_is_new(world, evaluated_rates):
    first = world.run()
    assert evaluated_rates == ["0", "1", "0.5", "1"]
    evaluated_rates.clear()

    more = [*POINTS, {"name": "liti/0.3", "source": "merge", "litiRate": "0.3"}]
    second = world.run(key="e2", points=more)

    assert evaluated_rates == ["0.3"]
    assert second[:4] == first


def test_a_stage_whose_points_are_all_there_loads_no_model(world, monkeypatch):
    first = world.run()
    monkeypatch.setattr(evaluator, "load_evaluator", None)

    assert world.run(key="e2") == first


@pytest.fixture
def reads(monkeypatch):
    """Each read of a source: its role, and weak references to the tensors that it went to."""
    found = []
    original = evaluator.source_of

    def source_of(context, source):
        read = original(context, source)

        def recording(targets):
            found.append((source.role, [weakref.ref(target) for target in targets.values()]))
            read(targets)

        return recording

    monkeypatch.setattr(evaluator, "source_of", source_of)
    return found


def test_each_source_is_read_once_and_none_that_is_not_needed(world, reads):
    world.run(points=POINTS[:2])
    world.run(key="e2")

    assert [role for role, _ in reads] == ["member/1", "merge"]


def test_of_two_sources_one_is_in_memory_at_a_time(world, reads, monkeypatch):
    """Both are kept beside the policy, for two points each."""
    alive = []
    load_source = Evaluator.load_source

    def loading(made, read, *, num_points):
        def then(targets):
            alive.append([one for _, kept in reads for one in kept if one() is not None])
            read(targets)

        load_source(made, then, num_points=num_points)

    monkeypatch.setattr(Evaluator, "load_source", loading)
    world.run(points=[*POINTS, {"name": "half", "source": "member/1", "litiRate": "0.5"}])

    assert [role for role, _ in reads] == ["member/1", "merge"]
    assert alive == [[], []]
    assert all(kept for _, kept in reads)


def test_what_only_one_point_needs_is_said_to_be_for_one(world, monkeypatch):
    """So that it takes no memory of its own; points that are there already do not count."""
    told = []
    load_source = Evaluator.load_source
    monkeypatch.setattr(
        Evaluator,
        "load_source",
        lambda made, read, *, num_points: told.append(num_points) or load_source(made, read, num_points=num_points),
    )
    world.run()
    world.run(key="e2", points=[*POINTS, {"name": "liti/0.3", "source": "merge", "litiRate": "0.3"}])

    assert told == [1, 2, 1]


def test_a_source_of_another_shape_is_refused(world):
    wide = publish_policy(
        world.store,
        policy_files(4, width=32),
        role="merge",
        stage_id="merge/2",
        kind=StageKind.MERGE,
        inputs=(world.member,),
    )
    context = world.context(inputs=(world.sft, world.member, wide, world.prompts))

    with pytest.raises(InputError, match="merge/2: merged/ has other weights than the SFT policy"):
        main(context)


def test_a_point_does_not_depend_on_which_points_were_computed_beside_it(world, tmp_path, policies):
    together = world.run()
    other = World(tmp_path / "other", policies)

    (alone,) = other.run(points=POINTS[2:3])

    assert alone.point_key == together[2].point_key
    assert alone.digest == together[2].digest


def test_a_worker_that_is_stopped_keeps_the_points_that_it_finished(world, evaluated_rates):
    context = world.context()
    report = context.report_progress

    def stop_after_two(done, total, unit, **fields):
        report(done, total, unit, **fields)
        if done == 2:
            context.stop.set()

    context.report_progress = stop_after_two
    with pytest.raises(Interrupted):
        main(context)
    assert world.store.stat(artifacts.marker("evaluate", "e1")) is None
    evaluated_rates.clear()

    world.run()

    assert evaluated_rates == ["0.5", "1"]


def test_points_of_a_policy_whose_weights_were_collected_are_found_and_a_new_rate_is_left_out(world):
    """Retention has left the record: what was evaluated is found by content, what was not cannot be any more."""
    first = world.run()
    for artifact in (world.member, world.merge):
        for file in Artifact.of(world.store, artifact).manifest.files:
            if file.name.endswith(".safetensors"):
                world.store.delete(file.path)
    more = [*POINTS, {"name": "liti/0.3", "source": "merge", "litiRate": "0.3"}]

    with structlog.testing.capture_logs() as lines:
        second = world.run(key="e2", points=more)

    assert second == first
    assert [line["point"] for line in lines if line["log_level"] == "warning"] == ["liti/0.3"]
    assert Artifact.load(world.store, "evaluate", "e2").manifest.outcome["leftOut"] == 1


def test_a_member_that_was_collected_is_left_out_with_a_warning(world):
    with structlog.testing.capture_logs() as lines:
        named = world.run(inputs=(world.sft, world.merge, world.prompts))

    assert [point.name for point in named] == ["sft", "liti/0.5", "liti/1"]
    assert [line["point"] for line in lines if line["log_level"] == "warning"] == ["member/1"]


def test_a_member_that_was_made_anew_after_the_merge_is_not_passed_off_as_its_member(world, policies):
    anew = publish_policy(world.store, policies[0], role="member/1", stage_id="rl/1/again", kind=StageKind.RL)

    with structlog.testing.capture_logs() as lines:
        named = world.run(inputs=(world.sft, anew, world.merge, world.prompts))

    assert "member/1" not in [point.name for point in named]
    assert [line["reason"] for line in lines if line["log_level"] == "warning"] == [
        "another attempt's policy was merged"
    ]


def test_what_another_attempt_stored_first_is_what_is_named(world):
    wanted = wanted_points(world.context(), evaluate_task(**settings()))
    ours = world.run(points=POINTS[:1])
    theirs = EvaluatedPoint.from_bytes(world.store.read(artifacts.point(ours[0].point_key))).to_bytes()
    world.store.write(artifacts.point(wanted[0].key), theirs.replace(b'"lengths":[', b'"lengths": ['))

    named = world.run(key="e2")

    assert named[0].digest == digest_of(theirs.replace(b'"lengths":[', b'"lengths": ['))


def identity(*, rate="0.5", source="s", prefix="merged/", sft="t", content=None, **changes):
    return point_identity(
        evaluate_task(**settings(**changes)),
        sft_content=sft,
        source_content=source,
        source_prefix=prefix,
        liti_rate=Decimal(rate),
        content={"prompts": "p", "reward/learned": "r"} | (content or {}),
    )


LEARNED = {"type": "Checkpoint", "name": "learned", "uri": "here", "revision": "main"}
HTTP = {"type": "Http", "name": "judge", "url": "http://a/", "revision": "1"}


@pytest.mark.parametrize(
    "changed",
    [
        {"rate": "0.6"},
        {"source": "x"},
        {"prefix": "next-init/"},
        {"sft": "x"},
        {"content": {"prompts": "x"}},
        {"content": {"prompts/evaluation": "x"}},
        {"seed": 1},
        {"numPrompts": 3},
        {"numGenerations": 2},
        {"algorithmVersion": "2"},
        {"training": {"steps": [1], "sampling": {"temperature": "0.8", "maxNewTokens": 6}}},
        {"training": {"steps": [1], "sampling": {"temperature": "0.9", "topP": "0.5", "maxNewTokens": 6}}},
        {"training": {"steps": [1], "sampling": {"temperature": "0.9", "maxNewTokens": 7}}},
        {"training": {**settings()["training"], "precision": "BFloat16"}},
        {"prompts": {"uri": "prompts", "evaluationSplit": {"type": "HeldOut", "count": 5}}},
        {"prompts": {**settings()["prompts"], "maxPromptTokens": 5}},
        {"rewards": [{**REWARD, "weight": "2"}]},
        {"rewards": [{**REWARD, "revision": "2"}]},
        {"rewards": [REWARD, LEARNED]},
        {"heldOutRewards": [HTTP]},
    ],
)
def test_whatever_changes_a_points_result_changes_its_identity(changed):
    assert identity(**changed) != identity()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompts": {**settings()["prompts"], "uri": "moved", "revision": "2"}}, {}),
        ({"training": {**settings()["training"], "steps": [99], "maxKl": "3"}}, {}),
        ({"iteration": 2, "control": "NoAnchor"}, {}),
        ({"rate": "0.50"}, {}),
        ({"rate": "0", "source": "x"}, {"rate": "0", "source": "y", "prefix": ""}),
        ({"rewards": [{**LEARNED, "uri": "moved"}]}, {"rewards": [LEARNED]}),
        ({"heldOutRewards": [{**HTTP, "url": "http://b/"}]}, {"heldOutRewards": [HTTP]}),
    ],
)
def test_what_changes_no_result_changes_no_identity(one, other):
    assert identity(**one) == identity(**other)


def test_a_checkpoint_reward_is_identified_by_its_content():
    assert identity(rewards=[LEARNED]) != identity(rewards=[LEARNED], content={"reward/learned": "x"})


def test_another_kind_of_stage_is_refused(world):
    context = world.context()
    context.stage_input = context.stage_input.model_copy(
        update={"task": ImportTask(what="Model", uri="x", revision="y")}
    )

    with pytest.raises(InputError, match="is no evaluation but: import"):
        main(context)
