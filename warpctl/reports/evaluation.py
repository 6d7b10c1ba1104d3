"""One evaluated point as it is stored (points/<point key>.json), and the list that gives points their names.

A point's content has no name and no iteration: the same weights under the same settings are one point, wherever they
appear. points.json of an evaluate artifact says which point is which. Neither holds times or host names.
Per-completion lists are prompt-major: prompt 0's completions, then prompt 1's. Shapes: N prompts, G completions each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpctl.errors import InputError
from warpctl.spec.decimals import decimal_text

POINTS_FILE = "points.json"
SFT_POINT = "sft"

Floats = NDArray[np.float64]


def canonical_json(document: Any) -> bytes:
    """One spelling of a document: sorted keys, no spaces, ASCII; NaN and Infinity are refused with ValueError."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def point_key(identity: Mapping[str, Any]) -> str:
    """The name of a point: sha256 over what determines it (weights by content, rate, evaluation settings)."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


@dataclass(frozen=True)
class EvaluatedPoint:
    """What one policy does on the evaluation prompts."""

    identity: Mapping[str, Any]
    """What the key was computed from."""
    prompts: tuple[str, ...]
    """(N) texts."""
    num_generations: int
    """G completions per prompt."""
    completions: tuple[str, ...]
    """(N * G) texts."""
    kl_k1: tuple[float, ...]
    """(N * G) nats per completion: sum over its tokens of log(policy / SFT)."""
    kl_rb: tuple[float, ...]
    """(N * G) nats per completion: sum over its positions of the exact KL of the next-token distributions."""
    reward: tuple[float, ...]
    """(N * G) weighted sum of the trained-on rewards' raw scores, before shaping and KL."""
    scores: Mapping[str, tuple[float, ...]]
    """Each trained-on reward by name, (N * G) raw scores."""
    held_out: Mapping[str, tuple[float, ...]]
    """Each held-out reward by name, (N * G) raw scores."""
    lengths: tuple[int, ...]
    """(N * G) tokens, the end-of-sequence token included."""
    truncated: tuple[bool, ...]
    """(N * G) True: cut at maxNewTokens, without an end-of-sequence token."""

    def __post_init__(self) -> None:
        expected = len(self.prompts) * self.num_generations
        columns = {
            "completions": self.completions,
            "klK1": self.kl_k1,
            "klRb": self.kl_rb,
            "reward": self.reward,
            "lengths": self.lengths,
            "truncated": self.truncated,
            **{f"scores.{name}": values for name, values in self.scores.items()},
            **{f"heldOut.{name}": values for name, values in self.held_out.items()},
        }
        for name, values in columns.items():
            if len(values) != expected or expected == 0:
                raise InputError(f"evaluated point: {name} has {len(values)} entries for {expected} completions")

    @property
    def key(self) -> str:
        return point_key(self.identity)

    def per_prompt(self, values: Sequence[float]) -> Floats:
        """Mean over each prompt's completions: (N * G) -> (N)."""
        means: Floats = np.asarray(values, dtype=np.float64).reshape(len(self.prompts), self.num_generations).mean(1)
        return means

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same point is the same bytes."""
        return canonical_json(
            {
                "layoutVersion": 1,
                "identity": self.identity,
                "prompts": self.prompts,
                "numGenerations": self.num_generations,
                "completions": self.completions,
                "klK1": self.kl_k1,
                "klRb": self.kl_rb,
                "reward": self.reward,
                "scores": self.scores,
                "heldOut": self.held_out,
                "lengths": self.lengths,
                "truncated": self.truncated,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "") -> EvaluatedPoint:
        """Read a stored point; InputError when it is not one."""
        try:
            document = json.loads(data)
            return cls(
                identity=document["identity"],
                prompts=tuple(document["prompts"]),
                num_generations=int(document["numGenerations"]),
                completions=tuple(document["completions"]),
                kl_k1=tuple(map(float, document["klK1"])),
                kl_rb=tuple(map(float, document["klRb"])),
                reward=tuple(map(float, document["reward"])),
                scores={key: tuple(map(float, values)) for key, values in document["scores"].items()},
                held_out={key: tuple(map(float, values)) for key, values in document["heldOut"].items()},
                lengths=tuple(map(int, document["lengths"])),
                truncated=tuple(map(bool, document["truncated"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"evaluated point {name} cannot be read: {error!r}") from error


@dataclass(frozen=True)
class NamedPoint:
    """A line of points.json: which evaluated point is which of an iteration or control."""

    name: str
    """`sft`, `member/<m>`, `liti/<rate>`, as in PointTask; for a control the name that the planner gave."""
    point_key: str
    iteration: int
    control: str
    """NoAnchor, SftAnchor, ComputeMatched; empty for the run itself."""
    liti_rate: Decimal
    """Rate from the SFT policy (0) to the source (1)."""
    digest: str
    """blake3 of the stored point: who computed it first is not for this list to say, what was read is."""

    def to_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pointKey": self.point_key,
            "iteration": self.iteration,
            "control": self.control,
            "litiRate": decimal_text(self.liti_rate),
            "digest": self.digest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> NamedPoint:
        return cls(
            name=str(document["name"]),
            point_key=str(document["pointKey"]),
            iteration=int(document["iteration"]),
            control=str(document["control"]),
            liti_rate=Decimal(document["litiRate"]),
            digest=str(document["digest"]),
        )


def write_names(points: Sequence[NamedPoint]) -> bytes:
    """points.json."""
    return canonical_json([point.to_document() for point in points])


def read_names(data: bytes) -> tuple[NamedPoint, ...]:
    """points.json; InputError when it is not one."""
    try:
        return tuple(NamedPoint.from_document(document) for document in json.loads(data))
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise InputError(f"{POINTS_FILE} cannot be read: {error!r}") from error
