"""Any valid run, written as YAML and read again, is the same run; decimals keep every digit."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bad_specs import as_yaml
from warpctl.spec.change_class import differences
from warpctl.spec.decimals import decimal_text
from warpctl.spec.merge_method import Granularity, SlerpOrder
from warpctl.spec.parse import parse_text
from warpctl.spec.training import Anchor, Baseline, Precision
from warpctl.spec.warp_run import Control, WarpRun

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
URIS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40),
    st.sampled_from(
        ["gs://bucket/a b", "~/x", "../up", "hf://owner/name", "true", "1", "null", "1e-6", "2026-01-31", "#x"]
    ),
)
REVISIONS = st.sampled_from(["main", "1", "0x10", "yes", "no", "~", "1.0", "2026-01-31", "v1", "a:b"])


def decimals(low, high):
    return st.decimals(min_value=low, max_value=high, allow_nan=False, allow_infinity=False, places=9).map(str)


def rewards():
    common = {"weight": decimals(-1000, 1000)}
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("Checkpoint"), "uri": URIS}, optional={**common, "revision": REVISIONS}),
        st.fixed_dictionaries(
            {"type": st.just("Function"), "function": st.just("a.b:c"), "revision": REVISIONS}, optional=common
        ),
        st.fixed_dictionaries(
            {"type": st.just("Http"), "url": st.just("https://x/y"), "revision": REVISIONS},
            optional={**common, "timeoutSeconds": st.integers(1, 3600)},
        ),
    )


@st.composite
def run_data(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    all_rewards = [{**draw(rewards()), "name": name} for name in names]
    trained = draw(st.integers(1, len(names)))
    generations = draw(st.integers(2, 8))
    micro = draw(st.integers(1, 8))
    steps = st.integers(1, 10_000)
    rates = draw(st.lists(decimals("0.001", "2"), min_size=1, max_size=8, unique_by=Decimal))
    split = st.one_of(
        st.fixed_dictionaries({"type": st.just("HeldOut"), "count": st.integers(100, 1000)}),
        st.fixed_dictionaries({"type": st.just("Source"), "uri": URIS}),
    )
    return {
        "apiVersion": "warpctl.dev/v1alpha1",
        "kind": "WarpRun",
        "metadata": {"name": draw(NAMES), "labels": draw(st.dictionaries(NAMES, URIS, max_size=2))},
        "spec": {
            "storage": {"uri": draw(URIS)},
            "models": {
                "sft": {"uri": draw(URIS), "revision": draw(REVISIONS)},
                "rewards": all_rewards[:trained],
                "heldOutRewards": all_rewards[trained:],
            },
            "prompts": {"uri": draw(URIS), "evaluationSplit": draw(split)},
            "iterations": draw(st.integers(1, 100)),
            "training": {
                "steps": draw(st.lists(steps, min_size=1, max_size=5)),
                "anchor": draw(st.sampled_from([each.value for each in Anchor])),
                "baseline": draw(st.sampled_from([each.value for each in Baseline])),
                "precision": draw(st.sampled_from([each.value for each in Precision])),
                "emaRate": draw(decimals("0.000000001", "1")),
                "maxKl": draw(st.just("Unlimited") | decimals("0.1", "500")),
                "batchSize": generations * micro,
                "microBatchSize": draw(st.sampled_from([None, micro])),
                "numGenerations": generations,
            },
            "merge": {
                "granularity": draw(st.sampled_from([each.value for each in Granularity])),
                "order": draw(st.sampled_from([each.value for each in SlerpOrder])),
                "litiRate": draw(decimals("0", "1")),
            },
            "evaluation": {"litiRates": rates, "numPrompts": draw(st.none() | st.integers(1, 100))},
            "controls": draw(st.lists(st.sampled_from([each.value for each in Control]), unique=True)),
            "suspend": draw(st.booleans()),
        },
    }


@settings(max_examples=30)
@given(run_data())
def test_a_run_survives_yaml(data):
    run = parse_text(as_yaml(data), source="first.yaml")
    written = run.model_dump(mode="json", by_alias=True, exclude={"status"})
    again = parse_text(as_yaml(written), source="second.yaml")
    assert again == run
    assert differences(run, again) == ()
    assert WarpRun.model_validate_json(run.model_dump_json(by_alias=True)) == run


@settings(max_examples=20)
@given(run_data(), run_data(), st.booleans())
def test_two_runs_differ_in_a_field_exactly_when_their_specs_differ(one, other, is_mixed):
    if is_mixed:  # one section is another, the rest is the same
        other = {**one, "spec": {**one["spec"], "merge": other["spec"]["merge"]}}
    old, new = parse_text(as_yaml(one), source="old.yaml"), parse_text(as_yaml(other), source="new.yaml")
    changes = differences(old, new)
    assert bool(changes) == (old.spec != new.spec)
    assert all(change.old != change.new for change in changes)
    if is_mixed:
        assert all(change.path.startswith("spec.merge.") for change in changes)


@given(st.from_regex(r"[+-]?([0-9]{1,12}(\.[0-9]{0,16})?|\.[0-9]{1,16})([eE][+-]?[0-9]{1})?", fullmatch=True))
def test_the_one_spelling_of_a_decimal_is_exact_short_and_stable(text):
    value = Decimal(text)
    spelt = decimal_text(value)
    assert Decimal(spelt) == value
    assert decimal_text(Decimal(spelt)) == spelt
    assert "e" not in spelt.lower()
    assert "." not in spelt or spelt[-1] not in "0."


def test_a_decimal_of_31_digits_is_not_rounded():
    digits = "0.1234567890123456789012345678901"
    assert decimal_text(Decimal(digits)) == digits
