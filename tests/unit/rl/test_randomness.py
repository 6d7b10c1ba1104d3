"""Randomness has no memory: the same names give the same seeds, prompts come in epochs of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warpctl.rl.randomness import derived_seed, prompt_rows


def test_seeds_are_frozen():
    """A change here would change every run's results: it needs a new algorithmVersion."""
    assert derived_seed(7, "sampling", 3) == 474903555885626589


def test_every_name_gives_a_seed_of_its_own():
    seeds = {derived_seed(seed, name, step) for seed in range(3) for name in ("a", "b") for step in range(50)}

    assert len(seeds) == 300
    assert derived_seed(1, "a", 11) != derived_seed(1, "a1", 1)


@given(
    num_prompts=st.integers(1, 20),
    first=st.integers(0, 60),
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_reading_on_is_reading_at_once(num_prompts, first, counts):
    """However the reading is cut into steps, and wherever it is resumed, the same prompts come."""
    at_once = prompt_rows(num_prompts, first=first, count=sum(counts), seed=5)
    step_by_step, position = [], first
    for count in counts:
        step_by_step += prompt_rows(num_prompts, first=position, count=count, seed=5)
        position += count

    assert step_by_step == at_once


def test_every_prompt_comes_once_an_epoch_in_an_order_of_its_own():
    rows = prompt_rows(8, first=0, count=24, seed=1)

    epochs = [rows[:8], rows[8:16], rows[16:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert prompt_rows(8, first=0, count=24, seed=2) != rows
