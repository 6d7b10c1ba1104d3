"""The prompt set: read from JSONL and Parquet, put through templates, filtered with counts, split by text."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.checkpoints import publish
from warpctl.errors import InputError
from warpctl.spec.models import HeldOutSplit, Prompts, SourceSplit
from warpctl.spec.stage_input import InputArtifact, RlTask, StageInput, StageKind
from warpctl.spec.training import Training
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.tiny.tokenizer import TOKENS, make_tokenizer
from warpctl.workers.prompt_set import PromptSet, load_prompts, read_values, render, split_by_text, tokenized

TEMPLATE = "{% for m in messages %}<bos> {{ m.role }} {{ m.content }}{% endfor %}{% if add_generation_prompt %} about :{% endif %}"
WORDS = ["the lamp", "a new fan", "this old desk is great", "it works", "my phone", "we love it"]


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "store")


def prompts(**settings):
    return Prompts.model_validate(
        {"uri": "memory://prompts", "evaluationSplit": {"type": "HeldOut", "count": 2}, **settings}
    )


def jsonl(values, column="prompt"):
    return "".join(json.dumps({column: value}) + "\n" for value in values).encode()


def parquet(values, column="prompt"):
    sink = io.BytesIO()
    pq.write_table(pa.table({column: values, "other": list(range(len(values)))}), sink)
    return sink.getvalue()


def load(storage, files, settings=None, *, evaluation_files=None):
    store = Store.open(storage)
    inputs = [publish(store, files, key="c" * 64, role="prompts")]
    if evaluation_files is not None:
        inputs.append(publish(store, evaluation_files, key="e" * 64, role="prompts/evaluation"))
    stage = StageInput(
        stage_id="rl/1/1", kind=StageKind.RL, key="1" * 64, attempt_id="1", namespace="default", run="test",
        storage=storage, inputs=tuple(inputs),
        task=RlTask(
            algorithm_version="1", seed=0, iteration=1, member=1, steps=1, training=Training(steps=[1]),
            prompts=settings or prompts(), rewards=(),
        ),
    )  # fmt: skip
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return load_prompts(stage, store, tokenizer)


def values_of(storage, files, settings):
    store = Store.open(storage)
    entry: InputArtifact = publish(store, files, key="c" * 64, role="prompts")
    return list(read_values(Artifact.of(store, entry), settings))


def test_jsonl_and_parquet_of_the_same_prompts_give_the_same_sets(storage):
    from_jsonl = load(storage, {"a.jsonl": jsonl(WORDS)})
    from_parquet = load(f"{storage}-2", {"a.parquet": parquet(WORDS)}, prompts(format="Parquet"))

    assert from_jsonl == from_parquet
    assert sorted(from_jsonl[0].texts + from_jsonl[1].texts) == sorted(WORDS)


def test_plain_prompts_have_the_tokenizers_own_special_tokens(storage):
    training, _ = load(storage, {"a.jsonl": jsonl(WORDS)})

    for text, tokens in zip(training.texts, training.tokens, strict=True):
        assert list(tokens) == [TOKENS["<bos>"], *(TOKENS[word] for word in text.split())]


def test_neither_the_order_of_lines_nor_that_of_files_matters(storage):
    one = load(storage, {"a.jsonl": jsonl(WORDS)})
    other = load(f"{storage}-2", {"a.jsonl": jsonl(WORDS[4:][::-1]), "b.jsonl": jsonl(WORDS[:4][::-1])})

    assert one == other


def test_held_out_prompts_are_never_trained_on(storage):
    """Neither are their copies; a held-out text counts once."""
    training, evaluation = load(storage, {"a.jsonl": jsonl(WORDS * 3)})

    assert len(evaluation) == 2
    assert len(training) == 12
    assert not set(training.texts) & set(evaluation.texts)


@given(st.lists(st.text(alphabet="abc", max_size=3), min_size=1, max_size=12), st.integers(1, 5))
def test_splitting_loses_no_text_and_mixes_none(texts, count):
    prompt_set = PromptSet(tuple(texts), tuple((place,) for place in range(len(texts))), 0, 0)
    if len(set(texts)) <= count:
        with pytest.raises(InputError, match="none to train on"):
            split_by_text(prompt_set, count)
        return

    training, evaluation = split_by_text(prompt_set, count)

    assert len(evaluation.texts) == len(set(evaluation.texts)) == count
    assert set(training.texts) | set(evaluation.texts) == set(texts)
    assert not set(training.texts) & set(evaluation.texts)


def test_evaluation_prompts_may_have_a_source_of_their_own(storage):
    settings = prompts(evaluationSplit={"type": "Source", "uri": "memory://evaluation"})
    assert isinstance(settings.evaluation_split, SourceSplit)

    training, evaluation = load(
        storage, {"a.jsonl": jsonl(WORDS)}, settings, evaluation_files={"b.jsonl": jsonl(["my old lamp"])}
    )

    assert sorted(training.texts) == sorted(WORDS)
    assert evaluation.texts == ("my old lamp",)


def test_long_prompts_are_dropped_and_counted(storage):
    """With the beginning of sequence, 'this old desk is great' has six tokens and 'a new fan' four."""
    training, evaluation = load(storage, {"a.jsonl": jsonl(WORDS)}, prompts(maxPromptTokens=3))

    assert sorted(training.texts + evaluation.texts) == ["it works", "my phone", "the lamp"]
    assert training.num_dropped == 3
    assert training.num_cut == 0


def test_long_prompts_are_cut_to_their_last_tokens_and_counted(storage):
    """What rewards read is what is left."""
    training, evaluation = load(storage, {"a.jsonl": jsonl(WORDS)}, prompts(maxPromptTokens=4, longPrompts="Cut"))

    cut = dict(zip(training.texts + evaluation.texts, training.tokens + evaluation.tokens, strict=True))
    assert training.num_cut == 1
    assert training.num_dropped == 0
    assert cut["old desk is great"] == tuple(TOKENS[word] for word in ("old", "desk", "is", "great"))


def test_an_empty_set_after_filtering_says_how_many_were_dropped(storage):
    with pytest.raises(InputError, match="no prompt is left of 6 in memory://prompts: 6 are longer than 1 tokens"):
        load(storage, {"a.jsonl": jsonl(WORDS)}, prompts(maxPromptTokens=1))


def test_more_held_out_than_there_are_is_refused(storage):
    with pytest.raises(InputError, match="6 different prompts are left, and 6 are to be held out"):
        load(storage, {"a.jsonl": jsonl(WORDS * 2)}, prompts(evaluationSplit={"type": "HeldOut", "count": 6}))


@pytest.mark.parametrize("value", ["the lamp", [{"role": "user", "content": "the lamp"}]])
def test_chat_prompts_go_through_the_template_with_one_beginning(storage, value):
    """A text is a user's message; the assistant's turn is opened; special tokens are those that the template writes."""
    values = [value, *([{"role": "user", "content": word}] for word in WORDS[1:])]
    training, evaluation = load(storage, {"a.jsonl": jsonl(values)}, prompts(template="Chat"))

    rendered = dict(zip(training.texts + evaluation.texts, training.tokens + evaluation.tokens, strict=True))
    tokens = rendered["<bos> user the lamp about :"]
    assert tokens == tuple(TOKENS.get(word, TOKENS["<unk>"]) for word in ["<bos>", "user", "the", "lamp", "about", ":"])
    assert tokens.count(TOKENS["<bos>"]) == 1


def test_conversations_without_the_chat_template_setting_are_refused(storage):
    with pytest.raises(InputError, match="a prompt is a list, not a text"):
        load(storage, {"a.jsonl": jsonl([[{"role": "user", "content": "x"}]])})


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(InputError, match="has no chat template"):
        render("the lamp", prompts(template="Chat").template, make_tokenizer())


def test_what_a_chat_template_refuses_is_named():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('system messages are not supported') }}"

    with pytest.raises(InputError, match=r"the chat template refuses .*system messages are not supported"):
        render([{"role": "system", "content": "x"}], prompts(template="Chat").template, tokenizer)


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ({"a.jsonl": b'{"prompt": "x"}\n{"prompt": \n'}, {}, r"a.jsonl, row 2 is not JSON"),
        ({"a.jsonl": b'{"text": "x", "id": 1}\n'}, {}, r"a.jsonl, row 1: there is no 'prompt', only id, text"),
        ({"a.jsonl": b'"x"\n'}, {}, r"row 1: there is no 'prompt', only str"),
        ({"a.jsonl": b'{"prompt": null}\n'}, {}, r"row 1: there is no 'prompt'"),
        ({"a.parquet": parquet(["x"], column="text")}, {"format": "Parquet"}, r"no 'prompt', only other, text"),
        ({"a.parquet": b"PAR1 nonsense"}, {"format": "Parquet"}, r"a.parquet is not a Parquet file"),
        ({"a.parquet": b"x"}, {}, r"has no .jsonl file; it has a.parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_their_row(storage, files, settings, message):
    with pytest.raises(InputError, match=message):
        values_of(storage, files, prompts(**settings))


def test_blank_lines_are_no_prompts(storage):
    assert values_of(storage, {"a.jsonl": b'\n{"prompt": "x"}\n\n  \n{"prompt": "y"}'}, prompts()) == ["x", "y"]


def test_a_tokenizer_that_closes_its_texts_leaves_prompts_open():
    """Some put the end of sequence behind every text; sampling after it would be nonsense."""
    tokenizer = make_tokenizer()
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", TOKENS["<bos>"]), ("<eos>", TOKENS["<eos>"])]
    )

    prompt_set = tokenized(["the lamp"], prompts(), tokenizer)

    assert prompt_set.tokens == ((TOKENS["<bos>"], TOKENS["the"], TOKENS["lamp"]),)


def test_the_default_split_is_what_the_spec_says():
    assert Prompts(uri="memory://x").evaluation_split == HeldOutSplit(type="HeldOut", count=256)
