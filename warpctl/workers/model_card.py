"""The README.md of an exported model: what is true of it and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from warpctl.reports.summary import front_table

_PAPER = "[WARP: On the Benefits of Weight Averaged Rewarded Policies](https://arxiv.org/abs/2406.16768)"


def model_card(card: Mapping[str, Any], front: Mapping[str, Any] | None = None) -> str:
    """A model card from plain facts, and the table of the run's front (a front.json).

    run, point, source, isMerged, litiRate, iteration, iterations, rlRuns, sftUri, digests (role -> manifest digest), dtype;
    kl, reward: {mean, low, high}, heldOut: name -> the same, or None for a point that was never evaluated;
    confidenceLevel; why: how it was chosen.
    """
    head = ["---"]
    if str(card["sftUri"]).startswith("hf://"):  # anything else is no name that a hub could resolve
        repository = "/".join(str(card["sftUri"]).removeprefix("hf://").split("/")[:2])  # without the folder in it
        head += [f"base_model: {repository}", "base_model_relation: finetune"]
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
        *([f"- chosen as: {card['why']}"] if card.get("why") else []),
        "",
        *(_front(front) if front else ()),
        "Made from these artifacts (digest of each manifest):",
        "",
        *(f"- {role}: `{digest}`" for role, digest in dict(card["digests"]).items()),
        "",
        "`warprun.yaml` is the run's spec" + (", `front.json` every evaluated point." if front else "."),
    ]
    return "\n".join([*head, "", *body]) + "\n"


def _recipe(card: Mapping[str, Any]) -> str:
    run = f"iterations: {card['iterations']}, RL runs in each: {card['rlRuns']}"
    if card["isMerged"]:
        return f"Aligned with {_PAPER} by warpctl ({run}), by spherical interpolation of the RL runs' task vectors."
    return f"One RL run of an alignment with {_PAPER} by warpctl ({run}), as it was before merging."


def _weights(card: Mapping[str, Any]) -> str:
    dtype = card.get("dtype", "float32")
    if str(card["litiRate"]) == "1":
        return f"{card['source']} of iteration {card['iteration']}, {dtype}"
    return (
        f"(1 - {card['litiRate']}) x SFT policy + {card['litiRate']} x {card['source']} of iteration "
        f"{card['iteration']}, {dtype}"
    )


def _evaluation(card: Mapping[str, Any]) -> list[str]:
    if card.get("kl") is None or card.get("reward") is None:
        return ["- this very point was not evaluated in the run"]
    level = f"{float(card['confidenceLevel']) * 100:g}%"
    lines = [
        f"- KL to the SFT policy: {interval_text(card['kl'])} nats per completion ({level} interval over prompts)",
        f"- reward it was trained on: {interval_text(card['reward'])} ({level} interval over prompts)",
        *(
            f"- held-out reward {name}: {interval_text(estimate)} ({level} interval over prompts)"
            for name, estimate in (card.get("heldOut") or {}).items()
        ),
    ]
    if card.get("dtype", "float32") != "float32":
        lines.append(f"- these were measured on the float32 weights, which are rounded to {card['dtype']} here")
    return lines


def _front(front: Mapping[str, Any]) -> Iterator[str]:
    table = front_table(front)
    level = f"{float(front['confidenceLevel']) * 100:g}%"
    yield f"All evaluated points (`*`: on the front; KL in nats per completion; \u00b1 half of a {level} interval):"
    yield ""
    yield _row(table.columns)
    yield _row(["---"] * len(table.columns))
    yield from (_row(row) for row in table.rows)
    yield ""


def _row(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|').replace('*', chr(92) + '*') for cell in cells)} |"


def interval_text(estimate: Mapping[str, float]) -> str:
    """Mean and interval: 2.000 [1.500, 2.500]."""
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
