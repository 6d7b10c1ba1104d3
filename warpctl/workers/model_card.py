"""The README.md of an exported model: what is true of it and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PAPER = "[WARP: On the Benefits of Weight Averaged Rewarded Policies](https://arxiv.org/abs/2406.16768)"


def model_card(card: Mapping[str, Any]) -> str:
    """A model card from plain facts.

    run, point, source, isMerged, litiRate, iteration, iterations, rlRuns, sftUri, sftRevision, digests (role -> manifest digest);
    kl, reward: {mean, low, high} or None for a point that was never evaluated; confidenceLevel, maxKl.
    """
    head = ["---"]
    if str(card["sftUri"]).startswith("hf://"):  # anything else is no name that a hub could resolve
        head += [f"base_model: {str(card['sftUri']).removeprefix('hf://')}", "base_model_relation: finetune"]
    head += [
        "library_name: transformers",
        "tags:",
        "- warp",
        "- rlhf",
        *(["- merge"] if card["isMerged"] else []),
        "---",
    ]
    body = [
        f"# {card['run']}: {card['point']}",
        "",
        _recipe(card),
        "",
        f"- weights: {_weights(card)}",
        *_evaluation(card),
        "",
        "Made from these artifacts (digest of each manifest):",
        "",
        *(f"- {role}: `{digest}`" for role, digest in dict(card["digests"]).items()),
    ]
    return "\n".join([*head, "", *body]) + "\n"


def _recipe(card: Mapping[str, Any]) -> str:
    run = f"iterations: {card['iterations']}, RL runs in each: {card['rlRuns']}"
    if card["isMerged"]:
        return f"Aligned with {_PAPER} by warpctl ({run}), by spherical interpolation of the RL runs' task vectors."
    return f"One RL run of an alignment with {_PAPER} by warpctl ({run}), as it was before merging."


def _weights(card: Mapping[str, Any]) -> str:
    if str(card["litiRate"]) == "1":
        return f"{card['source']} of iteration {card['iteration']}, float32"
    return (
        f"(1 - {card['litiRate']}) x SFT policy + {card['litiRate']} x {card['source']} of iteration "
        f"{card['iteration']}, float32"
    )


def _evaluation(card: Mapping[str, Any]) -> list[str]:
    if card.get("kl") is None or card.get("reward") is None:
        return ["- this very point was not evaluated in the run"]
    level = f"{float(card['confidenceLevel']) * 100:g}%"
    return [
        f"- KL to the SFT policy: {_interval(card['kl'])} nats per completion ({level} interval over prompts)",
        f"- reward it was trained on: {_interval(card['reward'])} ({level} interval over prompts)",
    ]


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
