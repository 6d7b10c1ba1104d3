"""The laboratory's folders: made whole or not at all, the same for a seed, loadable like anybody's models."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from warpctl.tiny import laboratory
from warpctl.tiny.__main__ import main
from warpctl.tiny.grammar import VOCABULARY
from warpctl.tiny.laboratory import is_made, make_laboratory
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import make_tokenizer, text_of, tokens_of

SHORT = Recipe(width=32, sft_steps=3, sft_batch=4, num_prompts=20, num_pairs=20, reward_steps=3, reward_batch=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "lab"
    lines = []
    assert make_laboratory(folder, SHORT, lines.append)
    return folder, lines


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_models_load_like_anybodys(made):
    folder, _ = made
    policy = AutoModelForCausalLM.from_pretrained(folder / "sft")
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "reward")
    tokenizer = AutoTokenizer.from_pretrained(folder / "sft")

    assert type(policy).__name__ == "GemmaForCausalLM"
    assert policy.config.num_key_value_heads == 1
    assert policy.config.tie_word_embeddings
    assert reward.config.num_labels == 1
    assert len(tokenizer) == len(VOCABULARY) == policy.config.vocab_size
    prompts = [json.loads(line)["prompt"] for line in (folder / "prompts" / "prompts.jsonl").read_text().splitlines()]
    assert len(set(prompts)) == 20
    assert {len(tokens) for tokens in tokenizer(prompts)["input_ids"]} == {11}


def test_the_full_policy_has_three_tenths_of_a_million_parameters():
    from transformers import GemmaForCausalLM

    from warpctl.tiny.policy import policy_config

    policy = GemmaForCausalLM(policy_config(Recipe()))

    assert sum(parameter.numel() for parameter in policy.parameters()) == pytest.approx(0.30e6, rel=0.01)


def test_the_rewards_score_has_mean_0_and_deviation_1_over_its_own_samples(made):
    folder, _ = made
    from warpctl.tiny.preferences import sample_pairs, scores_of

    policy = AutoModelForCausalLM.from_pretrained(folder / "sft").eval()
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "reward").eval()
    pairs = sample_pairs(policy, SHORT)
    with torch.no_grad():
        scores = scores_of(reward, pairs.first + pairs.second)

    assert scores.mean().item() == pytest.approx(0, abs=1e-3)
    assert scores.std().item() == pytest.approx(1, abs=1e-3)


def test_a_seed_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    folder, _ = made
    make_laboratory(tmp_path / "again", SHORT, lambda line: None)
    make_laboratory(tmp_path / "other", dataclasses.replace(SHORT, seed=1), lambda line: None)

    assert files(tmp_path / "again") == files(folder)
    other = files(tmp_path / "other")
    assert other["sft/model.safetensors"] != files(folder)["sft/model.safetensors"]
    assert other["prompts/prompts.jsonl"] != files(folder)["prompts/prompts.jsonl"]


def test_what_is_made_is_not_made_again(made):
    folder, _ = made
    before, lines = files(folder), []

    assert not make_laboratory(folder, SHORT, lines.append)
    assert lines == [f"{folder}: already made"]
    assert files(folder) == before


def test_progress_says_what_is_being_made(made):
    _, lines = made

    assert any(line.startswith("sft policy: step 3 of 3") for line in lines)
    assert any("agrees with the truth" in line for line in lines)


def test_another_recipe_replaces_the_folder(tmp_path):
    make_laboratory(tmp_path / "lab", SHORT, lambda line: None)
    other = dataclasses.replace(SHORT, num_prompts=10)

    assert make_laboratory(tmp_path / "lab", other, lambda line: None)
    assert is_made(tmp_path / "lab", other)
    assert not is_made(tmp_path / "lab", SHORT)


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("half way")

    monkeypatch.setattr(laboratory, "train_reward_model", fails)

    with pytest.raises(RuntimeError, match="half way"):
        make_laboratory(tmp_path / "lab", SHORT, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "thesis.txt").write_text("precious")

    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "lab")])

    assert "is not a tiny laboratory" in capsys.readouterr().err
    assert (tmp_path / "lab" / "thesis.txt").read_text() == "precious"


def test_texts_and_tokens_are_each_others_inverse():
    text = "the sound of this lamp is great ."

    assert text_of(tokens_of(text)) == text
    assert make_tokenizer().decode(tokens_of(text)) == text
    assert make_tokenizer()(text)["input_ids"][1:] == tokens_of(text)


@pytest.mark.parametrize("change", [{"seed": 1}, {"width": 64}, {"reward_steps": 4}, {"temperature": "1"}])
def test_every_number_of_a_recipe_is_in_its_digest(change):
    assert dataclasses.replace(SHORT, **change).digest() != SHORT.digest()
