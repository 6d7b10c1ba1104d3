"""What a namespace's runs may ask for: nothing that is not allowed, each refusal at its field."""

from __future__ import annotations

import pytest

from tests.builders.world import a_run
from warpctl.render.tenancy import is_below, is_image_of, is_url_below, laptop_paths, refusals
from warpctl.spec.controller_config import ControllerConfig

MODELS = {
    "sft": {"uri": "gs://team-a/sft"},
    "rewards": [{"type": "Checkpoint", "name": "q", "uri": "hf://owner/reward"}],
    "heldOutRewards": [{"type": "Function", "name": "f", "function": "a:b", "revision": "1"}],
}
CLOUD = {
    "storage": {"uri": "gs://team-a/warp"},
    "models": MODELS,
    "prompts": {"uri": "https://example.org/prompts.jsonl"},
}


def run_in(namespace="default", **spec):
    run = a_run(**{**CLOUD, **spec})
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"namespace": namespace})})


def config(*entries, **more):
    return ControllerConfig.model_validate({"tenancy": list(entries), **more})


ALLOWED = config({"storage": ["gs://team-a"]})


def refused(run, allowed=ALLOWED):
    return [(each.field, each.value) for each in refusals(run, allowed)]


def with_pod(**template):
    return run_in(compute={"rl": {"podTemplate": template}})


POD = "spec.compute.rl.podTemplate"


def test_a_run_below_its_prefix_is_allowed_with_public_imports():
    assert refused(run_in()) == []


def test_without_an_entry_nothing_is_allowed():
    assert refused(run_in(), config()) == [
        ("spec.storage.uri", "gs://team-a/warp"),
        ("spec.models.sft.uri", "gs://team-a/sft"),
    ]


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"storage": {"uri": "gs://team-b/warp"}}, "spec.storage.uri", "gs://team-b/warp"),
        ({"storage": {"uri": "gs://team-abc/warp"}}, "spec.storage.uri", "gs://team-abc/warp"),
        ({"storage": {"uri": "gs://team-a/../team-b"}}, "spec.storage.uri", "gs://team-a/../team-b"),
        ({"storage": {"uri": "https://team-a/warp"}}, "spec.storage.uri", "https://team-a/warp"),
        ({"storage": {"uri": "hf://buckets/x"}}, "spec.storage.uri", "hf://buckets/x"),
        ({"storage": {"uri": "file:///etc"}}, "spec.storage.uri", "file:///etc"),
        ({"storage": {"uri": "/var/lib/kubelet"}}, "spec.storage.uri", "/var/lib/kubelet"),
        ({"models": {**MODELS, "sft": {"uri": "gs://other/sft"}}}, "spec.models.sft.uri", "gs://other/sft"),
        (
            {"models": {**MODELS, "rewards": [{"type": "Checkpoint", "name": "q", "uri": "s3://x"}]}},
            "spec.models.rewards[0].uri",
            "s3://x",
        ),
        (
            {"models": {**MODELS, "heldOutRewards": [{"type": "Checkpoint", "name": "h", "uri": "/etc/passwd"}]}},
            "spec.models.heldOutRewards[0].uri",
            "/etc/passwd",
        ),
        ({"prompts": {"uri": "gs://other/p"}}, "spec.prompts.uri", "gs://other/p"),
        (
            {"prompts": {"uri": "gs://team-a/p", "evaluationSplit": {"type": "Source", "uri": "gs://other/e"}}},
            "spec.prompts.evaluationSplit.uri",
            "gs://other/e",
        ),
        ({"tracking": {"type": "TensorBoard", "uri": "gs://other/tb"}}, "spec.tracking.uri", "gs://other/tb"),
        ({"tracking": {"type": "TensorBoard", "uri": "https://x/tb"}}, "spec.tracking.uri", "https://x/tb"),
    ],
)
def test_every_place_outside_the_prefixes_is_refused_at_its_field(spec, field, value):
    assert refused(run_in(**spec)) == [(field, value)]


def test_files_of_a_node_are_allowed_where_the_configuration_says_so():
    for prefix in ("file:///data", "/data/"):
        allowed = config({"storage": ["gs://team-a", prefix]})
        for uri in ("file:///data/warp", "/data/warp"):
            assert refused(run_in(storage={"uri": uri}), allowed) == []
        assert refused(run_in(storage={"uri": "/database"}), allowed) == [("spec.storage.uri", "/database")]


def test_the_entry_that_names_the_namespace_counts_before_the_one_for_all():
    allowed = config({"storage": ["gs://team-a"]}, {"namespaces": ["ml"], "storage": ["gs://ml"]})
    assert refused(run_in("other"), allowed) == []
    assert [field for field, _ in refused(run_in("ml"), allowed)] == ["spec.storage.uri", "spec.models.sft.uri"]
    assert (
        refused(run_in("ml", storage={"uri": "gs://ml/x"}, models={**MODELS, "sft": {"uri": "gs://ml/s"}}), allowed)
        == []
    )


def test_a_message_says_what_is_allowed_and_who_can_change_it():
    (refusal,) = refusals(run_in(storage={"uri": "gs://x"}), ALLOWED)
    assert str(refusal) == (
        "spec.storage.uri must lie below a storage prefix that namespace default is allowed (gs://team-a), got gs://x"
    )
    assert "administrator" in refusal.hint


@pytest.mark.parametrize(
    ("template", "field", "entry"),
    [
        ({"image": "evil/image"}, "image", {"images": ["evil/image"]}),
        ({"serviceAccountName": "admin"}, "serviceAccountName", {"serviceAccounts": ["admin"]}),
        (
            {"volumes": [{"name": "a", "type": "persistentVolumeClaim", "sourceName": "c", "mountPath": "/a"}]},
            "volumes[0].type",
            {"volumes": ["persistentVolumeClaim"]},
        ),
        (
            {"volumes": [{"name": "a", "type": "emptyDir", "mountPath": "/a"}]},
            "volumes[0].type",
            {"volumes": ["emptyDir"]},
        ),
        (
            {"volumes": [{"name": "a", "type": "configMap", "sourceName": "c", "mountPath": "/a"}]},
            "volumes[0].type",
            {"volumes": ["configMap"]},
        ),
        ({"envFromSecrets": ["other"]}, "envFromSecrets[0]", {"secrets": ["other"]}),
        ({"imagePullSecrets": ["other"]}, "imagePullSecrets[0]", {"secrets": ["*"]}),
        (
            {"env": [{"name": "A", "secretKeyRef": {"name": "other", "key": "k"}}]},
            "env[0].secretKeyRef.name",
            {"secrets": ["other"]},
        ),
        ({"priorityClassName": "system-node-critical"}, "priorityClassName", {"priorityClasses": ["*"]}),
        ({"priorityClassName": "urgent"}, "priorityClassName", {"priorityClasses": ["low", "urgent"]}),
        ({"runtimeClassName": "kata"}, "runtimeClassName", {"runtimeClasses": ["kata"]}),
        ({"runtimeClassName": "kata"}, "runtimeClassName", {"runtimeClasses": ["*"]}),
    ],
)
def test_a_part_of_a_pod_is_refused_until_it_is_allowed(template, field, entry):
    run = with_pod(**template)
    assert [each for each, _ in refused(run)] == [f"{POD}.{field}"]
    assert refused(run, config({"storage": ["gs://team-a"], **entry})) == []


def test_a_volume_of_a_secret_needs_its_type_and_its_name():
    run = with_pod(volumes=[{"name": "a", "type": "secret", "sourceName": "other", "mountPath": "/a"}])
    assert refused(run) == [(f"{POD}.volumes[0].type", "secret"), (f"{POD}.volumes[0].sourceName", "other")]
    only_type = config({"storage": ["gs://team-a"], "volumes": ["secret"]})
    assert refused(run, only_type) == [(f"{POD}.volumes[0].sourceName", "other")]


def with_judge(url, group="rewards"):
    judge = {"type": "Http", "name": "j", "url": url, "revision": "1"}
    return run_in(models={**MODELS, group: [judge]})


@pytest.mark.parametrize("group", ["rewards", "heldOutRewards"])
def test_an_http_reward_is_asked_only_where_the_namespace_may_ask(group):
    run = with_judge("https://judge.team-a.svc/v1/score", group)
    assert refused(run) == [(f"spec.models.{group}[0].url", "https://judge.team-a.svc/v1/score")]
    assert "none is" in str(refusals(run, ALLOWED)[0])
    for prefix in ("https://judge.team-a.svc", "https://judge.team-a.svc/v1/", "*"):
        assert refused(run, config({"storage": ["gs://team-a"], "rewardUrls": [prefix]})) == []
    other = config({"storage": ["gs://team-a"], "rewardUrls": ["https://judge.team-b.svc"]})
    assert [field for field, _ in refused(run, other)] == [f"spec.models.{group}[0].url"]


@pytest.mark.parametrize(
    ("url", "is_inside"),
    [
        ("https://judge/v1", True),
        ("https://judge/v1/score?key=1#x", True),
        ("https://judge/v1?next=../admin", True),
        ("https://judge/v10", False),
        ("http://judge/v1", False),
        ("https://judge:8443/v1", False),
        ("https://judge/v1/../admin", False),
        ("https://judge/v1/%2E%2e/admin", False),
        ("https://judge/v1/..%2fadmin", False),
        ("https://judge/v1\\..\\admin", False),
        ("https://judge@evil/v1", False),
        ("https://judge.evil/v1", False),
    ],
)
def test_a_url_stays_below_its_prefix_whatever_it_is_spelled_like(url, is_inside):
    assert is_url_below(url, "https://judge/v1/") is is_inside


@pytest.mark.parametrize("kind", ["import", "rl", "merge", "evaluate", "report"])
def test_pods_of_every_kind_are_looked_at(kind):
    run = run_in(compute={kind: {"podTemplate": {"image": "evil"}}})
    assert refused(run) == [(f"spec.compute.{kind}.podTemplate.image", "evil")]


def test_the_clusters_own_image_and_account_need_no_permission():
    own = config(
        {"storage": ["gs://team-a"]},
        images={"slim": "r/slim:1", "worker": "r/worker:1"},
        defaults={"serviceAccount": "w"},
    )
    assert refused(with_pod(image="r/worker:1", serviceAccountName="w"), own) == []


@pytest.mark.parametrize(
    ("uri", "prefix", "is_inside"),
    [
        ("gs://team-a", "gs://team-a/", True),
        ("gs://team-a/x", "gs://team-a", True),
        ("gs://team-ab", "gs://team-a", False),
        ("gs://anything", "gs://", True),
        ("s3://anything", "gs://", False),
        ("gs://team-a/x/../../b", "gs://team-a", False),
        ("file:///data/x", "/data", True),
        ("data/x", "/data", False),
    ],
)
def test_a_prefix_ends_at_a_slash(uri, prefix, is_inside):
    assert is_below(uri, prefix) is is_inside


@pytest.mark.parametrize(
    ("image", "prefix", "is_allowed"),
    [
        ("ghcr.io/team/x:1", "ghcr.io/team/", True),
        ("ghcr.io/team/x:1", "ghcr.io/team", True),
        ("ghcr.io/team-evil/x:1", "ghcr.io/team", False),
        ("ghcr.io/team/x:1", "ghcr.io/team/x", True),
        ("ghcr.io/team/x@sha256:0", "ghcr.io/team/x", True),
        ("ghcr.io/team/xy:1", "ghcr.io/team/x", False),
        ("ghcr.io/team/x:1", "ghcr.io/team/x:1", True),
        ("ghcr.io/team/x:12", "ghcr.io/team/x:1", False),
        ("ghcr.io:evil/x", "ghcr.io/", False),
    ],
)
def test_an_image_prefix_ends_at_a_slash_a_tag_or_a_digest(image, prefix, is_allowed):
    assert is_image_of(image, prefix) is is_allowed


def test_apply_refuses_paths_of_a_laptop_and_nothing_else():
    assert laptop_paths(run_in()) == ()
    assert laptop_paths(run_in(storage={"uri": "file:///data"})) == ()
    run = a_run(
        storage={"uri": "~/store"},
        models={**MODELS, "sft": {"uri": "../sft"}},
        prompts={"uri": "/prompts", "evaluationSplit": {"type": "Source", "uri": "eval.jsonl"}},
    )
    assert [(each.field, each.value) for each in laptop_paths(run)] == [
        ("spec.storage.uri", "~/store"),
        ("spec.models.sft.uri", "../sft"),
        ("spec.prompts.uri", "/prompts"),
        ("spec.prompts.evaluationSplit.uri", "eval.jsonl"),
    ]
    assert "gs://" in laptop_paths(run)[0].hint
