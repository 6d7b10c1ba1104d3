"""Builders: evaluated points with a plausible front, made from a seed, as an evaluate worker would store them."""

from decimal import Decimal

import numpy as np

from warpctl.reports.estimate import Evaluated
from warpctl.reports.evaluation import EvaluatedPoint, NamedPoint
from warpctl.storage.manifest import digest_of

NUM_PROMPTS = 64


def make_point(
    *,
    kl: float = 1.0,
    reward: float = 0.5,
    held_out: float | None = 0.2,
    num_prompts: int = NUM_PROMPTS,
    num_generations: int = 1,
    completion: str = "nice",
    seed: int = 0,
) -> EvaluatedPoint:
    """A point whose per-completion values scatter around the given means."""
    generator = np.random.default_rng(seed)
    count = num_prompts * num_generations
    noise = generator.normal(size=count)
    rewards = tuple(float(value) for value in reward + 0.8 * noise)
    held = {} if held_out is None else {"truth": tuple(float(value) for value in held_out + 0.5 * noise)}
    return EvaluatedPoint(
        identity={"kl": kl, "reward": reward, "heldOut": held_out, "seed": seed},
        prompts=tuple(f"prompt {number}" for number in range(num_prompts)),
        num_generations=num_generations,
        completions=tuple(f"{completion} {number} of {seed}" for number in range(count)),
        kl_k1=tuple(float(value) for value in kl + 2.0 * generator.normal(size=count)),
        kl_rb=tuple(float(value) for value in kl * generator.gamma(9, 1 / 9, size=count)),
        reward=rewards,
        scores={"learned": rewards},
        held_out=held,
        lengths=tuple(int(value) for value in generator.integers(8, 32, size=count)),
        truncated=tuple(bool(value) for value in generator.random(count) < 0.1),
    )


def make_named(
    name: str, point: EvaluatedPoint, *, iteration: int = 1, control: str = "", liti_rate: str = "1"
) -> Evaluated:
    named = NamedPoint(
        name=name,
        point_key=point.key,
        iteration=iteration,
        control=control,
        liti_rate=Decimal(liti_rate),
        digest=digest_of(point.to_bytes()),
    )
    return named, point


def make_run(
    *,
    iterations: int = 2,
    members: int = 2,
    rates: tuple[str, ...] = ("0.15", "0.3", "0.5", "0.75", "1"),
    controls: tuple[str, ...] = (),
    held_out: bool = True,
    completion: str = "nice",
) -> list[Evaluated]:
    """SFT, members and LITI rates of each iteration: KL grows like the square of the rate, reward like the rate."""

    def point(kl: float, reward: float, seed: int) -> EvaluatedPoint:
        truth = reward * 0.7 - 0.02 * kl if held_out else None
        return make_point(kl=kl, reward=reward, held_out=truth, completion=completion, seed=seed)

    sft = point(0.0, 0.0, 1)
    evaluated: list[Evaluated] = []
    for iteration in range(1, iterations + 1):
        evaluated.append(make_named("sft", sft, iteration=iteration, liti_rate="0"))
        height, width = 1.2 + 0.3 * iteration, 4.0 + 1.5 * iteration
        evaluated.extend(
            make_named(
                f"member/{member}",
                point(width * (0.9 + 0.1 * member), height * 0.75, 10 * iteration + member),
                iteration=iteration,
            )
            for member in range(1, members + 1)
        )
        for number, rate in enumerate(rates):
            eta = float(rate)
            evaluated.append(
                make_named(
                    f"liti/{rate}",
                    point(width * eta * eta, height * eta, 100 * iteration + number),
                    iteration=iteration,
                    liti_rate=rate,
                )
            )
    for number, control in enumerate(controls):
        evaluated.append(make_named("sft", sft, iteration=0, control=control, liti_rate="0"))
        for rate in ("0.3", "1"):
            eta = float(rate)
            evaluated.append(
                make_named(
                    f"liti/{rate}",
                    point(9 * eta * eta * (1 + number), 1.1 * eta, 900 + number),
                    iteration=0,
                    control=control,
                    liti_rate=rate,
                )
            )
    return evaluated
