"""The benchmark runs, without TRL and without a look at the clock: both of its parts, on a policy of random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.never_ending import END, make_never_ending
from tests.builders.model_folder import write_folder
from tests.builders.rl_stage import policy_files, prompt_lines

TOP = Path(__file__).parents[2]


@pytest.fixture
def laboratory(tmp_path):
    """As python -m warpctl.tiny makes it, as far as the benchmark looks at it."""
    files = {name: data for name, data in policy_files().items() if name != "chat_template.jinja"}
    write_folder(tmp_path / "sft", files)
    write_folder(tmp_path / "prompts", {"prompts.jsonl": prompt_lines(80)})
    return tmp_path


def test_the_last_line_has_the_figures_and_says_none_where_there_is_no_trl(laboratory):
    sizes = ["--batches", "4", "--sampler-batches", "4", "--tokens", "3", "--steps", "1", "--blocks", "1"]
    command = [sys.executable, "-m", "tests.benchmarks.rl", "--laboratory", str(laboratory), *sizes]
    done = subprocess.run(
        command, cwd=TOP, env={**os.environ}, capture_output=True, text=True, check=False, timeout=200
    )

    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    for name in ("completions_per_s_over_trl_b16", "completions_per_s_over_trl_b64", "peak_memory_over_trl"):
        assert figures[name] is None
    assert figures["completions_per_s"]["warpctl"]["4"] > 0
    assert figures["sampler_over_generate"]["4"] > 0
    for name in ("ema_ms", "evaluation_ms", "resumeState_ms"):
        assert figures[name] > 0


def test_the_never_ending_policy_looks_for_an_end_that_it_cannot_say(laboratory, tmp_path):
    folder = make_never_ending(laboratory / "sft", tmp_path / "never-ending")

    from warpctl.workers.policies import load_tokenizer

    config = json.loads((folder / "config.json").read_text())
    tokenizer = load_tokenizer(folder, label="policy")
    assert tokenizer.eos_token == END
    assert tokenizer.eos_token_id == config["eos_token_id"] == config["vocab_size"]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == config["vocab_size"]
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (laboratory / "sft" / weights).read_bytes()
