"""Rewards of a run as scorers: (prompts, completions) -> one finite score each.

A checkpoint runs here, a Python function is called here, an endpoint is asked over HTTP. Whatever comes back is checked:
a wrong count, a NaN or a word where a number should be never reaches the policy.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import httpx
import stamina

from warpctl.errors import InputError, NumericsError, RetryableError
from warpctl.spec.models import CheckpointReward, FunctionReward, HttpReward, Reward
from warpctl.spec.stage_input import StageInput
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.reward_model import RewardModel

HTTP_ATTEMPTS = 8
HTTP_FIRST_WAIT_SECONDS = 0.5
HTTP_LONGEST_WAIT_SECONDS = 60.0
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Scorer(Protocol):
    """Scores completions; `prompts` and `completions` have one length."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]: ...


def load_scorers(
    rewards: Sequence[Reward], stage_input: StageInput, store: Store, *, device: Any = "cpu"
) -> dict[str, Scorer]:
    """A scorer for each reward, by its name, in the order of the spec."""
    return {reward.name: load_scorer(reward, stage_input, store, device=device) for reward in rewards}


def load_scorer(reward: Reward, stage_input: StageInput, store: Store, *, device: Any = "cpu") -> Scorer:
    """The scorer of one reward, checked; a checkpoint comes from the input `reward/<name>`."""
    if isinstance(reward, CheckpointReward):
        artifact = Artifact.of(store, stage_input.input(f"reward/{reward.name}"))
        return checked(reward.name, RewardModel.load(artifact, name=reward.name, device=device))
    if isinstance(reward, FunctionReward):
        return checked(reward.name, find_function(reward))
    return checked(reward.name, HttpScorer(reward))


def checked(name: str, scorer: Callable[[list[str], list[str]], Any]) -> Scorer:
    """`scorer` with its answers judged: as many as completions, all of them finite numbers."""

    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        answer = scorer(list(prompts), list(completions))
        try:
            scores = [float(value) for value in answer]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"reward {name!r} answered {str(answer)[:120]}: {error}", hint="it must give one number a completion"
            ) from error
        if len(scores) != len(completions):
            raise InputError(
                f"reward {name!r} gave {len(scores)} scores for {len(completions)} completions",
                hint="it must give one number a completion, in their order",
            )
        for place, value in enumerate(scores):
            if not math.isfinite(value):
                raise NumericsError(
                    f"reward {name!r} gave {value} to the completion {completions[place][:200]!r}",
                    hint="a reward must be a finite number for every text, the empty one too",
                )
        return scores

    return score


def find_function(reward: FunctionReward) -> Callable[[list[str], list[str]], Any]:
    """Import `package.module:function`."""
    module_name, _, function_name = reward.function.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"reward {reward.name!r}: {reward.function} cannot be imported: {error}",
            hint="install its package in the worker's environment (locally: the one that runs warpctl)",
        ) from error
    if not callable(function):
        raise InputError(
            f"reward {reward.name!r}: {reward.function} is a {type(function).__name__}, not a function",
            hint="name a function f(prompts, completions) that returns one number a completion",
        )
    return function  # type: ignore[no-any-return]  # what it answers is checked at every call


class HttpScorer:
    """POST {"prompts": [...], "completions": [...]} answers {"scores": [...]}."""

    def __init__(
        self, reward: HttpReward, *, client: httpx.Client | None = None, wait_seconds: float = HTTP_FIRST_WAIT_SECONDS
    ) -> None:
        self._reward = reward
        self._client = client or httpx.Client(timeout=reward.timeout_seconds)
        self._wait_seconds = wait_seconds

    def __call__(self, prompts: list[str], completions: list[str]) -> Any:
        try:
            for attempt in stamina.retry_context(
                on=_is_worth_a_retry,
                attempts=HTTP_ATTEMPTS,
                timeout=None,
                wait_initial=self._wait_seconds,
                wait_max=HTTP_LONGEST_WAIT_SECONDS,
                wait_jitter=self._wait_seconds,
            ):
                with attempt:
                    response = self._client.post(
                        self._reward.url, json={"prompts": prompts, "completions": completions}
                    )
                    response.raise_for_status()
        except httpx.HTTPError as error:
            if _is_worth_a_retry(error):
                raise RetryableError(
                    f"reward {self._reward.name!r}: {self._reward.url} did not answer in {HTTP_ATTEMPTS} attempts: "
                    f"{error!r}",
                    hint="is the endpoint up? The run goes on from its last resume state",
                ) from error
            raise InputError(
                f"reward {self._reward.name!r}: {self._reward.url} refuses the request: {error}",
                hint="it must take POST with JSON {prompts, completions}",
            ) from error
        return self._scores(response)

    def _scores(self, response: httpx.Response) -> Any:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, Mapping) or not isinstance(body.get("scores"), list):
            raise InputError(
                f"reward {self._reward.name!r}: {self._reward.url} answered {response.text[:120]!r}",
                hint='it must answer with JSON {"scores": [...]}',
            )
        scores = body["scores"]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in scores):
            raise InputError(
                f"reward {self._reward.name!r}: {self._reward.url} answered scores that are not numbers: "
                f"{str(scores)[:120]}",
                hint="scores must be numbers, one a completion",
            )
        return scores


def _is_worth_a_retry(error: Exception) -> bool:
    """Transport errors and answers that say "later"."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in RETRIED_STATUSES
    return isinstance(error, httpx.TransportError)
