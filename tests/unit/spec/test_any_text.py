"""Whatever is put anywhere, the parser answers with a run or with problems that have a place: it never breaks."""

from __future__ import annotations

import contextlib
import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bad_specs import GOOD, as_yaml
from warpctl.errors import SpecError
from warpctl.spec.parse import parse_text

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "Checkpoint", "Http", "type", "x", "0.5", "[]"]),
    st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=8),
)
KEYS = st.sampled_from(["type", "name", "uri", "steps", "Checkpoint", "spec", "x y", "1"])
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def places(data, at=()):
    """Every location of a tree."""
    yield at
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


LOCATIONS = [at for at in places(GOOD) if at]


def put(data, at, value):
    for step in at[:-1]:
        data = data[step]
    data[at[-1]] = value


@settings(max_examples=120)
@given(st.lists(st.tuples(st.sampled_from(LOCATIONS), ANYTHING), min_size=1, max_size=3))
def test_anything_anywhere_gives_a_run_or_problems_with_a_place(changes):
    data = copy.deepcopy(GOOD)
    for at, value in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            put(data, at, value)
    text = as_yaml(data)
    run, problems = read(text)
    assert (run is None) == bool(problems)
    for problem in problems:
        assert 1 <= problem.line <= len(text.splitlines())
        assert problem.column >= 1
        assert problem.message
    written = [(problem.path, problem.message, problem.line) for problem in problems]
    assert len(set(written)) == len(written)


def read(text):
    try:
        return parse_text(text, source="any.yaml"), ()
    except SpecError as error:
        return None, error.problems


@settings(max_examples=120)
@given(st.text(max_size=60) | st.text(alphabet="abc:-[]{}#&*!|>'\"%@ \n\t1.", max_size=60))
def test_any_text_at_all_is_refused_with_a_place(text):
    run, problems = read(text)
    assert run is None
    assert problems
    assert all(problem.line >= 1 for problem in problems)
