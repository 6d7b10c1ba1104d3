"""Reading a file: all errors at once, each in one clear line with its place; texts that are no YAML; relative paths."""

from __future__ import annotations

import time

import pytest

from tests.builders.bad_specs import FOLDER, GOOD, as_yaml, spoil
from warpctl.errors import EXIT_BAD_INPUT, SpecError
from warpctl.spec.models import CheckpointReward, FunctionReward, SourceSplit
from warpctl.spec.parse import parse_file, parse_text, resolve_relative_uris

SEVERAL = """\
apiVersion: warpctl.dev/v1alpha1
kind: WarpRun
metadata: {name: Demo}
spec:
  storage: {uri: store}
  models:
    sft: {uri: sft}
    rewards:
      - {type: Checkpoint, name: a, uri: r, weight: 0.50}
      - {type: Function, name: a, function: a.b}
  prompts: {uri: p, evaluationSplit: {type: HeldOut, count: 10}}
  training:
    steps: [1, x]
    emaRate: 1e-6
    numGenerations: 3
    anchor: sft
  merge: {litiRat: "3", litiRate: "1.30"}
  evaluation: {numPrompts: 11, litiRates: [0.3, "1", "1.0"]}
"""
SEVERAL_PROBLEMS = """\
demo.yaml:3:18 metadata.name must be lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends, got Demo
  hint: for example: demo-2
demo.yaml:9:53 spec.models.rewards[0].weight must be a quoted decimal in [-1000, 1000], got 0.50
  hint: quote it: "0.50"
demo.yaml:10:9 spec.models.rewards[1].revision is required
  hint: Names the function's behaviour: change it when the function changes, and only then.
demo.yaml:10:32 spec.models.rewards[1].name must differ from the name of every other reward, got a
demo.yaml:10:45 spec.models.rewards[1].function must be package.module:function, got a.b
  hint: for example: my_rewards.judge:score
demo.yaml:12:3 spec.training.batchSize must be a multiple of numGenerations (3), got 128 by default
  hint: it counts completions, not prompts
demo.yaml:13:16 spec.training.steps[1] must be an integer in [1, 10000000], got x
  hint: one for each iteration, the last one repeating: [9000], or [9000, 7000, 7000, 5000, 5000]
demo.yaml:14:14 spec.training.emaRate must be a quoted decimal in (0, 1], got 1e-6
  hint: quote it: "1e-6"
demo.yaml:16:13 spec.training.anchor must be one of Ema, Sft, NoAnchor, got sft
  hint: did you mean Sft?
demo.yaml:17:11 spec.merge.litiRat is not a field of spec.merge
  hint: did you mean litiRate?
demo.yaml:17:35 spec.merge.litiRate must be in [0, 1], got "1.30"
  hint: 0 keeps the init, 1 keeps the merged policy
demo.yaml:18:28 spec.evaluation.numPrompts must be at most spec.prompts.evaluationSplit.count (10), got 11
  hint: null uses all evaluation prompts
demo.yaml:18:44 spec.evaluation.litiRates[0] must be a quoted decimal in (0, 2], got 0.3
  hint: quote it: "0.3"
demo.yaml:18:54 spec.evaluation.litiRates[2] must not repeat a rate of this list, got "1.0"
"""


def refused(text):
    with pytest.raises(SpecError) as caught:
        parse_text(text, source="demo.yaml")
    return caught.value


def written(error):
    lines = []
    for each in error.problems:
        got = f", got {each.value}" if each.value else ""
        lines.append(f"{each.source}:{each.line}:{each.column} {each.path} {each.message}{got}\n")
        lines.append(f"  hint: {each.hint}\n" if each.hint else "")
    return "".join(lines)


def test_all_errors_of_a_file_come_at_once_in_the_order_of_the_text():
    assert written(refused(SEVERAL)) == SEVERAL_PROBLEMS


def test_a_spec_error_exits_with_two():
    assert refused(SEVERAL).exit_code == EXIT_BAD_INPUT


def test_fields_that_disagree_are_found_beside_a_missing_section():
    text = as_yaml(spoil({"set": {"spec.controls": ["NoAnchor", "NoAnchor"]}, "remove": ["spec.storage", "metadata"]}))
    assert {each.path for each in refused(text).problems} == {"metadata", "spec.storage", "spec.controls[1]"}


def test_a_wrong_field_is_not_said_to_disagree_with_others():
    text = as_yaml(spoil({"set": {"spec.training.batchSize": "many", "spec.training.microBatchSize": 48}}))
    assert [each.path for each in refused(text).problems] == ["spec.training.batchSize"]


def test_a_chain_of_disagreements_is_reported_whole():
    changes = {
        "spec.training.microBatchSize": 48,
        "spec.evaluation.numPrompts": 999,
        "spec.controls": ["NoAnchor", "SftAnchor", "NoAnchor"],
    }
    paths = ["spec.training.microBatchSize", "spec.evaluation.numPrompts", "spec.controls[2]"]
    assert [each.path for each in refused(as_yaml(spoil({"set": changes}))).problems] == paths


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("", 1, 1, "the file is empty", "warpctl schema"),
        ("# nothing\n", 1, 1, "the file is empty", "warpctl schema"),
        ("- a\n- b\n", 1, 1, "a WarpRun must be a mapping", "specs/"),
        ("WarpRun\n", 1, 1, "a WarpRun must be a mapping", "specs/"),
        ("a: 1\n---\nb: 2\n", 2, 1, "more than one YAML document", "one WarpRun a file"),
        ("a:\n\tb: 1\n", 2, 1, "a tab cannot indent YAML", "use spaces"),
        ("a: [1\n", 1, 4, "this is not YAML", "the [ on line 1 is not closed"),
        ("a: 'x\n", 1, 4, "a quoted text is not closed", "close the quote"),
        ("a: b: c\n", 1, 5, "mapping values are not allowed", "check the indentation"),
        ("a: *gone\n", 1, 4, "undefined alias", ""),
        ("a: 1\nb: \x01\n", 2, 4, "the control character U+0001", ""),
        ("%YAML 3.0\n---\na: 1\n", 1, 1, "incompatible YAML", ""),
        ("[" * 5_000, 1, 1, "nested too deeply", ""),
    ],
)
def test_a_text_that_is_no_yaml_mapping_gets_one_line_with_its_place(text, line, column, message, hint):
    (problem,) = refused(text).problems
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("written_value", "message", "hint"),
    [
        (
            "!!python/object/apply:os.system ['true']",
            "has the YAML tag !!python/object/apply:os.system",
            "remove the tag",
        ),
        ("!secret x", "has the YAML tag !secret", "remove the tag"),
        ("!!binary aGk=", "has the YAML tag !!binary", "remove the tag"),
        ("0x10", "must be a plain whole number", 'quote it if it is a text: "0x10"'),
        ("010", "must be a plain whole number", 'quote it if it is a text: "010"'),
        ("{x: &loop [*loop]}", "must not contain itself", "an alias"),
        ("{[a]: 1}", "has a key that is not a text", ""),
        ("{<<: {a: 1}}", "uses a YAML merge key", "write the fields out"),
    ],
)
def test_yaml_that_means_nothing_here_is_named_once_and_never_evaluated(written_value, message, hint):
    text = as_yaml(GOOD).replace("iterations: 3", f"iterations: {written_value}")
    (problem,) = [
        each
        for each in refused(text).problems
        if each.path.startswith("spec.iterations") and "must be an integer" not in each.message
    ]
    assert message in problem.message
    assert hint in problem.hint
    assert text.splitlines()[problem.line - 1].startswith("  iterations:")


def test_a_key_given_twice_is_refused_with_both_places():
    text = as_yaml(GOOD) + "  seed: 1\n  seed: 2\n"
    (problem,) = refused(text).problems
    last = len(text.splitlines())
    assert (problem.path, problem.line, problem.column) == ("spec.seed", last, 3)
    assert problem.message == f"is given twice, first on line {last - 1}"


def test_an_alias_is_followed():
    text = as_yaml(GOOD).replace("litiRate: '0.3'", "litiRate: &eta '0.3'").replace("  - '0.3'", "  - *eta")
    assert "*eta" in text
    assert parse_text(text, source="demo.yaml") == parse_file(FOLDER / "good.yaml")


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    start = time.monotonic()
    (problem,) = refused("\n".join(lines)).problems
    assert "holds more than 20000 values" in problem.message
    assert time.monotonic() - start < 30


def test_an_unquoted_date_is_the_text_that_it_was():
    text = as_yaml(spoil({})).replace("revision: main", "revision: 2026-01-31")
    assert parse_text(text, source="demo.yaml").spec.models.sft.revision == "2026-01-31"


def test_the_status_that_a_server_wrote_is_ignored():
    text = as_yaml(GOOD) + "status: {phase: Running, anything: [1, 2]}\n"
    assert parse_text(text, source="demo.yaml").spec == parse_file(FOLDER / "good.yaml").spec


def test_a_long_value_is_cut_in_the_message():
    (problem,) = refused(as_yaml(spoil({"set": {"spec.training.anchor": "x" * 500}}))).problems
    assert problem.value == f"{'x' * 57}..."


@pytest.mark.parametrize(
    ("content", "message", "line", "column"),
    [
        (b"a: 1\nb: caf\xe9\n", "byte 0xe9 is not UTF-8", 2, 7),
        ("a: 1".encode("utf-16"), "is not UTF-8", 1, 1),
        (b"#" * (1024 * 1024 + 1), "is larger than 1024 KiB", 0, 0),
    ],
)
def test_a_file_that_cannot_be_a_text_is_refused(tmp_path, content, message, line, column):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        parse_file(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (line, column)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + as_yaml(GOOD).encode())
    assert parse_file(path).full_name == "ml/good"


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    (tmp_path / "run.yaml").write_text("x: 1\n")
    with pytest.raises(SpecError, match=r"gone.yaml there is no such file"):
        parse_file(tmp_path / "gone.yaml")
    with pytest.raises(SpecError, match=r"is a folder, not a file") as caught:
        parse_file(tmp_path)
    assert caught.value.problems[0].hint == "it holds run.yaml"


def test_relative_paths_count_from_the_file_and_other_uris_stay_as_written(tmp_path):
    changes = {
        "spec.storage.uri": "../store",
        "spec.models.sft.uri": "models/my sft",
        "spec.models.rewards[0].uri": "~/reward",
        "spec.prompts.uri": "/data/prompts",
        "spec.prompts.evaluationSplit": {"type": "Source", "uri": "./held out.jsonl"},
    }
    run = parse_text(as_yaml(spoil({"set": changes})), source="demo.yaml")
    base = tmp_path / "a folder"
    spec = resolve_relative_uris(run, base).spec
    assert spec.storage.uri == str(tmp_path / "store")
    assert spec.models.sft.uri == str(base / "models" / "my sft")
    assert isinstance(spec.models.rewards[0], CheckpointReward)
    assert spec.models.rewards[0].uri == "~/reward"
    assert spec.prompts.uri == "/data/prompts"
    assert isinstance(spec.prompts.evaluation_split, SourceSplit)
    assert spec.prompts.evaluation_split.uri == str(base / "held out.jsonl")
    assert isinstance(spec.models.held_out_rewards[0], FunctionReward)
    assert parse_text(as_yaml(spec_as_data(run, spec)), source="again.yaml").spec == spec


def spec_as_data(run, spec):
    return run.model_copy(update={"spec": spec}).model_dump(mode="json", by_alias=True, exclude={"status"})


def test_a_uri_with_a_scheme_is_never_resolved(tmp_path):
    run = parse_file(FOLDER / "good.yaml")
    assert resolve_relative_uris(run, tmp_path) == run
