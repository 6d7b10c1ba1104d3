"""What is missing on this machine is said before anything starts, at its line."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import A_FILE, Place

REWARD = {"type": "Function", "name": "r", "function": "my_reward:score", "revision": "1"}


def models(**changes: object) -> dict[str, object]:
    return {"sft": {"uri": "missing/sft"}, "rewards": [{**REWARD, "function": "json:dumps"}], **changes}


@pytest.mark.parametrize("command", ["plan", "run"])
def test_local_sources_that_are_not_there_are_all_named_with_their_lines(place: Place, warpctl, command: str) -> None:
    place.write_spec(
        models=models(heldOutRewards=[{"type": "Checkpoint", "name": "truth", "uri": "missing/rm"}]),
        prompts={"uri": "/nowhere/p.jsonl"},
    )
    lines = (place.folder / "demo.yaml").read_text().splitlines()
    line_of = {
        text: 1 + next(n for n, line in enumerate(lines) if text in line) for text in ("sft:", "truth", "/nowhere")
    }

    said = warpctl(place, command, "demo.yaml")

    assert said.code == 2
    assert f'error: spec.models.sft.uri names nothing on this machine, got "{place.folder}/missing/sft"' in said.err
    assert f"demo.yaml:{line_of['sft:'] + 1}:" in said.err
    assert (
        f'spec.models.heldOutRewards[0].uri names nothing on this machine, got "{place.folder}/missing/rm"' in said.err
    )
    assert f"demo.yaml:{line_of['truth'] + 1}:" in said.err
    assert f"demo.yaml:{line_of['/nowhere']}:" in said.err
    assert "hint: a relative path counts from the spec's folder; is it typed right?" in said.err
    assert not (place.folder / "state").exists()


def test_a_source_that_was_imported_may_be_gone(place: Place, warpctl) -> None:
    source = place.folder / "prompts.jsonl"
    source.write_text("{}")
    place.write_spec(prompts={"uri": str(source)})
    assert warpctl(place, "run", "demo.yaml").code == 0
    source.unlink()

    assert warpctl(place, "plan", "demo.yaml").code == 0
    assert warpctl(place, "run", "demo.yaml").code == 0


def test_a_function_beside_the_spec_gets_the_very_command_as_hint(place: Place, warpctl) -> None:
    place.write_spec(models=models(sft={"uri": "/etc"}, rewards=[REWARD]), prompts={"uri": A_FILE})
    (place.folder / "my_reward.py").write_text("def score(prompts, completions):\n    return [0.0 for _ in prompts]\n")

    said = warpctl(place, "run", "demo.yaml")

    assert said.code == 2
    assert said.err.startswith(
        "error: spec.models.rewards[0].function cannot be imported (No module named 'my_reward'), "
        'got "my_reward:score"\n'
    )
    assert f"hint: workers do not look beside the spec: PYTHONPATH={place.folder} warpctl run demo.yaml\n" in said.err


def test_with_that_hint_it_runs(place: Place, warpctl, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_spec(models=models(sft={"uri": "/etc"}, rewards=[REWARD]), prompts={"uri": A_FILE})
    (place.folder / "my_reward.py").write_text("print('hello')\ndef score(prompts, completions):\n    return []\n")
    both = f"{place.folder}:{place.environment['PYTHONPATH']}"
    monkeypatch.setattr(Place, "environment", {**place.environment, "PYTHONPATH": both})

    assert warpctl(place, "run", "demo.yaml").code == 0


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1\n", "module 'my_reward' has no attribute 'score'"),
        ("import not_installed_at_all\n", "No module named 'not_installed_at_all'"),
        ("raise ValueError('no licence')\n", "ValueError: no licence"),
    ],
)
def test_a_module_that_is_found_and_fails_says_why(
    place: Place, warpctl, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    place.write_spec(models=models(sft={"uri": "/etc"}, rewards=[REWARD]), prompts={"uri": A_FILE})
    (place.folder / "my_reward.py").write_text(source)
    both = f"{place.folder}:{place.environment['PYTHONPATH']}"
    monkeypatch.setattr(Place, "environment", {**place.environment, "PYTHONPATH": both})

    said = warpctl(place, "run", "demo.yaml")

    assert (said.code, f"cannot be imported ({why})" in said.err) == (2, True)
    assert "hint: install the package that has my_reward with its score" in said.err
